"""Types used throughout the library: transitions, episodes, specs, and the two errors.

Three terms are distinguished everywhere: `terminated` (the task ended, do not bootstrap), `truncated` (the episode was
cut by a time limit, do bootstrap) and `mask` (1 − terminated, the factor of the bootstrapped value).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

PyTree = Any
"""An array, or a nested dict of arrays, such as an observation."""


def is_image(leaf: Any) -> bool:
    """Whether a leaf of an observation is an image: whether its dtype is uint8."""
    return leaf.dtype == np.uint8


def map_leaves(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """Apply `function` to corresponding arrays of observations that have the same structure (an array or nested
    dicts)."""
    if isinstance(trees[0], Mapping):
        return {key: map_leaves(function, *(tree[key] for tree in trees)) for key in sorted(trees[0])}
    return function(*trees)


def one_line(text: Any) -> str:
    """Text as one line for a terminal: line breaks and control characters, which may come from files, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class InputError(ValueError):
    """The user's input cannot be used. The message states the cause and the fix; the CLI prints it and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class RunError(RuntimeError):
    """A run cannot continue. Its progress is saved; the message says how to continue. The CLI exits with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Transition(NamedTuple):
    """A batch of transitions, or a whole replay buffer: every leaf has the same leading axis [N]."""

    observations: PyTree
    """[N, …] observation, the state s."""
    actions: PyTree
    """[N, A] action a, in [−1, 1]."""
    rewards: PyTree
    """[N] mapped reward r (the task's scale and bias are applied)."""
    next_observations: PyTree
    """[N, …] next observation, the state s′."""
    masks: PyTree
    """[N] 1 − terminated: 0 where the target must not bootstrap from s′."""
    returns: PyTree
    """[N] Monte-Carlo return G of (s, a) on mapped rewards, the reference value of Cal-QL."""
    to_go: PyTree = None
    """[N] undiscounted sum of mapped rewards from this step to the end of the episode (for sequence models)."""
    timesteps: PyTree = None
    """[N] int32 step in the episode (for sequence models)."""


class Window(NamedTuple):
    """A batch of windows of K consecutive steps of one episode each, [B, K, …]; fields as in `Transition`."""

    observations: PyTree
    actions: PyTree
    to_go: PyTree
    timesteps: PyTree
    valid: PyTree
    """[B, K] bool: false after the end of the episode."""


class Episode(NamedTuple):
    """One episode of T steps as it was recorded, with raw rewards."""

    observations: PyTree
    """[T + 1, …] states s_0 … s_T (a dict of such arrays for dict observations)."""
    actions: np.ndarray
    """[T, A] float32."""
    rewards: np.ndarray
    """[T] float32 raw rewards of the environment (before the task's reward map)."""
    terminations: np.ndarray
    """[T] bool; true where the task ended. Usually only the last step, but recorded data may have several."""
    truncated: bool
    """Whether the episode was cut by a time limit or by the end of the recording."""
    successes: np.ndarray | None = None
    """[T] bool success signal of the environment; None: not recorded."""
    interventions: np.ndarray | None = None
    """[T] bool, true where a person acted; None: not told. The actions are those that were executed, whoever acted."""

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.rewards)


class Spec(NamedTuple):
    """Shapes of observations and actions, and statistics of the data: for sequence models, which normalise observations
    by themselves, and for runs with `normalise_observations`, whose networks see normalised observations."""

    observation: PyTree
    """One example observation (no batch axis); only its shapes and dtypes are used."""
    action_dim: int
    """Number of action dimensions |A|."""
    mean: PyTree = None
    """Mean of the data's observations (the structure of an observation)."""
    std: PyTree = None
    """Standard deviation of the data's observations."""
    best_return: float | None = None
    """Highest undiscounted return of an episode, on mapped rewards."""
