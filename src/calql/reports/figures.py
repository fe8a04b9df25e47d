"""Figures of one task: an overview, and curves across both phases; and performance profiles over several tasks.

A curve figure has two panels that read as one: gradient steps of pre-training on the left, environment steps of
fine-tuning on the right, one y axis. A line is the IQM over finished seeds, a band their range or, from five seeds on,
the 95 % interval of the IQM; a thin line is one seed (dotted: the run is unfinished).
"""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from calql.evaluation.aggregate import FEWEST_RUNS, bootstrap_interval, iqm, performance_profile
from calql.reports.load import STEP, TRAINING, Run
from calql.reports.style import HERO, INK, LOOK, PAPER, styles
from calql.reports.tables import Estimate, method_rows, spread_text, summary_matrix

PHASES = {
    "offline": ("offline pre-training", "gradient steps"),
    "online": ("online fine-tuning", "environment steps"),
}
NOT_METRICS = {"phase", *STEP.values()}
"""Columns of train.csv that say where a row belongs."""
COLUMNS = 3
"""Panels side by side in a figure of training metrics."""
DOTTED = (0, (1, 1))
DATA = {"color": INK, "linestyle": DOTTED, "linewidth": 1.4}
"""Line of what belongs to the data, not to a method."""


def score_figure(runs: Sequence[Run]) -> Figure | None:
    """Score against step."""
    bounded = all(run.record.bounded for run in runs)
    return _curves(runs, "score_mean", "score", ylim=(-0.02, 1.02) if bounded else None)


def q_figure(runs: Sequence[Run]) -> Figure | None:
    """Mean Q on the data against the Monte-Carlo return of the same pairs (Fig. 3 of the paper)."""
    return _curves(_on_one_scale(runs), "q_data_mean", "mean Q on the data", reference="mc_return_mean")


def bounding_figure(runs: Sequence[Run]) -> Figure | None:
    """Bounding rate against step (Fig. 8 of the paper)."""
    return _curves(runs, "bounding_rate", "bounding rate", ylim=(-0.02, 1.02))


@mpl.rc_context(LOOK)
def training_figure(runs: Sequence[Run]) -> Figure | None:
    """Every training metric of one method against gradient steps, a panel each, losses first; None without a log."""
    names = dict.fromkeys(name for run in runs for row in run.training for name in row if name not in NOT_METRICS)
    names = [name for name in names if any(len(run.curve(TRAINING, name)[0]) for run in runs)]
    names.sort(key=lambda name: not name.endswith("loss"))
    if not names:
        return None
    rows = -(-len(names) // COLUMNS)
    height = 0.35 + 1.5 * rows
    figure = Figure(figsize=(8, height))
    panels = figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).flat
    top, bottom = 1 - 0.25 / height, 0.45 / height
    figure.subplots_adjust(left=0.075, right=0.98, top=top, bottom=bottom, wspace=0.32, hspace=0.32)
    ((_, _, look),) = _methods(runs)
    ends = [row["grad_step"] for run in runs for row in run.training if row["phase"] == "offline"]
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        _draw(axes, runs, TRAINING, name, look)
        axes.set_title(name)
        axes.grid(True, axis="y")
        axes.tick_params(length=3)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(y=0.06)
        if ends and any(row["phase"] == "online" for run in runs for row in run.training):
            axes.axvline(max(ends), color=INK, linewidth=0.8, linestyle=(0, (4, 3)), alpha=0.6)
        if number + COLUMNS >= len(names):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("gradient steps")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    _note(figure, "band", runs, y=0.995, va="top")
    return figure


