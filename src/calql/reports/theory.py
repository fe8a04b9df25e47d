"""Output of `calql theory`: figures and tables of regret, of its two terms and of the bound's arms."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calql.machine import provenance
from calql.reports.style import COLOURS, HERO_COLOUR, INK, LOOK
from calql.reports.tables import dicts_to_csv, pipe_table
from calql.theory import LEARNERS, REFERENCES, WIDTHS, WORLDS, Result, Setting, arms
from calql.theory.experiment import DELTA

LOOKS: dict[str, dict[str, Any]] = {
    learner.name: {"color": (HERO_COLOUR, *COLOURS)[i], "linestyle": "--" if "," in learner.name else "-"}
    for i, learner in enumerate(LEARNERS)
}
REGRET = "regret so far (logarithmic), median and 80 % of the runs"
TERMS = "miscalibration Σ V* − max f (solid) and overestimation Σ max f − V$^π$ (dotted)"
NAMES = ("world", "reference", "width", "learner")
Results = Sequence[Result]


def write_theory(results: Results, out: Path) -> list[Path]:
    """table.csv, table.md, regret.csv (round by round), figures, and about.json; returns the figures' paths."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [table_row(result) for result in results]
    curves = [row for result in results for row in curve_rows(result)]
    (out / "table.csv").write_text(dicts_to_csv(rows), encoding="utf-8")
    (out / "regret.csv").write_text(dicts_to_csv(curves), encoding="utf-8")
    (out / "table.md").write_text(markdown(rows), encoding="utf-8")
    (out / "about.json").write_text(json.dumps(provenance(), indent=2) + "\n", encoding="utf-8")
    worlds = dict.fromkeys(result.setting.world for result in results)
    drawn = {f"regret-{world}": world_figure(results, world, REGRET, draw_regret) for world in worlds}
    drawn |= {f"terms-{world}": world_figure(results, world, TERMS, draw_terms) for world in worlds}
    drawn["arms"] = arms_figure(results)
    paths = []
    for name, figure in drawn.items():
        paths.append(out / f"{name}.png")
        with mpl.rc_context(LOOK):
            figure.savefig(paths[-1], dpi=160)
    return paths


# -- tables ------------------------------------------------------------------------------------------------------------


def _names(result: Result) -> dict[str, str]:
    s = result.setting
    return dict(zip(NAMES, (s.world, s.reference, s.width, result.learner.name), strict=True))


def table_row(result: Result) -> dict[str, str]:
    """Medians over runs after the last round; `regret_low` and `regret_high` are the 10 % and 90 % quantiles."""
    trace, rounds = result.trace, result.trace.values.shape[1]
    above = trace.above.sum(axis=1)
    low, high = np.quantile(result.regret, (0.1, 0.9))
    medians = {
        "regret": result.regret,
        "miscalibration": result.terms.miscalibration[:, -1],
        "overestimation": result.terms.overestimation[:, -1],
        "rounds_above": above,
        "rounds_below": rounds - above,
        "rank_above": trace.ranks[0],
        "rank_below": trace.ranks[1],
        "bound": result.bounds,
    }
    numbers = {name: np.median(values) for name, values in medians.items()}
    numbers |= {"regret_low": low, "regret_high": high, "within_bound": np.mean(result.regret <= result.bounds)}
    numbers |= {"gap": result.gap, "transfer": result.transfer, "transfer_ref": result.transfer_ref}
    return _names(result) | {name: f"{number:.6g}" for name, number in numbers.items()}


def curve_rows(result: Result) -> Iterator[dict[str, str]]:
    """One row per round: medians over runs of the sums so far, and the 10 % and 90 % quantiles of the regret."""
    curves = {name: np.median(values, axis=0) for name, values in result.terms._asdict().items()}
    curves["regret_low"], curves["regret_high"] = np.quantile(result.terms.regret, (0.1, 0.9), axis=0)
    for k, numbers in enumerate(zip(*curves.values(), strict=True), 1):
        row = zip(curves, (f"{number:.6g}" for number in numbers), strict=True)
        yield _names(result) | {"round": str(k)} | dict(row)


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """Regret of every learner, one line per setting."""
    head = ["world", "reference", "data", "V* − V^ref", "C", "C^ref", *(learner.name for learner in LEARNERS)]
    lines = []
    for names, group in itertools.groupby(rows, lambda row: [row[name] for name in NAMES[:3]]):
        group = list(group)
        regrets = [[f"{float(row[f'regret{end}']):.3g}" for end in ("", "_low", "_high")] for row in group]
        about = [f"{float(group[0][name]):.3g}" for name in ("gap", "transfer", "transfer_ref")]
        lines.append([*names, *about, *(f"{middle} [{low}, {high}]" for middle, low, high in regrets)])
    return pipe_table(head, lines) + "\n"


