"""Rows of numbers with intervals, and the same rows as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from calql.evaluation.aggregate import iqm, probability_of_improvement, stratified_bootstrap_ci
from calql.paper.published import Published, published
from calql.reports.load import Run
from calql.reports.style import HERO, method_label

ALL_TASKS = "all tasks"
MEASURES = {
    "score_before": "score before",
    "score_after": "score after",
    "regret": "regret",
    "dip": "dip",
    "relative_improvement": "relative improvement",
    "hero_better": "P(Cal-QL better)",
}
"""Column → heading."""
SEED_COLUMNS = ("task", "method", "seed", "finished", "score_before", "score_after", "regret", "dip")
SEED_COLUMNS += ("relative_improvement", "wall_s", "run")


class Estimate(NamedTuple):
    """An aggregate over seeds with its 95 % bootstrap interval; of a single seed, low and high are the point itself."""

    point: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one task (or on all)."""

    task: str
    label: str
    method: str
    seeds: int
    """Finished runs behind the numbers (a task)."""
    unfinished: int
    """Runs that were left out because they did not finish."""
    measures: dict[str, Estimate | None]
    """Every key of MEASURES; None where it was not, or could not be, measured."""

    @property
    def published(self) -> Published | None:
        """What the paper reports; None where it reports nothing, and for variants of a method."""
        return published().get((self.task, self.method)) if self.label == method_label(self.method) else None


def method_rows(runs: Sequence[Run]) -> list[Row]:
    """One row a task and method, lowest regret first; with several tasks, rows over all of them come first.

    Aggregates are IQMs over the finished seeds. `hero_better` is the probability that a run of Cal-QL (the first
    variant, where there are several) has a lower regret than a run of the row's method.
    """
    tasks = list(dict.fromkeys(run.task for run in runs))
    groups = [(task, [task]) for task in tasks]
    if len(tasks) > 1:
        groups.insert(0, (ALL_TASKS, tasks))
    return [row for name, members in groups for row in _group_rows(name, members, runs)]


def summary_matrix(runs: Sequence[Run], tasks: Sequence[str], names: Sequence[str]) -> np.ndarray | None:
    """[seeds, tasks, names] of summary values: the finished seeds for which every task has every value, or None."""
    table = {(run.task, run.seed): [run.summary[name] for name in names] for run in runs if run.done}
    table = {key: values for key, values in table.items() if None not in values}
    seeds = set.intersection(*({seed for name, seed in table if name == task} for task in tasks))
    return np.array([[table[task, seed] for task in tasks] for seed in sorted(seeds)]) if seeds else None


def _group_rows(name: str, tasks: Sequence[str], runs: Sequence[Run]) -> list[Row]:
    by_label: dict[str, list[Run]] = {}
    for run in runs:
        if run.task in tasks:
            by_label.setdefault(run.label, []).append(run)
    by_label = {label: group for label, group in by_label.items() if {run.task for run in group} == set(tasks)}
    hero = next((group for group in by_label.values() if group[0].method == HERO), None)
    hero_regret = summary_matrix(hero, tasks, ["regret"]) if hero else None
    rows = []
    for label, group in by_label.items():
        before = summary_matrix(group, tasks, ["score_before"])
        measures = {key: estimate(summary_matrix(group, tasks, [key])) for key in ("score_before", "score_after")}
        measures |= {key: estimate(summary_matrix(group, tasks, [key])) for key in ("regret", "dip")}
        pretrained = all(any(row["phase"] == "offline" for row in run.rows) for run in group)
        pairs = summary_matrix(group, tasks, ["score_before", "score_after"]) if pretrained else None
        measures["relative_improvement"] = estimate(pairs, _relative)
        own = summary_matrix(group, tasks, ["regret"])
        pair = None if group is hero or hero_regret is None or own is None else (own[..., 0], hero_regret[..., 0])
        measures["hero_better"] = estimate(pair, probability_of_improvement)
        unfinished = sum(not run.done for run in group)
        rows.append(Row(name, label, group[0].method, 0 if before is None else len(before), unfinished, measures))
    return sorted(rows, key=_rank)


