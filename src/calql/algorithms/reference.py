"""A learned reference value (Appendix J of the Cal-QL paper), for data whose episodes have no end to sum rewards to.

A network of the critics' size is regressed on the Monte-Carlo returns beside them, and its value stands in Cal-QL's
bound where the return stood:

    L(ω) = mean (Q^μ_ω(s, a) − G)²         bound: max(Q(s, A_j), Q^μ_ω(s, a))

or the same with V^μ_ω(s). No code of the authors is known; the paper's Fig. 11 is of Q^μ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.sac import ActorCriticState, Metrics, adam_step
from calql.networks import Critic, Value
from calql.types import PyTree, Spec, Transition

if TYPE_CHECKING:
    from calql.algorithms.cal_ql import CalQL

REFERENCES = ("returns", "fitted", "fitted-v")
"""The data's Monte-Carlo returns, Q^μ regressed on them, or V^μ."""


def fitted_values(rule: CalQL, reference: PyTree, batch: Transition) -> jax.Array:
    """Q^μ(s, a), or V^μ(s): [B]."""
    if rule.reference == "fitted-v":
        return Value(rule.critic_hidden, rule.output_gain).apply({"params": reference}, batch.observations)
    network = Critic(rule.critic_hidden, rule.output_gain, rule.critic_layer_norm)
    return network.apply({"params": reference}, batch.observations, batch.actions)


def with_reference(rule: CalQL, state: ActorCriticState, key: jax.Array, spec: Spec) -> ActorCriticState:
    """The state with a fresh network of the reference, and its optimiser."""
    observation = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
    if rule.reference == "fitted-v":
        value = Value(rule.critic_hidden, rule.output_gain).init(key, observation)["params"]
    else:
        network = Critic(rule.critic_hidden, rule.output_gain, rule.critic_layer_norm)
        value = network.init(key, observation, jnp.zeros((1, spec.action_dim)))["params"]
    return state._replace(value=value, value_optimizer=optax.adam(rule.critic_lr).init(value))


def reference_loss(reference: PyTree, rule: CalQL, batch: Transition) -> jax.Array:
    """Mean squared distance from the Monte-Carlo returns."""
    return jnp.square(fitted_values(rule, reference, batch) - batch.returns).mean()


def fit_reference(rule: CalQL, state: ActorCriticState, batch: Transition) -> tuple[ActorCriticState, Metrics]:
    """One Adam step of the reference, at the critics' learning rate."""
    loss, gradient = jax.value_and_grad(reference_loss)(state.value, rule, batch)
    value, optimizer = adam_step(rule.critic_lr, gradient, state.value_optimizer, state.value)
    return state._replace(value=value, value_optimizer=optimizer), {"reference_loss": loss}
