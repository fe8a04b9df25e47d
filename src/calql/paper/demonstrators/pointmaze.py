"""The narrow data of the default task: one demonstrator, one start, one goal, one path; half of the episodes too slow.

The demonstrator follows the shortest way through the maze's cells with a velocity controller, at a speed that it draws
once per episode, sometimes takes a wrong turn, and adds Gaussian noise to its force. It fails by running out of time,
never by missing the goal, so better behaviour can be composed from the data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from calql.envs.rollout import Step, roll
from calql.paper.demonstrators.run import Progress, collect, make_recipe, store
from calql.paper.envs import pointmaze
from calql.paper.envs.ways import Cell, neighbours, shortest_ways
from calql.tasks import Task
from calql.types import Episode, InputError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the data; everything that is not fixed here is drawn from the seed."""

    transitions: int = 5_000
    """Minimum number of transitions; the last episode is completed."""
    episodes: int | None = None
    """Number of episodes, in place of a number of transitions."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise on each action, which is clipped to [−1, 1] and recorded as executed."""
    speed: tuple[float, float] = (1.0, 2.0)
    """[low, high] cruising speed in m/s, uniform over episodes. Below about 1.7 m/s the horizon is too short."""
    gain: float = 0.3
    """Force (share of the maximum) per m/s of velocity error; 0.42 removes an error in one decision."""
    reach: float = 0.3
    """Distance in metres at which a waypoint (a cell's centre) counts as passed."""
    detour_probability: float = 0.2
    """Probability of a wrong turn at each cell on the way that has a side branch."""
    detour_depth: int = 1
    """Maximum number of cells walked into a side branch before turning back."""
    failure_share: float | None = 0.5
    """Share of failing episodes: surplus episodes of either kind are dropped. None: keep all."""
    horizon: int = 51
    """Steps after which an episode is cut and counts as a failure."""

    def __post_init__(self):
        if not 0 < self.speed[0] <= self.speed[1]:
            raise InputError(f"speed is {self.speed}; give two numbers with 0 < low <= high")
        if self.action_noise < 0 or not 0 <= self.detour_probability <= 1 or not 0 <= (self.failure_share or 0) <= 1:
            raise InputError("action_noise must be >= 0, detour_probability and failure_share within [0, 1]")
        if self.horizon < 1 or self.transitions < 1 or (self.episodes is not None and self.episodes < 1):
            raise InputError("horizon, transitions and episodes must be at least 1")


def build(
    task: Task,
    seed: int = 0,
    transitions: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    **options,
) -> str:
    """Collect and store the data set (replacing an older one); return its Minari id. `options`: see `Recipe`."""
    recipe = make_recipe(Recipe, task, transitions, options)
    episodes = demonstrations(recipe, seed, workers, progress, resume=(task, recipe, seed))
    return store(task, episodes, recipe, seed)


def demonstrations(
    recipe: Recipe,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
    resume: tuple[Task, Recipe, int] | None = None,
) -> list[Episode]:
    """As many episodes as the recipe asks for. Raises InputError if its failure share is out of reach."""
    return collect(
        functools.partial(demonstrate, recipe, seed),
        recipe.episodes or recipe.transitions,
        unit="episodes" if recipe.episodes else "transitions",
        keep=functools.partial(_keeps_the_share, recipe.failure_share),
        workers=workers,
        progress=progress,
        resume=resume,
    )


def _keeps_the_share(share: float | None, episode: Episode, kept: Sequence[Episode]) -> bool:
    """Whether the share of failures among the kept episodes stays right with this episode."""
    failures = sum(e.truncated for e in kept)
    return share is None or episode.truncated == (failures < int(share * (len(kept) + 1)))


@functools.cache
def _env() -> pointmaze.PointMaze:
    return pointmaze.make()


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode:
    """Attempt number `index`, from reset to success or to the horizon; it depends only on its arguments."""
    env, rng = _env(), np.random.default_rng([seed, index])
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    start = pointmaze.cell_of(observation[:2] * pointmaze.OBSERVATION_SCALE[:2])
    waypoints = [pointmaze.cell_center(cell) for cell in _route(recipe, start, rng)]
    speed = rng.uniform(*recipe.speed)
    noise = recipe.action_noise * rng.standard_normal((recipe.horizon, 2))
    shaken = iter(noise)

    def act(observation: np.ndarray, _: Step | None) -> np.ndarray:
        position, velocity = np.split(observation * pointmaze.OBSERVATION_SCALE, 2)
        while len(waypoints) > 1 and np.linalg.norm(waypoints[0] - position) < recipe.reach:
            waypoints.pop(0)
        gap = waypoints[0] - position
        push = recipe.gain * (speed * gap / np.linalg.norm(gap) - velocity)
        return np.clip(push + next(shaken), -1.0, 1.0).astype(np.float32)

    return roll(env, observation, act, recipe.horizon)


def _route(recipe: Recipe, start: Cell, rng: np.random.Generator) -> list[Cell]:
    """Cells from start to goal: the shortest path, with wrong turns walked there and back."""
    way = shortest_ways(_is_free, start)[pointmaze.GOAL_CELL][::-1]
    route: list[Cell] = []
    for cell in way[:-1]:
        route.append(cell)
        if rng.random() < recipe.detour_probability:
            branch = _branch(cell, way, recipe.detour_depth, rng)
            route += branch + [cell, *branch[:-1]][::-1] if branch else []
    return [*route, way[-1]]


def _branch(cell: Cell, way: list[Cell], depth: int, rng: np.random.Generator) -> list[Cell]:
    """Up to `depth` cells of a side branch that begins at a cell of the path (none if there is no branch)."""
    branch: list[Cell] = []
    while len(branch) < depth:
        ahead = [
            near for near in neighbours((branch or [cell])[-1], _is_free) if near not in way and near not in branch
        ]
        if not ahead:
            break
        branch.append(ahead[rng.integers(len(ahead))])
    return branch


def _is_free(cell: Cell) -> bool:
    return pointmaze.MEDIUM_MAZE[cell[0]][cell[1]] != 1
