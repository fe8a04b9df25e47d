"""The environments of a run, opened when first used, and episodes as rows of the replay buffer."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np

from calql.envs.make import make_env
from calql.tasks import Task
from calql.types import Transition


class EnvironmentFailed(RuntimeError):
    """The environment raised an exception in `reset` or `step`; `__cause__` is that exception."""


class Watched(gymnasium.Wrapper):
    """Turns exceptions of the environment into EnvironmentFailed, to tell them from errors elsewhere."""

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """Reset the environment. Raises EnvironmentFailed if that raises."""
        try:
            return self.env.reset(**options)
        except Exception as error:
            raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error

    def step(self, action: np.ndarray) -> tuple:
        """Step the environment. Raises EnvironmentFailed if that raises."""
        try:
            return self.env.step(action)
        except Exception as error:
            raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error


class Environments:
    """One environment to collect episodes in and some to evaluate in, each opened at its first use."""

    def __init__(self, task: Task, eval_envs: int, eval_episodes: int) -> None:
        self.task = task
        self.share = eval_envs == 1
        self.count = min(eval_envs, eval_episodes)
        self._training: gymnasium.Env | None = None
        self._evaluation: list[gymnasium.Env] = []

    @property
    def training(self) -> gymnasium.Env:
        """The environment that episodes are collected in."""
        if self._training is None:
            self._training = Watched(make_env(self.task))
        return self._training

    @property
    def evaluation(self) -> list[gymnasium.Env]:
        """The environments that policies are evaluated in; the training environment if `eval_envs` is 1."""
        if self.share:
            return [self.training]
        while len(self._evaluation) < self.count:
            self._evaluation.append(Watched(make_env(self.task)))
        return self._evaluation

    def close(self) -> None:
        """Close the environments that were opened."""
        for env in [*self._evaluation, *([self._training] if self._training is not None else [])]:
            env.close()
        self._training, self._evaluation = None, []


def padded(rows: Transition, like: Transition, count: int) -> Transition:
    """Transitions [T, …] as `count` rows in the dtypes of `like` [N, …]; rows past T are zero."""

    def pad(x: np.ndarray, example: Any) -> np.ndarray:
        x = np.asarray(x, example.dtype)
        return np.concatenate([x, np.zeros((count - len(x), *x.shape[1:]), x.dtype)])

    return jax.tree.map(pad, rows, like)
