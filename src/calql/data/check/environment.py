"""Compares data with an environment: its spaces and its physics.

Spaces are compared by shape. Physics are compared by repeating recorded steps: an environment whose observation is
its complete state has a method `set_state(observation)`; others are not compared. A maze (an attribute `maze`
with `cell_of(position)` and `is_free(cell)`, an observation beginning with its position) is compared by its walls.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from calql.data.arrays import located, named_leaves, state_at
from calql.data.episodes import Episodes
from calql.envs.wrappers import control_rate
from calql.tasks import PUBLISHED, Task
from calql.types import PyTree, is_image
from calql.units import ActionBounds

REPLAYS = 64
"""Number of recorded steps that are repeated."""
ODD_PHYSICS, OTHER_PHYSICS = 0.05, 0.4
"""Physics errors worth a warning, and an error. Measured in the AntMaze tasks, walking and with random torques:
below 1e-4 in the same physics; 0.06–0.14 for recordings of MuJoCo before 3.5 (which treated contact margins otherwise);
0.05–0.12 with a tenth more gear or time step; 0.5 with half the time step; 0.6–2.2 in the other of its two physics."""
POSITIONS = 5_000
"""Maximum number of positions that are looked up in a maze."""
CHANNELS = (1, 3, 4)
"""Usual numbers of channels of an image."""
IN_WALLS = 0.01
"""From this share of positions in walls on, the data are of another maze."""


class Comparison(NamedTuple):
    """Result of `compare`; see `Report` and `physics_error`."""

    errors: list[str]
    warnings: list[str]
    physics_error: float | None


def compare(episodes: Episodes, task: Task, env: Any) -> Comparison:
    """Compare the task's data with a Gymnasium environment; if the spaces differ, nothing else is compared."""
    errors = _other_spaces(episodes, task, env)
    if errors:
        return Comparison(errors, [], None)
    error, walls = physics_error(episodes, env), share_in_walls(episodes, env)
    warnings = _other_rate(episodes, env) + _channels_first(env) + _outside_bounds(episodes, env)
    if error is not None and error > OTHER_PHYSICS:  # positions then mean something else, too
        errors.append(
            f"the data were recorded in other physics than this environment's: repeated, {REPLAYS} steps deviate by "
            f"{error:.0%} of the change; pair the data with the physics they were recorded in{_known_physics(task)}"
        )
    elif walls is not None and walls > IN_WALLS:
        errors.append(f"{walls:.0%} of the recorded positions lie in walls of this maze; use the task of their maze")
    elif error is not None and error > ODD_PHYSICS:
        warnings.append(
            f"recorded steps, repeated, deviate by {error:.0%} of the change: nearly this environment's physics, as "
            "with another version of its simulator"
        )
    return Comparison(errors, warnings, error)


def _other_rate(episodes: Episodes, env: Any) -> list[str]:
    """A warning if the environment makes another number of steps per second than the recording."""
    rate = control_rate(env)
    if rate is None or episodes.rate is None or np.isclose(rate, episodes.rate, rtol=0.01):
        return []
    return [
        f"recorded at {episodes.rate:g} steps per second, and the environment states {rate:g} "
        "(metadata['render_fps']): an action lasts longer in one than in the other; resample the log, or correct the "
        "rate that is wrong"
    ]


# -- spaces ------------------------------------------------------------------------------------------------------------


def _other_spaces(episodes: Episodes, task: Task, env: Any) -> list[str]:
    """Differences between the data and the observation and action spaces, naming both shapes."""
    spec, space, box = episodes.spec(), env.observation_space, env.action_space
    errors = []
    found, wanted = _shapes(spec.observation), _shapes(space)
    if wanted != found:
        fix = _fix(task, spec.observation, wants_dicts=isinstance(space, Mapping))
        errors.append(f"the data's observations are {found}, the environment's are {wanted}; {fix}")
    if not hasattr(box, "low"):
        errors.append(f"the environment's actions are {box}; only continuous actions (Box) can be learned")
    elif box.shape != (spec.action_dim,):
        errors.append(f"the data's actions are ({spec.action_dim},), the environment's {box.shape}; use matching data")
    return errors


def _fix(task: Task, observation: PyTree, wants_dicts: bool) -> str:
    """What to do about observations of another layout than the environment's."""
    dicts = isinstance(observation, Mapping)
    size, image = task.env_options.get("image_size"), observation.get("image") if dicts else None
    if size is not None and image is not None and len(image) != size:
        return (
            f"build images of that size: calql data build {task.id} --set image_size={size}; "
            f"or learn from these: --set image_size={len(image)}"
        )
    if dicts == wants_dicts:
        return "use the data of this task, or an environment with the same observations"
    if wants_dicts:
        return "wrap the environment in gymnasium.wrappers.FlattenObservation, or record its dicts"
    known = [s.pattern for s in task.sources if s.adapt and fnmatch.fnmatchcase(s.pattern, PUBLISHED)]
    if known:
        return f"recordings of Gymnasium-Robotics are converted if they are named {' or '.join(known)}"
    return "record them flat (gymnasium.wrappers.FlattenObservation)"


