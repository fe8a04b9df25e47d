"""AntMaze data: an ant is sent from cell to cell of a maze, with noise on its actions; its steps are then labelled.

This is the procedure of D4RL (`Farama-Foundation/D4RL`, `scripts/generation/generate_ant_maze_datasets.py`, then
`relabel_antmaze_rewards.py`) with another ant: one that walks by `ant_clone`, and frees itself if it is stuck. An
episode has a *command*, the point that the ant is sent to, and a *goal*, for which it is rewarded; the two usually
differ. The narrow set of the paper's Fig. 8 (`Asap7772/antmaze_gen`) has one
start and one command, the goal.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache, partial

import numpy as np

from calql.envs.rollout import Step, roll
from calql.paper.demonstrators import ant_clone, run
from calql.paper.envs import antmaze
from calql.paper.envs.antmaze import CELL, LAYOUTS, AntMaze, Cell, Maze
from calql.paper.envs.ways import shortest_ways
from calql.types import Episode, InputError

COMMANDS = ("play", "diverse", "narrow")
ARRIVALS = ("stay", "continue", "end")
HAND_PICKED: dict[str, tuple[Cell, ...]] = {
    "medium": ((2, 6), (5, 1), (6, 5)),
    "large": ((1, 6), (3, 5), (3, 10), (5, 2), (7, 4), (7, 6), (7, 9)),
}
"""Cells that D4RL sends the ant of its "play" sets to (`maze_env.py`, the goals of BIG_MAZE and HARDEST_MAZE)."""
NEAR = 0.5
"""Distance to the command, in metres, that counts as arrival."""
OFF_AXIS, LOOK_AHEAD = 0.9, 0.7
"""If farther than this (metres) from the line between two cells' centres, the ant heads for it, this far ahead."""
STUCK_STEPS, STUCK_DISTANCE, FREEING_STEPS = 20, 0.25, 8
"""The ant is stuck if it has moved less than this (metres) in this many steps; it then goes elsewhere for a while."""
WANDER_MEMORY = 0.95
"""Correlation between neighbouring steps of how far the ant wanders from its heading: 20 steps, 2 s of D4RL's ant."""
STUMBLE_STEPS = 8
"""Length of a stumble in steps."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the data; everything that is not fixed here is drawn from the seed.

    D4RL's sets were relabelled after they had been recorded: one goal point for all episodes, and every step that ends
    within 0.5 m of it pays 1 and is terminal although the ant walks on, so that a reader that cuts at terminals finds
    many episodes of one step. `d4rl_labels` makes this artefact. Without it, an episode is what the environment would
    have recorded: its goal is drawn as in every evaluation, and it ends there.
    """

    maze: str = "medium"
    """medium or large."""
    commands: str = "diverse"
    """Starts and commands. `diverse`: from any free cell to any other. `play`: from any free cell to one that D4RL's
    authors picked by hand. `narrow`: the environment's start to its goal."""
    transitions: int = 1_000_000
    """Minimum number of transitions; the last episode is completed."""
    horizon: int = 1000
    """Steps after which an episode is cut."""
    action_noise: float = 0.2
    """Standard deviation of the Gaussian noise on actions, which are clipped to [−1, 1] and recorded as executed."""
    spread: float = 1.3
    """The ant heads for random points of the cells on its way, up to this far (metres) from their centres in x and in
    y, so that it comes closer to corners and walls. D4RL's points are up to 1 m away. 0: it walks along the middle of
    the corridors."""
    wander: float = 0.0
    """Standard deviation, in rad, of slow noise on the heading."""
    stumbling: float = 0.0
    """Share of steps at which the ant does not walk but moves its legs at random, for 8 steps at a time: otherwise the
    data do not show how to walk on from a wrong posture, and a learned policy stands still after the first one."""
    to_goal: float = 0.1
    """Share of commands that are the goal itself, in addition to chance. D4RL has no such share."""
    on_arrival: str = "stay"
    """What the ant does when it has reached its command: `stay` there until the horizon, as in D4RL, `continue`
    with a new command, or `end` the episode (as truncated)."""
    farthest: int | None = None
    """Maximum distance from the start to the first command in cells; if small, learners must stitch. None: no limit."""
    stranded: float = 0.0
    """Share of commands for which the ant only goes part of the way: failures without new places. There it stays, if it
    stays on arrival, and otherwise the episode ends."""
    d4rl_labels: bool = False
    """Whether to label as in D4RL's released sets (see above)."""

    def __post_init__(self):
        for name, value, known in (
            ("maze", self.maze, tuple(LAYOUTS)),
            ("commands", self.commands, COMMANDS),
            ("on_arrival", self.on_arrival, ARRIVALS),
        ):
            if value not in known:
                raise InputError(f"{name} is '{value}'; it must be one of {', '.join(known)}")
        if min(self.action_noise, self.wander) < 0 or not 0 <= self.stumbling < 1 or not 0 <= self.spread < CELL / 2:
            raise InputError(f"action_noise and wander must be >= 0, stumbling in [0, 1), spread in [0, {CELL / 2})")
        if not 0 <= self.to_goal <= 1 or not 0 <= self.stranded <= 1:
            raise InputError("to_goal and stranded must be within [0, 1]")
        if self.horizon < 1 or self.transitions < 1 or (self.farthest is not None and self.farthest < 1):
            raise InputError("horizon, transitions and farthest must be at least 1")


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode | None:
    """Attempt number `index`, which depends only on its arguments; None if the ant would start at its goal."""
    rng, env = np.random.default_rng([seed, index]), _environment(recipe.maze)
    aim = _aim(recipe, env.maze, rng)
    options = {}
    if recipe.commands != "narrow":
        options["start"] = _inside(env.maze, _start(recipe, env.maze, aim, rng), rng)
    if recipe.d4rl_labels:
        env.reset(seed=seed)
        options["goal"] = env.goal
    observation, info = env.reset(seed=int(rng.integers(2**31)), options=options)
    if info["success"] and not recipe.d4rl_labels:
        return None
    walk, guide = _walker(), Guide(env.maze, rng, recipe.spread)
    command, then = _command(recipe, env, aim, observation[:2], rng)
    mishaps = _mishaps(recipe, rng)

    def act(observation: np.ndarray, _: Step | None) -> np.ndarray:
        astray, stumbles = next(mishaps)
        action = walk(observation, guide.heading(observation[:2], command) + astray)
        action += recipe.action_noise * rng.standard_normal(8)
        if stumbles:
            action = rng.uniform(-1.0, 1.0, 8)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def over(step: Step) -> bool:
        """Whether the episode ends; if the ant has arrived and continues, it gets a new command."""
        nonlocal command, then
        if step.terminated and not recipe.d4rl_labels:
            return True
        place = step.observation[:2]
        if then != "stay" and np.linalg.norm(place - command) <= NEAR:
            if then == "end":
                return True
            command, then = _command(recipe, env, _aim(recipe, env.maze, rng), place, rng)
        return False

    return roll(env, observation, act, recipe.horizon, over)


