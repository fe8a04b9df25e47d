"""Rows of numbers with their uncertainty over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from calql.evaluation.aggregate import (
    FEWEST_RUNS,
    bootstrap_interval,
    iqm,
    permutation_p,
    probability_of_improvement,
)
from calql.paper.published import Published, published
from calql.reports.load import Run
from calql.reports.stored import dicts_to_csv
from calql.reports.style import HERO

ALL_TASKS = "all tasks"
MEASURES = {
    "score_before": "score before",
    "score_after": "score after",
    "regret": "regret",
    "dip": "dip",
    "chance_dip": "dip by chance",
    "relative_improvement": "relative improvement",
}
"""Column → heading."""
HERO_BETTER = "Cal-QL's regret lower"
"""Heading of the comparison with Cal-QL."""
LEVEL = 0.05
"""Two-sided p-value below which a difference counts as settled."""


class Estimate(NamedTuple):
    """An aggregate over seeds: for fewer than FEWEST_RUNS, low and high are the range of the seeds, else the ends of
    the 95 % interval."""

    point: float
    low: float
    high: float
    seeds: int = 1


class Versus(NamedTuple):
    """Comparison of Cal-QL's regret with another method's."""

    won: float
    """Pairs of runs in which Cal-QL's is lower, a tie counting one half."""
    pairs: int
    p: float | None
    """Two-sided p-value of the permutation test; None with fewer than FEWEST_RUNS seeds on either side."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one task (or on all)."""

    task: str
    """Task id, or ALL_TASKS."""
    task_title: str
    label: str
    method: str
    seeds: int
    """Finished runs behind the numbers (per task)."""
    unfinished: int
    """Runs that were left out because they did not finish."""
    measures: dict[str, Estimate | None]
    """Every key of MEASURES; None if it was not or could not be measured."""
    samples: dict[str, np.ndarray | None]
    """[seeds, tasks] of the same keys, for the tests of differences."""
    versus: Versus | None
    """Comparison with Cal-QL; None for Cal-QL itself, and without Cal-QL or regret."""
    published: Published | None
    """The paper's numbers; None if it has none, and for variants of a method."""

    @property
    def spread(self) -> str:
        """Meaning of the brackets: "range of 3 seeds", "95 % interval"; "" for a single seed."""
        return spread_text(self.seeds)

    def point(self, key: str) -> float:
        """The aggregate of a key of MEASURES that was measured."""
        measure = self.measures[key]
        assert measure is not None
        return measure.point


def spread_text(seeds: int) -> str:
    """Kind of uncertainty that is shown for an aggregate of that many seeds."""
    return "" if seeds < 2 else f"range of {seeds} seeds" if seeds < FEWEST_RUNS else "95 % interval"


def method_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per task and method, lowest regret first; with several tasks, rows over all of them come first.

    Aggregates are IQMs over the finished seeds. `versus` compares with Cal-QL (its first variant, if there are
    several).
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
    hero_regret = _samples(hero, tasks, "regret") if hero else None
    rows = []
    for label, group in by_label.items():
        record = group[0].record
        samples = {key: _samples(group, tasks, key) for key in MEASURES}
        measures = {key: estimate(values) for key, values in samples.items() if key != "relative_improvement"}
        pretrained = all(any(row["phase"] == "offline" for row in run.rows) for run in group)
        pairs = summary_matrix(group, tasks, ["score_before", "score_after"]) if pretrained else None
        before, regret = samples["score_before"], samples["regret"]
        versus = None if group is hero or hero_regret is None or regret is None else compare(hero_regret, regret)
        row = Row(
            task=name,
            task_title=ALL_TASKS if name == ALL_TASKS else record.task_title,
            label=label,
            method=record.method,
            seeds=0 if before is None else len(before),
            unfinished=sum(not run.done for run in group),
            measures=measures | {"relative_improvement": estimate(pairs, _relative)},
            samples=samples,
            versus=versus,
            published=published().get((name, record.method)) if label == record.title else None,
        )
        rows.append(row)
    return sorted(rows, key=_rank)


def _samples(runs: Sequence[Run], tasks: Sequence[str], key: str) -> np.ndarray | None:
    """[seeds, tasks] of one summary value."""
    matrix = summary_matrix(runs, tasks, [key])
    return None if matrix is None else matrix[..., 0]


