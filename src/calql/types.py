"""The vocabulary of the whole library: transitions, episodes, specs, and the two errors.

Three things are kept apart everywhere: `terminated` (the task ended, do not bootstrap), `truncated` (the clock ran
out, do bootstrap) and `mask` (1 − terminated, the factor in front of the bootstrapped value).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

PyTree = Any
"""An array, or a dict of arrays: an observation."""


def is_image(leaf: Any) -> bool:
    """Images are the leaves of an observation that are of type uint8."""
    return leaf.dtype == np.uint8


def map_leaves(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """`function` of the arrays of observations of one structure: an array, or nested dicts of arrays."""
    if isinstance(trees[0], Mapping):
        return {key: map_leaves(function, *(tree[key] for tree in trees)) for key in sorted(trees[0])}
    return function(*trees)


def one_line(text: Any) -> str:
    """Text as one line for a terminal: line breaks and control characters, which files may hold, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class InputError(ValueError):
    """What the user gave cannot be used. The message names cause and fix; the CLI prints it and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RunError(RuntimeError):
    """A run cannot continue. What it had is saved; the message says how to go on. The CLI exits with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Transition(NamedTuple):
    """A batch of transitions, or a whole replay memory: every leaf has the same leading axis [N]."""

    observations: PyTree
    """[N, …] state s."""
    actions: PyTree
    """[N, A] action a, in [−1, 1]."""
    rewards: PyTree
    """[N] mapped reward r (scale and bias of the task already applied)."""
    next_observations: PyTree
    """[N, …] state s′."""
    masks: PyTree
    """[N] 1 − terminated: 0 where the value of s′ must not be bootstrapped."""
    returns: PyTree
    """[N] Monte-Carlo return G of (s, a) on mapped rewards: the reference value of Cal-QL."""
    to_go: PyTree = None
    """[N] undiscounted sum of mapped rewards from here to the end of the episode, where sequences are learned from."""
    timesteps: PyTree = None
    """[N] int32 step in the episode, likewise."""


class Window(NamedTuple):
    """Stretches of K steps from single episodes: [B, K, …], with the meanings of `Transition`."""

    observations: PyTree
    actions: PyTree
    to_go: PyTree
    timesteps: PyTree
    valid: PyTree
    """[B, K] bool: false where the episode is over."""


class Episode(NamedTuple):
    """One episode of T steps as it was recorded: raw rewards, real end."""

    observations: PyTree
    """[T + 1, …] states s_0 … s_T (a dict of such arrays for dict observations)."""
    actions: np.ndarray
    """[T, A] float32."""
    rewards: np.ndarray
    """[T] float32, as the environment paid them (before the task's reward map)."""
    terminations: np.ndarray
    """[T] bool; true where the task ended. Usually only the last, but a recorded set may hold several."""
    truncated: bool
    """The episode was cut by a clock or by the end of the recording."""
    successes: np.ndarray | None = None
    """[T] bool; the environment's own success signal, where it was recorded."""

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.rewards)


class Spec(NamedTuple):
    """What a network must accept and produce; the statistics of the data are None unless sequences are learned from."""

    observation: PyTree
    """One example observation (no batch axis); dtype and shape matter, values do not."""
    action_dim: int
    """Number of action dimensions |A|."""
    mean: PyTree = None
    """Mean of the data's observations."""
    std: PyTree = None
    """Standard deviation of the data's observations."""
    best_return: float | None = None
    """Highest undiscounted return of an episode, on mapped rewards."""