build = partial(run.build, Recipe, demonstrate)
"""`build(task, seed, transitions, workers, progress, **options)`: see `run.build`."""


def _mishaps(recipe: Recipe, rng: np.random.Generator) -> Iterator[tuple[float, bool]]:
    """At every step: how far the ant wanders from its heading, in rad, and whether it stumbles."""
    stumble = recipe.stumbling / (1 - recipe.stumbling) / STUMBLE_STEPS  # probability that a stumble begins
    astray, left = recipe.wander * rng.standard_normal(), 0
    while True:
        yield astray, left > 0
        fresh = recipe.wander * rng.standard_normal()
        astray = WANDER_MEMORY * astray + np.sqrt(1 - WANDER_MEMORY**2) * fresh
        left = left - 1 if left > 1 else STUMBLE_STEPS * (rng.random() < stumble)


# -- where from and where to -------------------------------------------------------------------------------------------


def _aim(recipe: Recipe, maze: Maze, rng: np.random.Generator) -> Cell | None:
    """The cell of the next command; None stands for the goal itself."""
    if recipe.commands == "narrow" or rng.random() < recipe.to_goal:
        return None
    return _any(HAND_PICKED[recipe.maze] if recipe.commands == "play" else maze.free_cells, rng)


def _start(recipe: Recipe, maze: Maze, aim: Cell | None, rng: np.random.Generator) -> Cell:
    """A free cell that is not the command's (in D4RL's "play" sets, not one of any command) and not too far from it."""
    aim = aim or maze.goal
    others = {aim, *HAND_PICKED[recipe.maze]} if recipe.commands == "play" else {aim}
    ways = _ways(maze, aim)
    reach = recipe.farthest or len(ways)
    return _any([cell for cell in maze.free_cells if cell not in others and len(ways[cell]) - 1 <= reach], rng)