def estimate(scores: np.ndarray | tuple | None, statistic: Callable = iqm) -> Estimate | None:
    """Statistic with its interval of [seeds, tasks, values]; None without data or where it is not defined throughout.

    The first of several trailing values is taken.
    """
    if scores is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        point = statistic(*scores) if isinstance(scores, tuple) else statistic(scores)
        interval = stratified_bootstrap_ci(scores, statistic)
    numbers = [float(np.ravel(value)[0]) for value in (point, *interval)]
    return Estimate(*numbers) if np.isfinite(numbers).all() else None


def _relative(pairs: np.ndarray) -> np.ndarray:
    """[seeds, tasks, (before, after), …] → […]: the gain of the aggregate, as in Table 2 of the paper."""
    before, after = iqm(pairs)
    return (after - before) / before


def _rank(row: Row) -> tuple:
    """Lowest regret first, then highest score; what was not measured comes last."""
    regret, after, before = (row.measures[key] for key in ("regret", "score_after", "score_before"))
    return (
        regret.point if regret else math.inf,
        -after.point if after else math.inf,
        -before.point if before else math.inf,
    )


def text(key: str, value: Estimate | None) -> tuple[str, str]:
    """(point, interval) as people read them, e.g. ("0.20", "[0.15, 0.25]"); no interval for a single number."""
    if value is None:
        return "–", ""
    show = (lambda x: f"{100 * x:+.0f}%") if key == "relative_improvement" else (lambda x: f"{round(x, 2) + 0.0:.2f}")
    return show(
        value.point
    ), "" if value.low == value.high == value.point else f"[{show(value.low)}, {show(value.high)}]"


def seed_rows(runs: Sequence[Run]) -> list[dict[str, object]]:
    """One row a run with the columns SEED_COLUMNS."""
    rows = [
        {"task": r.task, "method": r.label, "seed": r.seed, "finished": r.done, "run": r.path} | r.summary for r in runs
    ]
    return [{name: row[name] for name in SEED_COLUMNS} for row in rows]


def to_csv(rows: Sequence[Row]) -> str:
    """Plain numbers, three columns a measure: name, name_low, name_high."""
    flat = []
    for row in rows:
        cells = {"task": row.task, "method": row.label, "seeds": row.seeds, "unfinished": row.unfinished}
        for key, value in row.measures.items():
            names = (key, f"{key}_low", f"{key}_high")
            cells |= dict(zip(names, (f"{x:.6g}" for x in value) if value else ("", "", ""), strict=True))
        cells["published_regret"] = row.published.regret if row.published else None
        flat.append(cells)
    return dicts_to_csv(flat)


def dicts_to_csv(rows: Sequence[dict[str, object]]) -> str:
    """Rows with equal keys as CSV with a header; None is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A pipe table."""
    head, body = _cells(rows, lambda point, interval: f"{point} {interval}".strip())
    body = [[cell.replace("|", "\\|") for cell in line] for line in body]
    return pipe_table(head, body) + "\n"


def pipe_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Cells as Markdown, without a newline at the end."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def to_latex(rows: Sequence[Row]) -> str:
    r"""A `tabular` with booktabs rules."""
    head, body = _cells(rows, lambda point, interval: f"{point} {{\\scriptsize {interval}}}" if interval else point)
    escaped = [[re.sub(r"([%_&#$])", r"\\\1", cell).replace("–", "--") for cell in line] for line in [head, *body]]
    lines = [" & ".join(line) + r" \\" for line in escaped]
    rules = [f"\\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*rules, r"\bottomrule", r"\end{tabular}", ""])


def _cells(rows: Sequence[Row], show: Callable[[str, str], str]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of text, shared by the two markup formats."""
    head = ["task", "method", "seeds", *MEASURES.values()]
    measured = [[show(*text(key, row.measures[key])) for key in MEASURES] for row in rows]
    if any(row.published for row in rows):
        head.append("regret in the paper")
        measured = [
            [*cells, f"{row.published.regret:.2f}" if row.published else "–"]
            for row, cells in zip(rows, measured, strict=True)
        ]
    return head, [[row.task, row.label, _seeds(row), *cells] for row, cells in zip(rows, measured, strict=True)]


def _seeds(row: Row) -> str:
    """Finished seeds, and how many runs are missing from the numbers."""
    return f"{row.seeds} (+{row.unfinished} unfinished)" if row.unfinished else str(row.seeds)