@mpl.rc_context(LOOK)
def slice_figure(runs: Sequence[Run]) -> Figure | None:
    """Q and returns over one component of the first action, one panel per seed (after Fig. 6 of the paper)."""
    runs = [run for run in _on_one_scale(runs) if run.slice is not None]
    seeds = sorted({run.seed for run in runs})[:3]
    if not seeds:
        return None
    figure = Figure(figsize=(8, 3.2))
    panels = dict(zip(seeds, figure.subplots(1, len(seeds), sharey=True, squeeze=False)[0], strict=True))
    figure.subplots_adjust(left=0.075, right=0.80, top=0.90, bottom=0.14, wspace=0.08)
    ends = {}
    for label, group, look in _methods(runs):
        for run in group:
            if run.seed not in panels or run.slice is None:
                continue
            axes, color = panels[run.seed], look["color"]
            action, q, mean, sem, deterministic = run.slice.T
            axes.fill_between(action, mean - 2 * sem, mean + 2 * sem, color=color, alpha=0.15, lw=0)
            axes.plot(action, mean, color=color, linestyle=DOTTED, linewidth=1.4)
            axes.plot(action, deterministic, ls="", marker="o", ms=2.6, mfc="none", mec=color, mew=0.8)
            axes.plot(action, q, **look)
            ends[label] = (axes, action[-1], q[-1], look)
    for seed, axes in panels.items():
        axes.set_title(f"seed {seed}")
        axes.set(xlabel="component of the first action", xticks=[-1, 0, 1])
        axes.grid(True, axis="y")
        axes.tick_params(length=3)
    panels[seeds[0]].set_ylabel("Q (line), return (dots, rings)")
    panels[seeds[0]].margins(y=0.06)
    _direct_labels(panels[seeds[-1]], ends)
    return figure


@mpl.rc_context(LOOK)
def overview_figure(runs: Sequence[Run]) -> Figure | None:
    """Before → after, regret and dip of every method, lowest regret first, with ranges; None for a single method."""
    rows = method_rows(runs)
    if len(rows) < 2:
        return None
    looks = {label: look for label, _, look in _methods(runs)}
    labels = [_wrapped(row.label) for row in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(8, 0.85 + max(0.26, 0.17 * lines) * len(rows)))
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[3, 3, 1.6])
    top, bottom = 1 - 0.42 / figure.get_figheight(), 0.3 / figure.get_figheight()
    figure.subplots_adjust(left=0.2, right=0.98, top=top, bottom=bottom, wspace=0.1)
    known = [(row.published.regret, y) for y, row in enumerate(rows) if row.published]
    titles = ["score before (hollow) and after", "regret (◇ in the paper)" if known else "regret", "dip"]
    titles[2] += " (| chance)" if any(row.measures["chance_dip"] for row in rows) else ""
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    for y, row in enumerate(rows):
        color = looks[row.label]["color"]
        _dot(panels[0], row.measures["score_before"], y - 0.15, color, face=PAPER)
        _dot(panels[0], row.measures["score_after"], y + 0.15, color, face=color)
        _dot(panels[1], row.measures["regret"], y, color, face=color)
        if chance := row.measures["chance_dip"]:
            panels[2].plot(chance.point, y, "|", color=INK, markersize=9, alpha=0.6)
        _dot(panels[2], row.measures["dip"], y, color, face=color)
    if known:
        panels[1].plot(*zip(*known, strict=True), "D", color=INK, fillstyle="none", markersize=5, alpha=0.6)
    panels[0].set_yticks(range(len(rows)), labels)
    for tick, row in zip(panels[0].get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.method == HERO else "normal")
    figure.canvas.draw()
    widest = max(tick.get_window_extent().width for tick in panels[0].get_yticklabels()) / figure.bbox.width
    figure.subplots_adjust(left=max(0.2, 0.02 + widest))
    _note(figure, "bars", runs, y=0.985, va="top")  # next to the titles, because there are ticks at the bottom
    return figure


def _dot(axes, value: Estimate | None, y: float, color: str, *, face: str) -> None:
    """A point with its range or interval, if it has one."""
    if value is not None:
        axes.plot([value.low, value.high], [y, y], color=color, linewidth=1.2, alpha=0.6, solid_capstyle="butt")
        axes.plot(value.point, y, "o", color=color, markersize=4.5, markerfacecolor=face, clip_on=False)