# -- figures -----------------------------------------------------------------------------------------------------------


@mpl.rc_context(LOOK)
def world_figure(results: Results, world: str, title: str, draw: Callable[[Axes, Result], None]) -> Figure:
    """One panel per width and reference, with what `draw` makes of its results."""
    figure = Figure(figsize=(8, 4.6))
    panels = figure.subplots(len(WIDTHS), len(REFERENCES), sharex=True, sharey="row", squeeze=False)
    figure.subplots_adjust(left=0.075, right=0.79, top=0.86, bottom=0.1, hspace=0.3, wspace=0.12)
    for axes, (width, reference) in zip(panels.flat, itertools.product(WIDTHS, REFERENCES), strict=True):
        shown = [r for r in results if r.setting == Setting(world, reference, width)]
        gap = f", V* − V$^{{ref}}$ = {shown[0].gap:.2g}"
        axes.set_title(f"{reference} reference{gap}\n{width} data", fontsize=7.5, pad=3)
        axes.grid(True, axis="y")
        for result in shown:
            draw(axes, result)
    for axes in panels[-1]:
        axes.set_xlabel("round k")
    figure.text(0.012, 0.985, f"{world}: {title}", fontweight="bold", va="top")
    _name_lines(panels[0, -1])
    return figure


def draw_regret(axes: Axes, result: Result) -> None:
    """Regret so far against the round; a line is the median over runs, a band 80 % of them."""
    look = LOOKS[result.learner.name]
    low, middle, high = np.quantile(result.terms.regret, (0.1, 0.5, 0.9), axis=0)
    rounds = np.arange(1, len(middle) + 1)
    axes.fill_between(rounds, low, high, color=look["color"], alpha=0.12, linewidth=0)
    axes.plot(rounds, middle, linewidth=1.4, **look, label=result.learner.name)
    axes.set_yscale("log")


def draw_terms(axes: Axes, result: Result) -> None:
    """The two terms of Eq. C.1 so far, of Cal-QL and of Hy-Q."""
    if result.learner not in LEARNERS[:2]:
        return
    color = LOOKS[result.learner.name]["color"]
    for term, style in ((result.terms.miscalibration, "-"), (result.terms.overestimation, ":")):
        middle = np.median(term, axis=0)
        label = result.learner.name if style == "-" else None
        axes.plot(np.arange(1, len(middle) + 1), middle, style, color=color, linewidth=1.4, label=label)
    axes.axhline(0, color=INK, linewidth=0.6, alpha=0.5)


def _name_lines(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=7.5, borderaxespad=0)


@mpl.rc_context(LOOK)
def arms_figure(results: Results) -> Figure:
    """Both arms of Theorem E.5 against K, with wide data; the smaller one is the bound. A dot marks the crossing."""
    chosen = [r for r in results if r.setting.width == "wide" and r.learner == LEARNERS[0]]
    worlds = list(dict.fromkeys(result.setting.world for result in chosen))
    rounds = np.geomspace(10, 1e12, 200)
    figure = Figure(figsize=(8, 3.2))
    panels = dict(zip(worlds, figure.subplots(1, len(worlds), sharey=True, squeeze=False)[0], strict=True))
    figure.subplots_adjust(left=0.075, right=0.79, top=0.84, bottom=0.14, wspace=0.12)
    for result in chosen:
        axes, reference = panels[result.setting.world], result.setting.reference
        color = COLOURS[list(REFERENCES).index(reference)]
        mdp = WORLDS[result.setting.world]()
        said: dict[str, Any] = dict(transfer=result.transfer_ref, gap=result.gap, ranks=(mdp.rank, mdp.rank))
        covered, worth = np.transpose([arms(mdp, rounds=int(k), delta=DELTA, **said) for k in rounds])
        axes.loglog(rounds, covered, "--", color=color, linewidth=1.2)
        axes.loglog(rounds, worth, "-", color=color, linewidth=1.2, label=f"{reference} reference")
        if (worth > covered).any():
            crossing = (worth > covered).argmax()
            axes.plot(rounds[crossing], covered[crossing], "o", color=color, markersize=4.5)
    for world, axes in panels.items():
        axes.set_title(world)
        axes.set_xlabel("rounds K")
    _name_lines(panels[worlds[-1]])
    title = "arms of the bound: what the data cover (dashed), what the reference is worth (solid)"
    figure.text(0.012, 0.965, title, fontweight="bold", va="top")
    return figure