def _shapes(tree: PyTree) -> str:
    """Keys and shapes of an observation or of its spaces, and which are images: the texts are equal if the two fit."""
    named = [(name.lstrip("/"), leaf) for name, leaf in named_leaves("", tree)]
    texts = (f"{name} {tuple(leaf.shape or ())}{' uint8' if is_image(leaf) else ''}" for name, leaf in named)
    return ", ".join(map(str.strip, texts))


def _channels_first(env: Any) -> list[str]:
    """A warning for every image whose channels seem to come first."""
    return [
        f"images '{name}' {box.shape} are taken as {box.shape[0]} rows of {box.shape[1]} pixels with {box.shape[2]} "
        "channels; if the channels come first, move them last, in the data and in the environment: [H, W, C]"
        for name, box in named_leaves("observations", env.observation_space)
        if is_image(box) and len(box.shape) == 3 and box.shape[0] in CHANNELS and box.shape[2] not in CHANNELS
    ]


def _outside_bounds(episodes: Episodes, env: Any) -> list[str]:
    """A warning for every array of the observations that leaves the bounds of the environment's space."""
    warnings = []
    recorded = [dict(named_leaves("observations", e.observations)) for e in episodes.episodes]
    for name, box in named_leaves("observations", env.observation_space):
        if is_image(box):
            continue
        lows = np.min([leaves[name].min(axis=0) for leaves in recorded], axis=0).astype(np.float64)
        highs = np.max([leaves[name].max(axis=0) for leaves in recorded], axis=0).astype(np.float64)
        low, high = box.low.astype(np.float64), box.high.astype(np.float64)
        left = np.flatnonzero((lows < low - 1e-3 * (1.0 + abs(low))) | (highs > high + 1e-3 * (1.0 + abs(high))))
        if left.size:
            i = left[0]
            warnings.append(
                f"{left.size} entries of '{name}' leave the bounds of the environment, first entry {i}: it lies in "
                f"[{lows[i]:.3g}, {highs[i]:.3g}], the environment's in [{low[i]:.3g}, {high[i]:.3g}]; check the unit, "
                "or the goal if it is part of the observation"
            )
    return warnings


# -- physics -----------------------------------------------------------------------------------------------------------


def physics_error(episodes: Episodes, env: Any) -> float | None:
    """How far this environment's steps deviate from the recorded ones: median deviation over median recorded change.

    Distances are over all entries, each divided by the standard deviation of its changes. None if the environment
    cannot be set to a recorded state, nothing changes in the data, or the task's limits or its hook show that a machine
    would be moved.
    """
    from calql.envs.executed import is_machine  # here, because importing Gymnasium is slow

    world = env.unwrapped
    if is_machine(env) or not _takes_one_observation(getattr(world, "set_state", None)):
        return None
    # The state after a terminal step is often not recorded (see `calql.data.readers.rows`).
    steps = np.flatnonzero(~np.concatenate([e.terminations for e in episodes.episodes]))
    bounds = ActionBounds.of(env.action_space)  # ±1, but for an environment that `unit_actions` has not wrapped
    assert bounds is not None
    before, recorded, replayed = [], [], []
    for episode, t in located(episodes.episodes, np.random.default_rng(0).permutation(steps)[:REPLAYS]):
        env.reset(seed=0)
        world.set_state(state_at(episode, t))
        reached = env.step(bounds.from_unit(episode.actions[t]).astype(env.action_space.dtype))[0]
        before.append(_flat(state_at(episode, t)))
        recorded.append(_flat(state_at(episode, t + 1)))
        replayed.append(_flat(reached))
    if not before:
        return None
    change, miss = np.subtract(recorded, before), np.subtract(replayed, recorded)
    deviation = change.std(axis=0)
    scale = np.where(deviation > 0.0, deviation, 1.0)
    moved, missed = (np.median(np.linalg.norm(x / scale, axis=1)) for x in (change, miss))
    return float(missed / moved) if moved > 0.0 else None


def share_in_walls(episodes: Episodes, env: Any) -> float | None:
    """Share of the recorded positions inside walls of the environment's maze; None if it has no maze."""
    maze: Any = getattr(env.unwrapped, "maze", None)
    if not (hasattr(maze, "cell_of") and hasattr(maze, "is_free")):
        return None
    positions = np.concatenate([e.observations[:, :2] for e in episodes.episodes])
    chosen = np.random.default_rng(0).permutation(len(positions))[:POSITIONS]
    return float(np.mean([not maze.is_free(maze.cell_of(position)) for position in positions[chosen]]))


def _known_physics(task: Task) -> str:
    """The task's published recordings that were made in other physics, as text: ` (minari:… has …)`."""
    known = [
        f"{source.pattern} has {', '.join(f'{name}={value}' for name, value in source.env_options.items())}"
        for source in task.sources
        if not source.env_options.items() <= task.env_options.items()
    ]
    return f" ({'; '.join(known)})" if known else ""


def _takes_one_observation(function: Any) -> bool:
    """Whether it can be called as `function(observation)`; Gymnasium's MuJoCo environments have a `(qpos, qvel)`."""
    if not callable(function):
        return False
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return len(required) == 1


def _flat(observation: PyTree) -> np.ndarray:
    """[D] float64: all leaves of one observation, concatenated."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for _, leaf in named_leaves("", observation)])
