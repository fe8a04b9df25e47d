"""One figure of a data set: returns, lengths of episodes, and coverage."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from calql.data.episodes import Episodes
from calql.data.success import knows_success, success_steps
from calql.data.transitions import returns_of
from calql.reports.coverage import draw_coverage
from calql.reports.figures import save
from calql.reports.html import slug
from calql.reports.style import COLOURS, INK, LOOK
from calql.tasks import Task
from calql.types import InputError

SUCCESS, FAILURE = COLOURS[0], "#b9bfc7"


def draw_data(
    episodes: Episodes, task: Task, folder: Path, discount: float = 0.99, tail_bootstrap: bool = False
) -> Path:
    """Save `data_figure` in the folder, as PNG and SVG, under a name made from the data's URI; returns the PNG's path.

    Raises InputError if the folder cannot be written.
    """
    stem = folder / slug(episodes.uri)
    try:
        save(data_figure(episodes, task, discount, tail_bootstrap), stem)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --figures") from error
    return stem.with_name(f"{stem.name}.png")


@mpl.rc_context(LOOK)
def data_figure(episodes: Episodes, task: Task, discount: float = 0.99, tail_bootstrap: bool = False) -> Figure:
    """Returns (as quantiles), lengths (successes and failures separately) and coverage.

    Episodes of one terminal step are left out, if there are others: they are leftovers of relabelled recordings.

    Args:
        episodes: the data.
        task: gives the reward map, the rule of success and the environment.
        discount: γ of the returns.
        tail_bootstrap: see `calql.rewards.Rewards.returns`.
    """
    longest = max(e.length for e in episodes.episodes)
    counted = [e for e in episodes.episodes if e.length > 1 or longest == 1 or not e.terminations[-1]]
    whole = Episodes(tuple(counted), episodes.uri)
    layout = ConstrainedLayoutEngine(rect=(0.005, 0.01, 0.985, 0.89), wspace=0.06, hspace=0.08)
    figure = Figure(figsize=(8, 4.4), layout=layout)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 1.45])
    returns = returns_of(counted, task.rewards, discount, tail_bootstrap)
    draw_returns(figure.add_subplot(grid[0, 0]), whole, returns, discount)
    draw_lengths(figure.add_subplot(grid[1, 0]), whole, task)
    draw_coverage(figure.add_subplot(grid[:, 1]), whole, task)
    size = f"{whole.num_transitions:,} transitions in {len(counted):,} episode{'s' * (len(counted) != 1)}"
    if (won := _won(whole, task)) is not None:
        size += f", {won.mean():.0%} of them successful"
    name = episodes.uri if len(episodes.uri) < 46 else f"…{episodes.uri[-44:]}"
    figure.text(0.012, 0.965, name, fontweight="bold", fontsize=10, va="top")
    figure.text(0.988, 0.965, size, ha="right", va="top")
    return figure


def _won(episodes: Episodes, task: Task) -> np.ndarray | None:
    """[episodes] bool: which succeed; None where that is unknown."""
    if not knows_success(episodes, task.rewards):
        return None
    return np.array([success_steps(e, task.rewards).any() for e in episodes.episodes])


def draw_returns(axes: Axes, episodes: Episodes, returns: np.ndarray, discount: float) -> None:
    """Quantiles of the Monte-Carlo returns [N], of the episodes' first steps and of all steps."""
    lengths = np.array([e.length for e in episodes.episodes])
    firsts = returns[np.cumsum(lengths) - lengths]
    for values, name, look in (
        (firsts, "first steps", {"color": SUCCESS, "linewidth": 2.0}),
        (returns, "all steps", {"color": INK, "linewidth": 1.2, "linestyle": (0, (3, 1.5))}),
    ):
        # A step curve through at most 1,000 quantiles; equal returns show as a flat segment.
        shares = np.linspace(0.0, 1.0, min(len(values), 1000) + 1)
        axes.plot(shares, np.quantile(values, shares, method="inverted_cdf"), drawstyle="steps-pre", label=name, **look)
    axes.set(xlabel="share of episodes, or of steps", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(y=0.08)
    axes.grid(True, axis="y")
    axes.legend(fontsize=7.5, handlelength=1.6, borderaxespad=0.2)
    axes.set_title(f"Monte-Carlo return (mapped rewards, γ {discount:g})")


def draw_lengths(axes: Axes, episodes: Episodes, task: Task) -> None:
    """Histogram of lengths, successes and failures stacked, and the horizon."""
    lengths = np.array([e.length for e in episodes.episodes])
    top = max(task.horizon, lengths.max())
    width = max(1, -(-int(top) // 40))
    bins = np.arange(0, top + 2 * width, width) - (width == 1) / 2
    parts = [(lengths, FAILURE, "success unknown")]
    if (won := _won(episodes, task)) is not None:
        parts = [(lengths[won], SUCCESS, "success"), (lengths[~won], FAILURE, "failure")]
    parts = [part for part in parts if len(part[0])]
    values, colours, names = zip(*parts, strict=True)
    axes.hist(values, bins.tolist(), stacked=True, color=colours, label=names)
    if lengths.max() > task.horizon:
        axes.axvline(task.horizon, color=INK, linewidth=0.8, linestyle=(0, (1, 1)), label="horizon")
    axes.set(xlabel="steps", xlim=(0, bins[-1]))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.legend(fontsize=7.5, handlelength=1.0, borderaxespad=0.2)
    axes.set_title(f"length of episodes (horizon {task.horizon:,})")
