"""The environments of a run, opened when first used, and episodes as rows of the replay buffer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import gymnasium
import jax
import numpy as np

from calql.envs.make import make_env
from calql.tasks import Task
from calql.types import InputError, Transition


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
    """One environment to collect episodes in and some to evaluate in, each opened at its first use.

    `render_mode`: that of the first one.
    """

    def __init__(self, task: Task, eval_envs: int, eval_episodes: int, render_mode: str | None = None) -> None:
        self.task, self.render_mode = task, render_mode
        self.share = eval_envs == 1
        self.count = min(eval_envs, eval_episodes)
        self._opened: list[gymnasium.Env] = []

    @cached_property
    def training(self) -> gymnasium.Env:
        """The environment that episodes are collected in."""
        return self._open()

    @cached_property
    def evaluation(self) -> list[gymnasium.Env]:
        """The environments that policies are evaluated in; the training environment if `eval_envs` is 1."""
        return [self.training] if self.share else [self._open() for _ in range(self.count)]

    def _open(self) -> gymnasium.Env:
        try:
            self._opened.append(Watched(make_env(self.task, None if self._opened else self.render_mode)))
        except InputError as error:
            if not self._opened:
                raise
            raise InputError(
                f"{error} ({len(self._opened)} of it are open in this run already: if it can be opened once only, "
                "--set eval_envs=1)"
            ) from error
        return self._opened[-1]

    def close(self) -> None:
        """Close the environments that were opened."""
        while self._opened:
            self._opened.pop().close()


def padded(rows: Transition, like: Transition, count: int) -> Transition:
    """Transitions [T, …] as `count` rows in the dtypes of `like` [N, …]; rows past T are zero."""

    def pad(x: np.ndarray, example: Any) -> np.ndarray:
        x = np.asarray(x, example.dtype)
        return np.concatenate([x, np.zeros((count - len(x), *x.shape[1:]), x.dtype)])

    return jax.tree.map(pad, rows, like)
