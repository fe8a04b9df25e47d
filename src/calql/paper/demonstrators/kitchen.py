"""Kitchen demonstrations by script, in the shape of D4RL's `kitchen-{complete,partial,mixed}-v0`.

A demonstrator tries some subtasks in sequence, each up to three times, and stops. In D4RL people did this by
teleoperation, four subtasks per episode: *complete* holds 19 demonstrations of the target sequence, *partial* and
*mixed* about 600 of many sequences, among which some of the target sequence in partial, and none that solves all of
its target in mixed. So there are three recipes, which differ in `target_share` and in whether failures are dropped.

Rewards are the environment's: the number of target subtasks solved so far. D4RL's files count those solved at the
moment instead, which differs only if a subtask is undone; the paper's environment counts as here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from calql.envs.rollout import Step, roll
from calql.paper.demonstrators import run
from calql.paper.demonstrators.kitchen_script import SCRIPTS, Arm, Targets
from calql.paper.envs import kitchen
from calql.types import Episode, InputError

_env = functools.cache(kitchen.make)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the data; everything that is not fixed here is drawn from the seed."""

    tasks: tuple[str, ...]
    """The target: the subtasks that are rewarded, in the order in which a demonstration of it solves them."""
    transitions: int
    """Minimum number of transitions; the last episode is completed."""
    target_share: float = 1.0
    """Probability that a demonstration attempts the target. The others attempt other ones, never all of the target's;
    a few solve it by accident, when the passing arm turns on a light. At 0 these are dropped."""
    failures: bool = True
    """Whether to keep episodes in which a subtask was tried and not solved."""
    sequence_length: int = 4
    """Number of subtasks in a sequence that is not the target."""
    shuffled: float = 0.0
    """Probability that such a sequence is done in random order; otherwise in that of `SCRIPTS`, the human order."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise on each of the arm's 7 actions, recorded as executed."""
    tries: int = 3
    """Maximum number of attempts per subtask."""
    steps: int = 280
    """Maximum length of a demonstration (D4RL's horizon)."""
    terminal: bool = True
    """Mark the last step as terminal, though the kitchen never ends: that is how D4RL's files mark demonstrations, and
    what the paper was trained on. False: mark it as truncated."""

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        kitchen.goal_vector(self.tasks)
        if self.target_share > 0 and (unknown := sorted(set(self.tasks) - set(SCRIPTS))):
            raise InputError(f"there is no script for {', '.join(unknown)}; choose from {', '.join(SCRIPTS)}")
        if self.target_share < 1 and not self.sequences():
            raise InputError(f"{self.sequence_length} of {len(SCRIPTS)} subtasks contain the target; change one")
        if self.action_noise < 0 or min(self.tries, self.steps) < 1:
            raise InputError("action_noise must be >= 0, tries and steps at least 1")
        if not 0 <= self.target_share <= 1 or not 0 <= self.shuffled <= 1:
            raise InputError("target_share and shuffled must lie within [0, 1]")

    def sequences(self) -> list[tuple[str, ...]]:
        """The sequences of subtasks that do not contain all of the target."""
        sets = combinations(SCRIPTS, self.sequence_length)
        return [names for names in sets if names and not set(self.tasks) <= set(names)]


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode | None:
    """Demonstration number `index`; None if the recipe drops it."""
    rng = np.random.default_rng([seed, index])
    names = draw_sequence(recipe, rng)
    episode, solved = perform(recipe, names, rng)
    assert episode.successes is not None
    unwanted = not recipe.failures and not solved
    leaked = recipe.target_share == 0 and episode.successes.any()
    return None if unwanted or leaked else episode


build = functools.partial(run.build, Recipe, demonstrate)
"""`build(task, seed, transitions, workers, progress, **options)`: see `run.build`."""


def draw_sequence(recipe: Recipe, rng: np.random.Generator) -> tuple[str, ...]:
    """The subtasks of one demonstration, in order: the target's, or others."""
    if rng.random() < recipe.target_share:
        return recipe.tasks
    others = recipe.sequences()
    names = others[rng.integers(len(others))]
    return tuple(rng.permutation(names).tolist()) if rng.random() < recipe.shuffled else names


def perform(recipe: Recipe, names: Sequence[str], rng: np.random.Generator) -> tuple[Episode, bool]:
    """One episode in which the scripts of `names` are run in order, and whether all of them are solved at its end."""
    env = _env(recipe.tasks)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    targets = _targets(env, names, recipe.tries, rng)

    def act(observation: np.ndarray, _: Step | None) -> np.ndarray | None:
        target = next(targets, None)
        if target is None:
            return None
        # An action moves the joints from where they were *observed*.
        action = (target - observation[:9]) / (kitchen.MAX_SPEED * env.dt)
        action[:7] += recipe.action_noise * rng.standard_normal(7)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    episode = roll(env, observation, act, recipe.steps)
    ends = np.arange(episode.length) == episode.length - 1
    episode = episode._replace(terminations=ends & recipe.terminal, truncated=not recipe.terminal)
    return episode, all(kitchen.is_solved(name, env.data.qpos) for name in names)


def _targets(env: kitchen.Kitchen, names: Sequence[str], tries: int, rng: np.random.Generator) -> Targets:
    """Joint targets of all scripts in turn."""
    arm = Arm(env, rng)
    for name in names:
        for _ in range(tries):
            if kitchen.is_solved(name, env.data.qpos):
                break
            yield from SCRIPTS[name](arm)