@mpl.rc_context(LOOK)
def profile_figure(runs: Sequence[Run]) -> Figure | None:
    """Over all tasks: share of runs whose 1 − regret is above a threshold; None if no method has run on all tasks."""
    tasks = sorted({run.task for run in runs})
    taus = np.linspace(0, 1, 101)
    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    lines = {}
    for label, group, look in _methods(runs):
        matrix = summary_matrix(group, tasks, ["regret"])
        if matrix is not None:
            profile = performance_profile(1 - matrix[..., 0], taus)
            (lines[label],) = axes.plot(taus, profile, drawstyle="steps-post", **look)
    if not lines:
        return None
    axes.set(xlabel="threshold τ on 1 − regret", ylabel="share of runs above τ", xlim=(0, 1), ylim=(-0.02, 1.02))
    names = [label for label in dict.fromkeys(run.label for run in runs) if label in lines]
    axes.legend([lines[name] for name in names], names, loc="upper left", bbox_to_anchor=(1, 1))
    figure.subplots_adjust(left=0.075, right=0.80, top=0.95, bottom=0.15)
    return figure


@mpl.rc_context(LOOK)
def save(figure: Figure, stem: Path) -> str:
    """Write `stem`.png and `stem`.svg; returns the SVG text."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{stem}.png", dpi=200)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"]))
    Path(f"{stem}.svg").write_text(out.getvalue(), encoding="utf-8")
    return out.getvalue()


def band(runs: Sequence[Run], phase: str, column: str) -> np.ndarray | None:
    """[4, N]: steps, IQM, and the ends of its 95 % interval (of fewer than FEWEST_RUNS seeds, of their range), over the
    finished runs that measured `column`.

    Seeds that were evaluated at different steps are interpolated onto all steps that every seed reaches.
    """
    curves = [curve for run in runs if run.done and len((curve := run.curve(phase, column))[0])]
    if not curves:
        return None
    grid = np.unique(np.concatenate([steps for steps, _ in curves]))
    grid = grid[(grid >= max(steps[0] for steps, _ in curves)) & (grid <= min(steps[-1] for steps, _ in curves))]
    if not len(grid):
        return None
    values = np.stack([np.interp(grid, *curve) for curve in curves])[:, None]
    few = len(values) < FEWEST_RUNS
    ends = (values.min(axis=(0, 1)), values.max(axis=(0, 1))) if few else bootstrap_interval(values, reps=5000)
    return np.stack([grid, iqm(values), *ends])


def spread_note(runs: Sequence[Run]) -> str:
    """Meaning of the bands and bars in a figure of these runs: "range of 3 seeds", "95 % interval", or both."""
    seeds = Counter((run.label, run.task) for run in runs if run.done)
    return " or ".join(sorted({spread_text(count) for count in seeds.values()} - {""}))


def _note(figure: Figure, name: str, runs: Sequence[Run], y: float = 0.015, va: str = "bottom") -> None:
    """Write the meaning of the bands or bars into a right corner."""
    if note := spread_note(runs):
        figure.text(0.99, y, f"{name}: {note}", ha="right", va=va, fontsize=7, alpha=0.75)


@mpl.rc_context(LOOK)
def _curves(
    runs: Sequence[Run], column: str, ylabel: str, ylim: tuple[float, float] | None = None, reference: str | None = None
) -> Figure | None:
    """One column of eval.csv, and the IQM over all runs of the `reference` column; None if no run measured it."""
    points = {phase: max(len(run.curve(phase, column)[0]) for run in runs) for phase in PHASES}
    # A run without fine-tuning has one online evaluation, that of its policy: no curve.
    phases = [phase for phase in PHASES if points[phase] > 1] or [phase for phase in PHASES if points[phase]]
    if not phases:
        return None
    figure = Figure(figsize=(8, 3.4))
    ratios = [2, 3] if len(phases) > 1 else [1]
    panels = figure.subplots(1, len(phases), sharey=True, squeeze=False, width_ratios=ratios)[0]
    figure.subplots_adjust(left=0.075, right=0.80, top=0.90, bottom=0.14, wspace=0)
    ends = {}
    for axes, phase in zip(panels, phases, strict=True):
        for label, group, look in _methods(runs):
            if end := _draw(axes, group, phase, column, look):
                ends[label] = (axes, *end, look)
        middle = None if reference is None else band(runs, phase, reference)
        if middle is not None:
            axes.plot(middle[0], middle[1], **DATA)
            ends["return of the data"] = (axes, middle[0][-1], middle[1][-1], DATA)
        title, unit = PHASES[phase]
        axes.set_title(title)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper" if phase == "offline" else None))
        axes.grid(True, axis="y")
        axes.tick_params(length=3)
    panels[0].set_ylabel(ylabel)
    panels[0].set(ylim=ylim) if ylim else panels[0].margins(y=0.06)
    if len(phases) > 1:
        panels[1].spines["left"].set(linestyle=(0, (4, 3)))
        panels[1].tick_params(axis="y", length=0)
    _direct_labels(panels[-1], ends)
    _note(figure, "band", runs)
    return figure


def _on_one_scale(runs: Sequence[Run]) -> list[Run]:
    """The runs whose values can share an axis with the first run's: the same reward map and discount."""
    scales = [run.record.scale_of_values() for run in runs]
    return [run for run, scale in zip(runs, scales, strict=True) if scale == scales[0]]


