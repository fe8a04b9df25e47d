"""Implicit Q-learning: values of the data's better actions by expectile regression; no action is ever queried outside.

Kostrikov et al. 2021 (arXiv 2110.06169), as the first author of Cal-QL ran it (nakamotoo/implicit_q_learning, branch
`dev_mitsuhiko`), in this order, each step on what the one before has made:

    L(V) = mean |τ − 1[u < 0]| u²,                u = min_i Q̄_i(s, a) − V(s)
    L(π) = − mean min(exp(β u), 100) log π(a|s)
    L(Q) = Σ_i mean (Q_i(s, a) − r − γ · mask · V(s′))²
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.awac import AWAC
from calql.algorithms.sac import ActorCriticState
from calql.algorithms.steps import Metrics, adam_step
from calql.networks import Value
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class IQL(AWAC):
    """Weighted imitation, as in AWAC, with an expectile of the data's values in place of the policy's own value."""

    actor_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of the policy."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of the critics and of V."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the policy."""
    iql_expectile: float = 0.7
    """τ: 0.5 is the mean of the data's values, 1 their maximum."""
    iql_temperature: float = 3.0
    """β, an inverse temperature: 0 clones the data."""

    @property
    def v(self) -> Value:
        """The state-value module: (ψ, s) → [B]."""
        return Value(self.critic_hidden, self.output_gain, encoder=self.encoder)

    def values(self, value: PyTree, observations: PyTree) -> jax.Array:
        """V at [B, …] → [B]."""
        return self.v.apply({"params": value}, observations)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """Fresh parameters and optimiser states for observations and actions of that shape."""
        base_key, value_key = jax.random.split(key)
        observation = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
        value = self.v.init(value_key, observation)["params"]
        optimizer = optax.adam(self.critic_lr).init(value)
        return super().init(base_key, spec)._replace(value=value, value_optimizer=optimizer)

    def data_value(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """min_i Q̄_i(s, a) of the data's actions: [B]."""
        return self.q_values(state.target_critic, batch.observations, batch.actions).min(axis=0)

    def value_loss(self, value: PyTree, state: ActorCriticState, batch: Transition) -> tuple[jax.Array, jax.Array]:
        """Expectile regression of V on the target critics. Also returns the mean of V."""
        v = self.values(value, batch.observations)
        u = self.data_value(state, batch) - v
        weight = jnp.where(u < 0, 1.0 - self.iql_expectile, self.iql_expectile)
        return (weight * jnp.square(u)).mean(), v.mean()

    def advantage(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """min_i Q̄_i(s, a) − V(s): [B]."""
        return self.data_value(state, batch) - self.values(state.value, batch.observations)

    def weights(self, advantage: jax.Array) -> jax.Array:
        """min(exp(β A), 100) / B: [B]."""
        return jnp.minimum(jnp.exp(self.iql_temperature * advantage), 100.0) / advantage.shape[0]

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · V(s′): [B]. No gradient flows."""
        value = self.values(state.value, batch.next_observations)
        return jax.lax.stop_gradient(batch.rewards + self.discount * batch.masks * value)

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """V, then the policy, then the critics, then their targets."""
        critic_key, actor_key = jax.random.split(key)
        (value_loss, v), gradient = jax.value_and_grad(self.value_loss, has_aux=True)(state.value, state, batch)
        value, optimizer = adam_step(self.critic_lr, gradient, state.value_optimizer, state.value)
        state = state._replace(value=value, value_optimizer=optimizer)
        improved, about_policy = self.improve_policy(state, batch, actor_key)
        (critic_loss, metrics), gradient = self.critic_gradient(improved, batch, critic_key)
        metrics |= {"critic_loss": critic_loss, "value_loss": value_loss, "v": v} | about_policy
        return self.step_critic(improved, gradient), metrics
