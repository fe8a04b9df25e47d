"""Coverage of data: a maze's floor, the order of a kitchen's subtasks, images of episodes, or two components.

An environment may know more than its observations show: one with `floor_plan()` (`calql.paper.envs.floor.Floor`) is
drawn as a floor, one with `solution_ranks(observations)` as an order of subtasks. Images are recognised by their type;
every other task is shown by the first two principal components of its standardised states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke

from calql.data.arrays import named_leaves
from calql.data.check.narrowness import features
from calql.data.episodes import Episodes
from calql.data.success import knows_success, success_steps
from calql.envs.make import make_env
from calql.evaluation.endings import SUCCESS, Ending
from calql.paper.envs.floor import Floor
from calql.reports.style import COLOURS, INK, LOOK
from calql.tasks import Task
from calql.types import Episode, is_image

MAP = "Blues"
HALO = withStroke(linewidth=2.5, foreground="white")
BINS = 120
"""Bins of a density along its longer side."""
SAMPLES = 50_000
"""Number of states that are projected."""
MARKS = 500
"""Maximum number of starts and successes that are marked."""
STRIPS = 5, 6
"""Number of episodes that are shown, and of images per episode."""


def draw_coverage(axes: Axes, episodes: Episodes, task: Task) -> None:
    """Draw the coverage of the data in the way that suits the task, with a title."""
    with make_env(task) as env:
        world: Any = env.unwrapped
        if hasattr(world, "floor_plan"):
            _floor(axes, episodes, world.floor_plan())
        elif hasattr(world, "solution_ranks"):
            _orders(axes, world.tasks, [world.solution_ranks(e.observations) for e in episodes.episodes])
        elif images := [name for name, leaf in named_leaves("", episodes.spec().observation) if is_image(leaf)]:
            _strips(axes, episodes, task, images[0])
        else:
            _components(axes, episodes, task)


@mpl.rc_context(LOOK)
def paths_figure(methods: Mapping[str, Sequence[tuple[Episode, Ending]]], floor: Floor) -> Figure:
    """The paths of each method's episodes: a dot where one ended without success."""
    size = np.ptp(floor.walls, axis=0) + floor.cell
    width = 3.2
    layout = ConstrainedLayoutEngine(wspace=0.04)
    figure = Figure(figsize=(width * len(methods), width * size[1] / size[0] + 0.4), layout=layout)
    panels = figure.subplots(1, len(methods), squeeze=False)[0]
    for axes, (method, watched) in zip(panels, methods.items(), strict=True):
        _walls(axes, floor)
        for episode, ended in watched:
            places = np.asarray(episode.observations)[:, :2] * floor.unit
            colour = COLOURS[0] if ended is SUCCESS else COLOURS[3]
            axes.plot(*places.T, color=colour, linewidth=0.7, alpha=0.5)
            if ended is not SUCCESS:
                axes.plot(*places[-1], "o", color=colour, markersize=3.5)
        reached = sum(ended is SUCCESS for _, ended in watched)
        axes.set_title(f"{method}: {reached} of {len(watched)} episodes reach the goal")
    return figure