def _methods(runs: Sequence[Run]) -> list[tuple[str, list[Run], dict]]:
    """(label, runs, line style) of every method, the hero last and thus on top."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    found = []
    for label, (color, dashes) in styles({run.label: run.method for run in runs}).items():
        width = 2.6 if groups[label][0].method == HERO else 1.6
        found.append((label, groups[label], {"color": color, "linestyle": dashes, "linewidth": width}))
    return sorted(found, key=lambda method: method[1][0].method == HERO)


def _draw(axes, runs: Sequence[Run], phase: str, column: str, look: dict) -> tuple[float, float] | None:
    """Draw thin lines of the seeds, the band and the aggregate; returns the end of the line."""
    curves = [(run, *run.curve(phase, column)) for run in runs]
    curves = [curve for curve in curves if len(curve[1])]
    for run, steps, values in curves:
        dots = "-" if run.done else ":"
        axes.plot(steps, values, color=look["color"], linewidth=0.6, linestyle=dots, alpha=0.35 if run.done else 0.9)
    middle = band(runs, phase, column)
    if middle is None:
        return (curves[-1][1][-1], curves[-1][2][-1]) if curves else None
    steps, mean, low, high = middle
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(steps, mean, **look)
    return steps[-1], mean[-1]


LABEL_WIDTH = 36
"""Characters per line of the name of a method, which may have many settings."""


def _wrapped(name: str) -> str:
    return textwrap.fill(name, LABEL_WIDTH, break_on_hyphens=False)


def _direct_labels(axes, ends: dict[str, tuple]) -> None:
    """Names at the right edge, next to the ends of their lines and without overlap."""
    axes.figure.canvas.draw()
    texts = []
    to_axes = axes.transAxes.inverted().transform
    heights = {name: to_axes(panel.transData.transform((x, y)))[1] for name, (panel, x, y, _) in ends.items()}
    shown = {name: name + (" (offline)" if panel is not axes else "") for name, (panel, *_) in ends.items()}
    shown = {name: _wrapped(text) for name, text in shown.items()}
    gap = 0.01 + 0.06 * max((text.count("\n") + 1 for text in shown.values()), default=1)
    for (name, wanted), height in zip(heights.items(), moved_apart(list(heights.values()), gap), strict=True):
        panel, *_, look = ends[name]
        axes.plot([1.005, 1.025, 1.055], [wanted if panel is axes else height, height, height],
                  transform=axes.transAxes, clip_on=False, solid_joinstyle="round", **look)  # fmt: skip
        weight = "bold" if look["linewidth"] > 2 else "normal"
        texts.append(axes.text(1.065, height, shown[name], transform=axes.transAxes, va="center", fontweight=weight))
    widest = max((text.get_window_extent().width for text in texts), default=0.0) / axes.figure.bbox.width
    overhang = axes.figure.axes[0].yaxis.get_tightbbox().x0 / axes.figure.bbox.width  # of its label, beyond the edge
    axes.figure.subplots_adjust(right=min(0.80, 0.94 - widest), left=0.075 + max(0.0, 0.005 - overhang))


def moved_apart(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights close to the wanted ones in [0, 1], in the same order and at least `gap` apart."""
    order = np.argsort(wanted, kind="stable")
    heights = np.clip(np.asarray(wanted, float)[order], 0.0, 1.0)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    ceiling = max(1.0, gap * (len(heights) - 1))
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling - gap * (len(heights) - 1 - i))
    return list(heights[np.argsort(order, kind="stable")])
