"""The interface of an update rule: what training needs from an algorithm, whether it is part of calql or your own.

A rule is a frozen dataclass whose fields are its hyper-parameters, so it is hashable and can be a static argument of
compiled functions. It holds no arrays: everything that is learned is in the state, a pytree that `init` creates and
`update` replaces. No base class is needed. The methods of a rule decide what training does with the rule:

| protocol | members | what training does |
|---|---|---|
| `UpdateRule` | `discount`, `context`, `init`, `update` | gradient steps |
| `Acts` | `act` | rollouts if `context` is 0 |
| `ActsInContext` | `blank`, `act_in_context` | rollouts if `context` is above 0 |
| `HasValues` | `act`, `q_values`, and `critic` in the state | measures Q on the data and the bounding rate |

Two options set a field of the rule if the rule has a field of that name: `target_q_clamp` sets `target_q_range`, and
`actor_once_per_step` sets `actor_every`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax

from calql.algorithms.steps import Metrics
from calql.types import PyTree, Spec


@runtime_checkable
class UpdateRule(Protocol):
    """The members that every rule has."""

    @property
    def discount(self) -> float:
        """γ in [0, 1); also used for the Monte-Carlo returns of the data."""
        ...

    @property
    def context(self) -> int:
        """0: batches are `Transition`s with leading axis [B]; K ≥ 1: batches are `Window`s of K steps, [B, K]."""
        ...

    def init(self, key: jax.Array, spec: Spec) -> Any:
        """The initial state for observations and actions of the shapes in `spec`."""
        ...

    def update(self, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Metrics]:
        """One gradient step. Returns the new state, of the same structure, and scalar metrics by name. A pure function
        that JAX can trace."""
        ...


@runtime_checkable
class Acts(Protocol):
    """A policy of the current observation."""

    def act(self, state: Any, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] in [−1, 1] at observations [B, …]: deterministic without a key, exploratory with a key."""
        ...


@runtime_checkable
class ActsInContext(Protocol):
    """A policy of the last steps of the episode, which it keeps in a memory."""

    def blank(self, spec: Spec, size: int) -> Any:
        """The memory at the start of `size` parallel episodes."""
        ...

    def act_in_context(
        self,
        state: Any,
        memory: Any,
        observations: PyTree,
        steps: jax.Array,
        rewards: jax.Array,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Actions [B, A] in [−1, 1] at observations [B, …], and the new memory.

        `steps` [B] counts from 0 in every episode; `rewards` [B] are the mapped rewards of the previous step.
        """
        ...


@runtime_checkable
class HasValues(Acts, Protocol):
    """A policy of the current observation with learned Q-functions, whose parameters are the state's `critic`."""

    def q_values(self, critic: PyTree, observations: PyTree, actions: jax.Array) -> jax.Array:
        """Q-values of E critics: actions [B, A] → [E, B], or N actions per state [B, N, A] → [E, B, N]."""
        ...
