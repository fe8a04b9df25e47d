"""A learned reference value (Appendix J of the Cal-QL paper), for data whose episodes have no end to sum rewards to.

A network of the critics' size is regressed on the Monte-Carlo returns beside them, and its value stands in Cal-QL's
bound where the return stood:

    L(ω) = mean (Q^μ_ω(s, a) − G)²         bound: max(Q(s, A_j), Q^μ_ω(s, a))

or the same with V^μ_ω(s). No code of the authors is known; the paper's Fig. 11 is of Q^μ.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.steps import Metrics, descend, example
from calql.networks import Critic, apply
from calql.types import PyTree, Spec, Transition

Reference = Literal["returns", "fitted", "fitted-v"]
"""The data's Monte-Carlo returns, Q^μ regressed on them, or V^μ."""


@dataclasses.dataclass(frozen=True)
class FittedReference:
    """Q^μ(s, a), or V^μ(s): a network whose parameters ω live in the state's `value`."""

    network: Critic
    sees_actions: bool
    learning_rate: float

    def init(self, state: ActorCriticState, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state with fresh parameters ω."""
        actions = jnp.zeros((1, spec.action_dim)) if self.sees_actions else None
        value = self.network.init(jax.random.fold_in(key, 2), example(spec), actions)["params"]
        return state._replace(value=value, value_optimizer=optax.adam(self.learning_rate).init(value))

    def values(self, value: PyTree, batch: Transition) -> jax.Array:
        """Q^μ(s, a) or V^μ(s): [B]."""
        return apply(self.network, value, batch.observations, batch.actions if self.sees_actions else None)

    def loss(self, value: PyTree, batch: Transition) -> jax.Array:
        """Mean squared distance from the Monte-Carlo returns."""
        return jnp.square(self.values(value, batch) - batch.returns).mean()

    def step(self, state: ActorCriticState, batch: Transition) -> tuple[ActorCriticState, Metrics]:
        """One Adam step of ω."""
        loss, gradient = jax.value_and_grad(self.loss)(state.value, batch)
        return descend(state, "value", self.learning_rate, gradient), {"reference_loss": loss}
