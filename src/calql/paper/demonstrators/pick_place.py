"""Pick-and-place demonstrations by script: hover, descend, close, lift, carry, let go; repeated if the object slips.

As in the data of the original (roboverse's scripted policy), every action carries Gaussian noise. A share of episodes
is mistaken: the wrong object is carried to the bowl, or the right one to another place.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from calql.envs.rollout import Step, roll
from calql.paper.demonstrators import run
from calql.paper.envs import pick_place
from calql.paper.envs.pick_place import MOVE, TABLE, PickPlace
from calql.tasks import Task
from calql.types import Episode, InputError, PyTree

HOVER, CARRY, LIFT = 0.11, 0.13, 0.16
"""Heights of the grasp in metres: above an object, above the bowl, and aimed at while lifting."""
LOWEST = 0.036
"""Height at which the fingers close; for a higher object, the height of its centre."""
HELD = 0.045
"""An object whose centre is above this is in the air."""

OPENING, CLOSING = 0.7, -0.7
"""Commands of the gripper."""
LIMIT = 0.9
"""Largest component of an action, as in the original: values that a tanh cannot reach would dominate the likelihood."""

_env = functools.cache(pick_place.make)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the data; everything that is not fixed here is drawn from the seed."""

    transitions: int
    """Minimum number of transitions; the last episode is completed."""
    horizon: int = 40
    """Length of an episode that fails."""
    image_size: int = 48
    """Side of the images in pixels, set by the task."""
    target: str | None = None
    """Target object, set by the task; None: any."""
    distractor: str | None = None
    """Distractor, set by the task; None: any."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise on each of the 7 actions, recorded as executed."""
    mistaken: float = 0.0
    """Probability that an episode carries the wrong object, or the right one to a wrong place."""
    fumble: float = 0.0
    """Probability per step that the gripper command is inverted: closed too early, or opened."""

    def __post_init__(self):
        if self.action_noise < 0 or not (0 <= self.mistaken <= 1 and 0 <= self.fumble <= 1):
            raise InputError("action_noise must be >= 0; mistaken and fumble within [0, 1]")


def script(env: PickPlace, thing: str, goal: np.ndarray) -> Iterator[np.ndarray]:
    """Actions [7] that carry an object to (x, y) [2], without noise; it reads the simulator, not the image."""

    def action(position: np.ndarray, grip: float = 0.0) -> np.ndarray:
        return np.array([*(position - env.grasp()) / MOVE, 0.0, 0.0, 0.0, grip])

    def above(xy: np.ndarray, height: float) -> np.ndarray:
        return np.array([*xy[:2], height])

    def reach(position: np.ndarray) -> np.ndarray:
        return action(position, 0.0 if env.is_open else OPENING)

    while True:
        if not env.is_open:
            yield action(env.grasp(), OPENING)
        while np.linalg.norm(env.grasp()[:2] - env.place(thing)[:2]) > 0.012:
            yield reach(above(env.place(thing), HOVER))
        while env.grasp()[2] > (low := max(LOWEST, env.place(thing)[2])) + 0.012:
            yield reach(above(env.place(thing), low))
        yield action(env.grasp(), CLOSING)
        while env.grasp()[2] < HOVER:
            yield action(above(env.grasp(), LIFT))
        while env.place(thing)[2] > HELD and np.linalg.norm(env.grasp()[:2] - goal) > 0.018:
            yield action(above(goal, CARRY))


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode:
    """Demonstration number `index`."""
    rng = np.random.default_rng([seed, index])
    env = _env(recipe.image_size, recipe.target, recipe.distractor)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    thing, goal = env.target, env.bowl
    if rng.random() < recipe.mistaken:
        thing, goal = (env.distractor, goal) if rng.random() < 0.5 else (thing, rng.uniform(*TABLE))
    plan = script(env, thing, goal)

    def act(_: PyTree, __: Step | None) -> np.ndarray:
        wanted = next(plan)
        if rng.random() < recipe.fumble:
            wanted[6] = CLOSING if env.is_open else OPENING
        action = np.clip(wanted, -LIMIT, LIMIT) + recipe.action_noise * rng.standard_normal(7)
        return np.clip(action, -LIMIT, LIMIT).astype(np.float32)

    return roll(env, observation, act, recipe.horizon)


def build(task: Task, *arguments: Any, image_size: int | None = None, **options: Any) -> str:
    """`build(task, seed, transitions, workers, progress, **options)`: see `run.build`. `image_size`: size
    of the images, by default the task's."""
    if image_size is not None:
        task = dataclasses.replace(task, env_options={**task.env_options, "image_size": image_size})
    return run.build(Recipe, demonstrate, task, *arguments, **options)