def _command(
    recipe: Recipe, env: AntMaze, aim: Cell | None, position: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """The point [2] that the ant is sent to, and what it does there (one of `ARRIVALS`)."""
    way = _ways(env.maze, aim or env.maze.goal)[env.maze.cell_of(position)]
    if rng.random() < recipe.stranded and len(way) > 2:
        return _inside(env.maze, _any(way[1:-1], rng), rng), "stay" if recipe.on_arrival == "stay" else "end"
    return env.goal if aim is None else _inside(env.maze, aim, rng), recipe.on_arrival


def _any(cells: Sequence[Cell], rng: np.random.Generator) -> Cell:
    return cells[int(rng.integers(len(cells)))]


def _inside(maze: Maze, cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """A point [2] up to 1 m from a cell's centre in x and in y, on the side away from the origin, as in D4RL."""
    return maze.cell_center(cell) + rng.uniform(0.0, 1.0, 2)


# -- the way there -----------------------------------------------------------------------------------------------------


class Guide:
    """Headings that lead to a command from cell to cell, and away from where the ant is stuck."""

    def __init__(self, maze: Maze, rng: np.random.Generator, spread: float = 0.0):
        self._maze, self._rng, self._spread = maze, rng, spread
        self._next: tuple[Cell, np.ndarray] | None = None  # the next cell and the point in it to head for
        self._track: deque[np.ndarray] = deque(maxlen=STUCK_STEPS)
        self._freeing, self._elsewhere = 0, 0.0

    def heading(self, position: np.ndarray, command: np.ndarray) -> float:
        """In rad, for an ant at `position` [2] that is sent to `command` [2]."""
        if self._freeing:
            self._freeing -= 1
            return self._elsewhere
        x, y = self._waypoint(position, command) - position
        heading = float(np.arctan2(y, x))
        self._track.append(position)
        stuck = len(self._track) == STUCK_STEPS and np.linalg.norm(position - self._track[0]) < STUCK_DISTANCE
        if stuck and np.linalg.norm(command - position) > 2 * NEAR:  # closer, it may stand still
            self._track.clear()
            self._freeing = FREEING_STEPS
            self._elsewhere = heading + self._rng.choice([-1, 1]) * self._rng.uniform(1.2, 2.6)
            self._next = None
        return heading

    def _waypoint(self, position: np.ndarray, command: np.ndarray) -> np.ndarray:
        """The point [2] to head for: along the middle of the corridors, or a random one of the next cell."""
        if not self._spread:
            return waypoint(self._maze, position, command)
        way = _ways(self._maze, self._maze.cell_of(command)).get(self._maze.cell_of(position), [])
        if len(way) <= 2:
            return command
        if self._next is None or self._next[0] != way[1]:
            offset = self._rng.uniform(-self._spread, self._spread, 2)
            self._next = way[1], self._maze.cell_center(way[1]) + offset
        return self._next[1]


def waypoint(maze: Maze, position: np.ndarray, command: np.ndarray) -> np.ndarray:
    """The point [2] to head for: the command if it is at most one cell away, else the next cell's centre."""
    way = _ways(maze, maze.cell_of(command)).get(maze.cell_of(position), [])
    if len(way) <= 2:
        return command
    middle, ahead = maze.cell_center(way[0]), maze.cell_center(way[1])
    axis = (ahead - middle) / CELL
    along = (position - middle) @ axis * axis
    if np.linalg.norm(position - middle - along) > OFF_AXIS:
        return middle + along + LOOK_AHEAD * axis
    return ahead


@cache
def _ways(maze: Maze, goal: Cell) -> dict[Cell, list[Cell]]:
    return shortest_ways(maze.is_free, goal)


@cache
def _environment(maze: str) -> AntMaze:
    """One per process."""
    return antmaze.make(maze)


@cache
def _walker() -> ant_clone.Walker:
    """One per process."""
    return ant_clone.load()
