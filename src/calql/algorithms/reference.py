"""A learned reference value (Appendix J of the Cal-QL paper), for data whose episodes are incomplete.

A network of the same size as a critic is trained by regression on the Monte-Carlo returns G, and its value replaces the
return in Cal-QL's bound:

    L(ω) = mean (Q^μ_ω(s, a) − G)²         bound: max(Q(s, A_j), Q^μ_ω(s, a))

or the same with V^μ_ω(s). The authors have not released code for this; the paper's Fig. 11 uses Q^μ.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from calql.algorithms import optimizers
from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.optimizers import Optimizer
from calql.algorithms.steps import Metrics, descend, example
from calql.networks import Critic, apply
from calql.types import PyTree, Spec, Transition

Reference = Literal["returns", "fitted", "fitted-v"]
"""`returns`: the Monte-Carlo returns of the data; `fitted`: Q^μ, and `fitted-v`: V^μ, trained by regression on them."""


@dataclasses.dataclass(frozen=True)
class FittedReference:
    """Q^μ(s, a), or V^μ(s): a network whose parameters ω are the state's `value`."""

    network: Critic
    uses_actions: bool
    """True: Q^μ(s, a); false: V^μ(s)."""
    learning_rate: float
    optimizer: Optimizer

    def init(self, state: ActorCriticState, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state with initial parameters ω and their optimiser state."""
        actions = jnp.zeros((1, spec.action_dim)) if self.uses_actions else None
        value = self.network.init(jax.random.fold_in(key, 2), example(spec), actions)["params"]
        optimizer = optimizers.make(self.optimizer, self.learning_rate).init(value)
        return state._replace(value=value, value_optimizer=optimizer)

    def values(self, value: PyTree, batch: Transition) -> jax.Array:
        """Q^μ(s, a) or V^μ(s): [B]."""
        return apply(self.network, value, batch.observations, batch.actions if self.uses_actions else None)

    def loss(self, value: PyTree, batch: Transition) -> jax.Array:
        """Mean squared error against the Monte-Carlo returns."""
        return jnp.square(self.values(value, batch) - batch.returns).mean()

    def step(self, state: ActorCriticState, batch: Transition) -> tuple[ActorCriticState, Metrics]:
        """One optimiser step of ω."""
        loss, gradient = jax.value_and_grad(self.loss)(state.value, batch)
        return descend(state, "value", self.learning_rate, gradient, kind=self.optimizer), {"reference_loss": loss}
