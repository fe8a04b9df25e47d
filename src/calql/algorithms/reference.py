"""A learned reference value (Appendix J of the Cal-QL paper), for data whose episodes have no end to sum rewards to.

A network of the critics' size is regressed on the Monte-Carlo returns beside them, and its value stands in Cal-QL's
bound where the return stood:

    L(ω) = mean (Q^μ_ω(s, a) − G)²         bound: max(Q(s, A_j), Q^μ_ω(s, a))

or the same with V^μ_ω(s). No code of the authors is known; the paper's Fig. 11 is of Q^μ.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.sac import SAC, ActorCriticState
from calql.algorithms.steps import Metrics, adam_step
from calql.networks import Critic, Value
from calql.types import PyTree, Spec, Transition


class Returns:
    """The Monte-Carlo returns of the data: nothing is learned."""

    def __init__(self, rule: SAC) -> None:
        """Of an update rule."""

    def init(self, state: ActorCriticState, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state as it is."""
        return state

    def values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """G: [B]."""
        return batch.returns

    def step(self, state: ActorCriticState, batch: Transition) -> tuple[ActorCriticState, Metrics]:
        """The state as it is."""
        return state, {}


class FittedQ(Returns):
    """Q^μ(s, a), with the size and the learning rate of the rule's critics; it lives in the state's `value`."""

    network: type[Critic | Value] = Critic

    def __init__(self, rule: SAC) -> None:
        self.learning_rate = rule.critic_lr
        self.q = self.network(rule.critic_hidden, rule.output_gain, rule.critic_layer_norm, rule.encoder)

    def init(self, state: ActorCriticState, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state with fresh parameters ω."""
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
        value = self.q.init(jax.random.fold_in(key, 2), *self.inputs(one, jnp.zeros((1, spec.action_dim))))["params"]
        return state._replace(value=value, value_optimizer=optax.adam(self.learning_rate).init(value))

    def inputs(self, observations: PyTree, actions: jax.Array) -> tuple:
        """What the network sees."""
        return observations, actions

    def values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """Q^μ(s, a): [B]."""
        return self.of(state.value, batch)

    def of(self, parameters: PyTree, batch: Transition) -> jax.Array:
        """The network's output: [B]."""
        return self.q.apply({"params": parameters}, *self.inputs(batch.observations, batch.actions))

    def loss(self, parameters: PyTree, batch: Transition) -> jax.Array:
        """Mean squared distance from the Monte-Carlo returns."""
        return jnp.square(self.of(parameters, batch) - batch.returns).mean()

    def step(self, state: ActorCriticState, batch: Transition) -> tuple[ActorCriticState, Metrics]:
        """One Adam step of ω."""
        loss, gradient = jax.value_and_grad(self.loss)(state.value, batch)
        value, optimizer = adam_step(self.learning_rate, gradient, state.value_optimizer, state.value)
        return state._replace(value=value, value_optimizer=optimizer), {"reference_loss": loss}


class FittedV(FittedQ):
    """V^μ(s)."""

    network = Value

    def inputs(self, observations: PyTree, actions: jax.Array) -> tuple:
        """What the network sees."""
        return (observations,)


REFERENCES: dict[str, type[Returns]] = {"returns": Returns, "fitted": FittedQ, "fitted-v": FittedV}
"""The data's Monte-Carlo returns, Q^μ regressed on them, or V^μ."""
