"""Implicit Q-learning: V is learned by expectile regression, so Q is never evaluated at actions outside the data.

Kostrikov et al. 2021 (arXiv 2110.06169), as in the code of Cal-QL's first author (nakamotoo/implicit_q_learning, branch
`dev_mitsuhiko`). The steps are taken in this order, each with the networks that the previous steps have updated:

    L(V) = mean |τ − 1[u < 0]| u²,                u = min_i Q̄_i(s, a) − V(s)
    L(π) = − mean min(exp(β u), 100) log π(a|s)
    L(Q) = Σ_i mean (Q_i(s, a) − r − γ · mask · V(s′))²
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms import optimizers
from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import Below1, Between0And1, NonNegative, Positive, Widths
from calql.algorithms.imitation import WeightedImitation
from calql.algorithms.steps import Metrics, descend, example
from calql.networks import Critic, apply
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class IQL(WeightedImitation):
    """IQL: hyper-parameters, and pure methods over an `ActorCriticState`."""

    actor_lr: Positive = 3e-4
    """AdamW learning rate of the policy."""
    critic_lr: Positive = 3e-4
    """Adam learning rate of the critics and of V."""
    critic_hidden: Widths = (256, 256)
    """Hidden widths of the critics and of V."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of the policy."""
    exploration_std: NonNegative | None = None
    """Standard deviation of the policy's Gaussian during online collection; None: the learned one."""
    actor_dropout: Below1 = 0.0
    """Dropout rate of the policy's hidden units in training."""
    iql_expectile: Between0And1 = 0.7
    """Expectile τ: V approaches the mean of the Q-values of the data's actions at 0.5, and their maximum towards 1."""
    iql_temperature: NonNegative = 3.0
    """Inverse temperature β of the weights exp(β A); 0 is behaviour cloning."""

    @property
    def v(self) -> Critic:
        """The state-value module: (ψ, s) → [B]."""
        return Critic(self.critic_hidden, self.output_gain, encoder=self.encoder, precision=self.critic_precision)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The initial state, including V."""
        base_key, value_key = jax.random.split(key)
        value = self.v.init(value_key, example(spec))["params"]
        optimizer = optimizers.make(self.optimizer, self.critic_lr).init(value)
        return super().init(base_key, spec)._replace(value=value, value_optimizer=optimizer)

    def values(self, value: PyTree, observations: PyTree) -> jax.Array:
        """V(s) at observations [B, …]: [B]."""
        return apply(self.v, value, observations)

    def data_value(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """min_i Q̄_i(s, a) of the data's actions: [B]."""
        return self.q_values(state.target_critic, batch.observations, batch.actions).min(axis=0)

    def value_loss(self, value: PyTree, state: ActorCriticState, batch: Transition) -> tuple[jax.Array, jax.Array]:
        """L(V), the expectile regression of V on the target critics. Also returns the mean of V."""
        v = self.values(value, batch.observations)
        u = self.data_value(state, batch) - v
        weight = jnp.where(u < 0, 1.0 - self.iql_expectile, self.iql_expectile)
        return (weight * jnp.square(u)).mean(), v.mean()

    def advantage(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """A(s, a) = u = min_i Q̄_i(s, a) − V(s): [B]."""
        return self.data_value(state, batch) - self.values(state.value, batch.observations)

    def weights(self, advantage: jax.Array) -> jax.Array:
        """min(exp(β A), 100) / B: [B]."""
        return jnp.minimum(jnp.exp(self.iql_temperature * advantage), 100.0) / advantage.shape[0]

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · V(s′): [B]. No gradient flows."""
        return self.backup(batch, self.values(state.value, batch.next_observations))

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """Steps of V, the policy, the critics and the target critics, in this order."""
        critic_key, actor_key = jax.random.split(key)
        (value_loss, v), gradient = jax.value_and_grad(self.value_loss, has_aux=True)(state.value, state, batch)
        state = descend(state, "value", self.critic_lr, gradient, kind=self.optimizer)
        state, policy_metrics = self.improve_policy(state, batch, actor_key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        state = self.move_targets(self.step_critic(state, gradient))
        metrics |= {"critic_loss": critic_loss, "value_loss": value_loss, "v": v}
        return self.move_average(state), metrics | policy_metrics