def _walls(axes: Axes, floor: Floor) -> tuple[np.ndarray, np.ndarray]:
    """Draw walls, start and goal; returns the lowest and the highest corner [2] of the maze."""
    half = floor.cell / 2
    low, high = floor.walls.min(axis=0) - half, floor.walls.max(axis=0) + half
    for corner in floor.walls - half:
        axes.add_patch(Rectangle(corner, floor.cell, floor.cell, facecolor="#d5d8dc", edgecolor="none"))
    axes.add_patch(
        Circle((floor.goal[0], floor.goal[1]), floor.radius, fill=False, edgecolor=COLOURS[3], linewidth=1.4)
    )
    above = floor.goal + np.array([0.0, floor.radius])
    for name, point, side in (("start", floor.start, "center"), ("goal", above, "bottom")):
        axes.text(point[0], point[1], name, ha="center", va=side, fontweight="bold", path_effects=[HALO])
    rim = 0.75 * floor.cell  # show only a quarter of the outer walls
    axes.set(xlim=(low[0] + rim, high[0] - rim), ylim=(low[1] + rim, high[1] - rim), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return low, high


def _floor(axes: Axes, episodes: Episodes, floor: Floor) -> None:
    """Density of positions, walls, start and goal."""
    low, high = _walls(axes, floor)
    _density(axes, np.concatenate([e.observations[:, :2] for e in episodes.episodes]) * floor.unit, low, high)
    axes.set_title("where the steps are (darker: more, log scale)")


def _density(axes: Axes, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """A two-dimensional histogram of points [N, 2] on a logarithmic colour scale; empty bins stay transparent."""
    sides = np.maximum(high - low, 1e-9)
    bins = np.maximum(1, np.ceil(BINS * sides / sides.max())).astype(int)
    counts, *_ = np.histogram2d(*points.T, bins=bins, range=np.stack([low, low + sides], axis=1))
    top = max(counts.max(), 2.0)
    image = np.ma.masked_equal(counts.T, 0)
    extent = (low[0], low[0] + sides[0], low[1], low[1] + sides[1])
    # From below 1, so that a bin with one step is visible.
    axes.imshow(image, origin="lower", extent=extent, cmap=MAP, norm=LogNorm(0.3, top), interpolation="none")


def _orders(axes: Axes, paid: tuple[str, ...], orders: list[dict[str, int]]) -> None:
    """For every subtask, the share of episodes that solve it first, second, …, or never."""
    names, ranks = list(orders[0]), np.array([list(order.values()) for order in orders])
    last = max(4, ranks.max())
    shares = np.stack([(ranks == rank).mean(axis=0) for rank in [*range(1, last + 1), 0]], axis=1)
    axes.imshow(shares * ([1.0] * last + [0.0]), cmap=MAP, vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 0.55 and column < last else INK
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(last + 1), [*(f"{rank}." for rank in range(1, last + 1)), "never"])
    axes.set_yticks(range(len(names)), [f"{name} *" if name in paid else name for name in names])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("share of episodes that solve it first, second, … (*: pays)")


def _strips(axes: Axes, episodes: Episodes, task: Task, name: str) -> None:
    """Some episodes, one row per episode, from the first image to the last."""
    chosen = [episodes.episodes[i] for i in np.linspace(0, episodes.num_episodes - 1, STRIPS[0]).astype(int)]
    rows = []
    for episode in chosen:
        images = dict(named_leaves("", episode.observations))[name]
        moments = np.linspace(0, episode.length, STRIPS[1]).round().astype(int)
        framed = np.pad(images[moments], ((0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
        rows.append(np.concatenate(framed, axis=1))
    height = len(rows[0])
    axes.imshow(np.concatenate(rows), interpolation="nearest")
    ends = ["" for _ in chosen]
    if knows_success(episodes, task.rewards):
        ends = ["success" if success_steps(episode, task.rewards).any() else "failure" for episode in chosen]
    axes.set_yticks([(i + 0.5) * height for i in range(len(rows))], ends, rotation=90, va="center")
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("some episodes, first to last image")


def _components(axes: Axes, episodes: Episodes, task: Task) -> None:
    """Density of the states' first two principal components, with starts and first successes of episodes."""
    states = np.concatenate([features(e.observations) for e in episodes.episodes])
    center, scale = states.mean(axis=0), states.std(axis=0)
    used = scale > 1e-6 * np.maximum(1.0, np.abs(center))
    used[:2] |= not used.any()  # if all states are equal, they are one point
    states = (states[:, used] - center[used]) / np.maximum(scale[used], 1e-12)
    every = max(1, len(states) // SAMPLES)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(states[::every].T)))
    points = states @ vectors[:, ::-1][:, :2]
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    explained = values[::-1][:2].sum() / max(values.sum(), 1e-12)

    low, high = np.quantile(points, [0.0005, 0.9995], axis=0)
    margin = 0.05 * (high - low) + 1e-3
    _density(axes, points[::every], low - margin, high + margin)
    sizes = np.array([e.length + 1 for e in episodes.episodes])
    starts = np.cumsum(sizes) - sizes
    known = knows_success(episodes, task.rewards)
    wins = [success_steps(e, task.rewards) for e in episodes.episodes] if known else []
    solved = [start + 1 + int(np.argmax(win)) for start, win in zip(starts, wins, strict=known) if win.any()]
    for rows, colour, name in ((starts, INK, "start"), (solved, COLOURS[3], "success"))[: 1 + known]:
        some = np.asarray(rows, int)[:: max(1, len(rows) // MARKS)]
        axes.scatter(*points[some].T, s=5, color=colour, linewidths=0, label=name, zorder=3)
    axes.set(aspect="auto", xlabel="first principal component", ylabel="second")
    axes.legend(markerscale=2, handletextpad=0.2)
    axes.set_title(f"where the steps are ({explained:.0%} of the states' variance)")
