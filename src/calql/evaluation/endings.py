"""How a policy's episodes end and how far they come, which a score alone does not tell.

An environment may have a method `ending(episode)`, called after the last step of an episode without success and before
the next reset, that returns in a few words how it ended, and how far it came, in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from calql.envs.rollout import Act, collect_episode
from calql.tasks import Task
from calql.types import Episode


class Ending(NamedTuple):
    """How an episode ended."""

    how: str
    """In a few words, the same for episodes that ended in the same way."""
    progress: float
    """How far it came, in [0, 1]; nan if the environment does not tell."""


SUCCESS = Ending("success", 1.0)


def ending(env: gym.Env, episode: Episode) -> Ending:
    """How the episode that `env` has just finished ended."""
    if np.any(episode.successes):
        return SUCCESS
    world: Any = env.unwrapped
    if hasattr(world, "ending"):
        return Ending(*world.ending(episode))
    return Ending("terminated without success" if episode.terminations[-1] else "out of time", math.nan)


def watch(env: gym.Env, task: Task, act: Act, seeds: Sequence[int]) -> list[tuple[Episode, Ending]]:
    """One episode per seed of the environment's reset, with its ending; `act` is called with batches of one."""
    return [(episode := collect_episode(env, task, act, seed), ending(env, episode)) for seed in seeds]