def estimate(scores: np.ndarray | None, statistic: Callable = iqm) -> Estimate | None:
    """Statistic of [seeds, tasks, …] with its uncertainty; None without data or if it is undefined
    anywhere. The range is that of the statistic of single seeds; with several tasks, the estimate is their IQM.
    """
    if scores is None:
        return None
    seeds = len(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        point = statistic(scores)
        if seeds < FEWEST_RUNS:
            single = [statistic(scores[i : i + 1]) for i in range(seeds)]
            ends = np.min(single), np.max(single)  # nan if one of them is nan
            if scores.shape[1] > 1:  # an IQM of all values leaves out others, and may lie outside of the range
                point = iqm(np.reshape(single, (seeds, 1)))
        else:
            ends = bootstrap_interval(scores, statistic)
    point, low, high = (float(value) for value in (point, *ends))
    return Estimate(point, low, high, seeds) if np.isfinite([point, low, high]).all() else None


def compare(lower: np.ndarray, higher: np.ndarray) -> Versus:
    """How often a run of the first has a lower value than a run of the second: [seeds, tasks] each."""
    pairs = len(lower) * len(higher) * lower.shape[1]
    enough = min(len(lower), len(higher)) >= FEWEST_RUNS
    won = float(probability_of_improvement(higher, lower)) * pairs
    return Versus(round(2 * won) / 2, pairs, permutation_p(lower, higher) if enough else None)


def settled(a: Row, b: Row, key: str, choices: int = 1) -> float | None:
    """The p-value of the difference between two rows, if it is below LEVEL with at least FEWEST_RUNS seeds each.

    `choices`: number of rows from which one was picked by its value; multiplies the p-value (Bonferroni).
    """
    x, y = a.samples[key], b.samples[key]
    if x is None or y is None or min(len(x), len(y)) < FEWEST_RUNS:
        return None
    p = min(1.0, choices * permutation_p(x, y))
    return p if p < LEVEL else None


def best(rows: Sequence[Row], key: str) -> Row | None:
    """The row that is better than each other row by a settled difference; None if there is none."""
    rows = [row for row in rows if row.measures[key]]
    if len(rows) < 2:
        return None
    first = (min if key in ("regret", "dip") else max)(rows, key=lambda row: row.point(key))
    return first if all(settled(first, row, key) for row in rows if row is not first) else None


def _relative(pairs: np.ndarray) -> np.ndarray:
    """[seeds, tasks, (before, after), …] → […]: the gain of the aggregate, as in Table 2 of the paper."""
    before, after = iqm(pairs)
    return (after - before) / before


def _rank(row: Row) -> tuple:
    """Sort key: lowest regret first, then highest score; rows without them come last."""
    regret, after, before = (row.measures[key] for key in ("regret", "score_after", "score_before"))
    return (
        regret.point if regret else math.inf,
        -after.point if after else math.inf,
        -before.point if before else math.inf,
    )


def text(key: str, value: Estimate | None) -> tuple[str, str]:
    """(point, ends) as text: ("0.20", "[0.15, 0.25]") for an interval, ("0.20", "(0.15 to 0.25)") for the
    range of the seeds; no ends for a single seed, or if they equal the point."""
    if value is None:
        return "–", ""
    show = (lambda x: f"{100 * x:+.0f}%") if key == "relative_improvement" else (lambda x: f"{round(x, 2) + 0.0:.2f}")
    point, low, high = map(show, value[:3])
    if value.low == value.high == value.point:
        return point, ""
    return point, f"[{low}, {high}]" if value.seeds >= FEWEST_RUNS else f"({low} to {high})"


def versus_text(versus: Versus | None) -> str:
    """ "7 of 9 pairs" with few seeds; "0.92, p = 0.02" with enough seeds for the test."""
    if versus is None:
        return "–"
    if versus.p is None:
        return f"{versus.won:g} of {counted(versus.pairs, 'pair')}"
    return f"{versus.won / versus.pairs:.2f}, {p_text(versus.p)}"


def counted(number: int, noun: str) -> str:
    """ "1 seed"; "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def p_text(p: float) -> str:
    """ "p = 0.02"; "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def seed_rows(runs: Sequence[Run]) -> list[dict[str, object]]:
    """One row per run."""
    rows = []
    for run in runs:
        summary = run.summary
        row = {"task": run.task, "method": run.label, "seed": run.seed, "finished": run.done}
        rows.append(row | {key: summary[key] for key in (*MEASURES, "wall_s")} | {"run": run.name})
    return rows


def to_csv(rows: Sequence[Row]) -> str:
    """Plain numbers, three columns per measure: name, name_low, name_high; `spread` tells what low and high are."""
    flat = []
    for row in rows:
        cells = {"task": row.task, "method": row.label, "seeds": row.seeds, "unfinished": row.unfinished}
        cells["spread"] = row.spread
        for key, value in row.measures.items():
            point, low, high = (f"{x:.6g}" for x in value[:3]) if value else ("", "", "")
            cells |= {key: point, f"{key}_low": low, f"{key}_high": high}
        won, pairs, p = row.versus or (None, None, None)
        cells["pairs_hero_better"] = None if won is None else f"{won:g}"
        cells["pairs"] = pairs
        cells["p"] = None if p is None else f"{p:.6g}"
        cells["published_regret"] = row.published.regret if row.published else None
        flat.append(cells)
    return dicts_to_csv(flat)


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
    rules = [f"\\begin{{tabular}}{{llrl{'r' * (len(head) - 4)}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*rules, r"\bottomrule", r"\end{tabular}", ""])


def _cells(rows: Sequence[Row], show: Callable[[str, str], str]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of text, shared by the two markup formats."""
    head = ["task", "method", "seeds", "in brackets", *MEASURES.values()]
    compared, known = any(row.versus for row in rows), any(row.published for row in rows)
    head += [HERO_BETTER] if compared else []
    head += ["regret in the paper"] if known else []
    lines = []
    for row in rows:
        seeds = f"{row.seeds} (+{row.unfinished} unfinished)" if row.unfinished else str(row.seeds)
        line = [row.task_title, row.label, seeds, row.spread or "–"]
        line += [show(*text(key, row.measures[key])) for key in MEASURES]
        line += [versus_text(row.versus)] if compared else []
        line += [f"{row.published.regret:.2f}" if row.published else "–"] if known else []
        lines.append(line)
    return head, lines
