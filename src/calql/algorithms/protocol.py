"""The contract of an update rule: what training asks of an algorithm, whoever wrote it.

A rule is a frozen dataclass whose fields are its hyper-parameters: it is hashable, and a static argument of compiled
functions. It holds no arrays. All that it learns is in a state, a pytree that `init` makes and `update` returns anew.
No base class is needed; what a rule can do beyond `UpdateRule` follows from the methods that it has:

| capability | members | what training does with it |
|---|---|---|
| `Acts` | `act` | rollouts of a rule whose `context` is 0 |
| `ActsInContext` | `blank`, `act_in_context` | rollouts of a rule whose `context` is above 0 |
| `HasValues` | `act`, `q_values`, and `critic` in the state | Q on the data and the bounding rate at every evaluation |

Some options of training set a field of the rule by name, where the rule has one of that name: `target_q_range` (the
clamp of targets), `actor_every`, `cql_alpha`, `iql_temperature`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax

from calql.algorithms.steps import Metrics
from calql.types import PyTree, Spec


@runtime_checkable
class UpdateRule(Protocol):
    """What every rule has."""

    @property
    def discount(self) -> float:
        """γ in [0, 1), also of the returns that are computed from the data."""
        ...

    @property
    def context(self) -> int:
        """0: batches are `Transition`s with leading axis [B]; K ≥ 1: batches are `Window`s of K steps, [B, K]."""
        ...

    def init(self, key: jax.Array, spec: Spec) -> Any:
        """A fresh state for observations and actions of those shapes."""
        ...

    def update(self, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Metrics]:
        """One gradient step: the new state, of the same structure, and scalar metrics by name. Pure and traceable."""
        ...


@runtime_checkable
class Acts(Protocol):
    """A policy of the current observation."""

    def act(self, state: Any, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] in [−1, 1] at observations [B, …]: deterministic, or exploring where a key is given."""
        ...


@runtime_checkable
class ActsInContext(Protocol):
    """A policy that remembers the episode."""

    def blank(self, spec: Spec, size: int) -> Any:
        """The memory of `size` episodes that have not begun."""
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
        """Actions [B, A] at observations [B, …], and the new memory.

        `steps` [B] counts from 0 in every episode; `rewards` [B] are the mapped rewards of the step before.
        """
        ...


@runtime_checkable
class HasValues(Acts, Protocol):
    """A policy of the current observation with learned Q functions, in the state's `critic`."""

    def q_values(self, critic: PyTree, observations: PyTree, actions: jax.Array) -> jax.Array:
        """Q of E critics: actions [B, A] → [E, B], or N actions per state [B, N, A] → [E, B, N]."""
        ...
