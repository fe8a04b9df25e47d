"""Output of `calql tune`: tune.html and trials.csv, and the commands that train with the best options."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from calql import files
from calql.machine import program
from calql.reports.figures import COLUMNS, save
from calql.reports.html import document, folding, inline, table_of
from calql.reports.stored import dicts_to_csv
from calql.reports.style import HERO_COLOUR, INK, LOOK
from calql.reports.tables import counted
from calql.sweeps.search import OBJECTIVES, Outcome, Search, best_first
from calql.sweeps.space import Choices, Dimension

SHOWN = 10
"""Best trials in the table that is not folded."""
BEST = "best"
"""Folder of the runs that the commands make, below that of the search."""


def write_search(search: Search, out: Path) -> list[list[str]]:
    """Write the results of an open search so far; returns the arguments of `calql` that train with the best options.

    There is a command per task, with the first seed that the search has not used. Raises RunError if a file cannot be
    written.
    """
    over = search.over()
    best = best_first(over, search.objective)
    fresh = next(seed for seed in range(len(search.plan.seeds) + 1) if seed not in search.plan.seeds)
    jobs = search.jobs(best[0].options, out / BEST / f"{best[0].number:04d}", [fresh]) if best else []
    commands = [job.arguments() for job in jobs]
    files.write(out / "trials.csv", dicts_to_csv([_row(search, one) for one in over]))
    files.write(out / "tune.html", _page(search, over, best, commands, out))
    return commands


def _row(search: Search, one: Outcome) -> dict[str, object]:
    """A line of trials.csv."""
    options = dict(option.split("=", 1) for option in one.options)
    row: dict[str, object] = {"trial": one.number, "state": one.state, search.objective: one.value}
    row |= {dimension.name: options.get(dimension.name) for dimension in search.dimensions}
    row |= {f"{search.objective}_of_runs": " ".join(f"{value:.6g}" for value in one.values), "why": one.why}
    return row


def _page(
    search: Search, over: Sequence[Outcome], best: Sequence[Outcome], commands: list[list[str]], out: Path
) -> str:
    plan, objective = search.plan, search.objective
    title = f"Search of {', '.join(dim.name for dim in search.dimensions)}: {plan.variants[0].method}"
    title += f" on {', '.join(plan.tasks)}"
    counts = [f"{sum(one.state == state for one in over)} {state}" for state in ("complete", "pruned", "failed")]
    runs = counted(len(plan.tasks) * len(plan.seeds), "run")
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{counted(len(over), "trial")} ({", ".join(counts)}) · {runs} each · scale {plan.scale}</p>',
    ]
    if best:
        way = "lowest" if OBJECTIVES[objective] == "minimize" else "highest"
        said = f"Trial {best[0].number} has the {way} {objective}, {best[0].value:.3g}: {', '.join(best[0].options)}."
        warning = "The best of many trials was also lucky: train it with new seeds before you compare it with others."
        lines = "\n".join(_typed(command) for command in commands)
        body += [f'<div class="verdict"><p>{escape(said)}</p><p>{warning}</p></div>', f"<pre>{escape(lines)}</pre>"]
        body += ["<h2>Best trials</h2>", _table(search, best[:SHOWN])]
        svg = save(_figure(search, best), out / "tune")
        caption = f"{objective} of every complete trial against each option; the best trial is filled."
        body += [f"<figure>{inline(svg, 'tune-', caption)}<figcaption>{escape(caption)}</figcaption></figure>"]
    else:
        body.append('<div class="verdict"><p>No trial is complete yet.</p></div>')
    body += ["<h2>Importance</h2>", _importance(search), folding("All trials", _table(search, over))]
    return document(title, "\n".join(body))


def _typed(arguments: Sequence[str]) -> str:
    return shlex.join([*program(), *arguments])


def _table(search: Search, outcomes: Sequence[Outcome]) -> str:
    head = ["trial", "state", search.objective, *(dim.name for dim in search.dimensions), "runs", "why"]
    lines = []
    for one in outcomes:
        options = dict(option.split("=", 1) for option in one.options)
        value = "–" if one.value is None else f"{one.value:.3g}"
        chosen = [_short(options.get(dim.name, "–")) for dim in search.dimensions]
        lines.append([one.number, one.state, value, *chosen, ", ".join(f"{x:.3g}" for x in one.values), one.why])
    if not any(one.why for one in outcomes):
        head, lines = head[:-1], [line[:-1] for line in lines]
    return table_of(head, lines)


def _short(text: str) -> str:
    """A number with four digits, other text as it is."""
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text


def _importance(search: Search) -> str:
    shares = search.importance()
    if not shares:
        return "<p>It takes five complete trials, with different results.</p>"
    note = (
        "Share of the differences between complete trials that an option explains (PED-ANOVA); from few trials, a hint."
    )
    lines = [[name, f"{share:.0%}", "█" * round(20 * share)] for name, share in shares.items()]
    return f'<p class="soft">{note}</p>' + table_of(["option", "share", ""], lines, "left")


@mpl.rc_context(LOOK)
def _figure(search: Search, best: Sequence[Outcome]) -> Figure:
    """The objective of the complete trials against each option."""
    count = len(search.dimensions)
    columns, rows = min(COLUMNS, count), -(-count // COLUMNS)
    figure = Figure(figsize=(8, 2.4 * rows))
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes, dimension in zip(panels, search.dimensions, strict=False):
        places = [_place(dimension, one) for one in best]
        axes.plot(places, [one.value for one in best], "o", color=INK, markersize=4, fillstyle="none", alpha=0.7)
        axes.plot(places[0], best[0].value, "o", color=HERO_COLOUR, markersize=6)
        axes.set_xlabel(dimension.name)
        axes.margins(x=0.08, y=0.08)
        axes.grid(True, axis="y")
        if isinstance(dimension.part, Choices):
            texts = dimension.part.texts()
            axes.set_xticks(range(len(texts)), texts)
            axes.set_xlim(-0.5, len(texts) - 0.5)
        elif dimension.part.log:
            axes.set_xscale("log")
    for axes in panels[count:]:
        axes.set_visible(False)
    for row in range(rows):
        panels[row * columns].set_ylabel(search.objective)
    figure.tight_layout()
    return figure


def _place(dimension: Dimension, one: Outcome) -> float:
    """Where a trial is on the axis of an option."""
    text = dict(option.split("=", 1) for option in one.options)[dimension.name]
    return float(dimension.part.texts().index(text) if isinstance(dimension.part, Choices) else text)
