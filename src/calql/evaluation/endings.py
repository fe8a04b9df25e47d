"""How a policy's episodes end and how far they come, which a score alone does not tell.

An environment may have a method `ending(episode)`, called after the last step of an episode without success and before
the next reset, that returns in a few words how it ended, and how far it came, in [0, 1].
"""

from __future__ import annotations

import math
from collections import defaultdict
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


def shares(endings: Sequence[Ending]) -> list[dict[str, Any]]:
    """Per way to end, the most frequent first: `ending`, its `share` of the episodes, and their mean `progress` (None
    if the environment does not tell)."""
    progress = defaultdict(list)
    for ended in endings:
        progress[ended.how].append(ended.progress)
    return [
        {
            "ending": how,
            "share": len(values) / len(endings),
            "progress": float(np.mean(values)) if np.isfinite(values).all() else None,
        }
        for how, values in sorted(progress.items(), key=lambda item: -len(item[1]))
    ]


def in_words(row: dict[str, Any]) -> str:
    """A row of `shares`: "43% the pen was dropped, progress 0.79"."""
    progress = "" if row["progress"] is None else f", progress {row['progress']:.2f}"
    return f"{row['share']:.0%} {row['ending']}{progress}"
