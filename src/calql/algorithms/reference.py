"""A learned reference value (Appendix J of the Cal-QL paper), for data whose episodes have no end to sum rewards to.

A network of the critics' size is regressed on the Monte-Carlo returns beside them, and its value stands in Cal-QL's
bound where the return stood:

    L(ω) = mean (Q^μ_ω(s, a) − G)²         bound: max(Q(s, A_j), Q^μ_ω(s, a))

or the same with V^μ_ω(s). No code of the authors is known; the paper's Fig. 11 is of Q^μ.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.sac import adam_step
from calql.networks import Critic, Value
from calql.types import PyTree, Spec, Transition

REFERENCES = ("returns", "fitted", "fitted-v")
"""The data's Monte-Carlo returns, Q^μ regressed on them, or V^μ."""


@dataclasses.dataclass(frozen=True)
class FittedReference:
    """Q^μ(s, a) or V^μ(s), by the network's kind."""

    network: Critic | Value
    learning_rate: float
    """Of Adam."""

    def init(self, key: jax.Array, spec: Spec) -> tuple[PyTree, Any]:
        """Fresh parameters ω and optimiser state."""
        observation = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
        action = () if isinstance(self.network, Value) else (jnp.zeros((1, spec.action_dim)),)
        parameters = self.network.init(key, observation, *action)["params"]
        return parameters, optax.adam(self.learning_rate).init(parameters)

    def values(self, parameters: PyTree, batch: Transition) -> jax.Array:
        """Q^μ(s, a), or V^μ(s): [B]."""
        action = () if isinstance(self.network, Value) else (batch.actions,)
        return self.network.apply({"params": parameters}, batch.observations, *action)

    def loss(self, parameters: PyTree, batch: Transition) -> jax.Array:
        """Mean squared distance from the Monte-Carlo returns."""
        return jnp.square(self.values(parameters, batch) - batch.returns).mean()

    def step(self, parameters: PyTree, optimizer: Any, batch: Transition) -> tuple[PyTree, Any, jax.Array]:
        """One Adam step; also the loss before it."""
        loss, gradient = jax.value_and_grad(self.loss)(parameters, batch)
        return *adam_step(self.learning_rate, gradient, optimizer, parameters), loss
