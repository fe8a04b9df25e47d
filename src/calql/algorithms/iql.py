"""Implicit Q-learning: values of the data's better actions by expectile regression; no action is ever queried outside.

Kostrikov et al. 2021 (arXiv 2110.06169), as the first author of Cal-QL ran it (nakamotoo/implicit_q_learning, branch
`dev_mitsuhiko`), in this order, each step on what the one before has made:

    L(V) = mean |τ − 1[u < 0]| u²,                u = min_i Q̄_i(s, a) − V(s)
    L(π) = − mean min(exp(β u), 100) log π(a|s)
    L(Q) = Σ_i mean (Q_i(s, a) − r − γ · mask · V(s′))²
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.actor_critic import ActorCritic, share_encoder
from calql.algorithms.bounds import Below1, Between0And1, NonNegative, Positive, Widths
from calql.algorithms.steps import Metrics, adam_step, adamw_step, example, weighted_imitation
from calql.networks import GaussianPolicy, Value, apply, gaussian_log_prob, sample_gaussian
from calql.types import PyTree, Spec, Transition


class IQLState(NamedTuple):
    """What IQL learns."""

    actor: PyTree
    """Policy parameters φ."""
    critic: PyTree
    """Critic parameters θ, leading axis [E]."""
    target_critic: PyTree
    """Polyak average of θ."""
    value: PyTree
    """Parameters ψ of V."""
    actor_optimizer: Any
    critic_optimizer: Any
    value_optimizer: Any


@dataclasses.dataclass(frozen=True)
class IQL(ActorCritic):
    """Hyper-parameters with pure methods over an `IQLState`."""

    actor_lr: Positive = 3e-4
    """AdamW learning rate of the policy."""
    critic_lr: Positive = 3e-4
    """Adam learning rate of the critics and of V."""
    critic_hidden: Widths = (256, 256)
    """Hidden widths of the critics and of V."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of the policy."""
    exploration_std: NonNegative | None = None
    """Standard deviation of the noise online; None: the policy's own."""
    actor_dropout: Below1 = 0.0
    """Share of the policy's hidden units dropped in training."""
    iql_expectile: Between0And1 = 0.7
    """τ: 0.5 is the mean of the data's values, 1 their maximum."""
    iql_temperature: NonNegative = 3.0
    """β, an inverse temperature: 0 clones the data."""

    def policy(self, action_dim: int) -> GaussianPolicy:
        """The policy module."""
        return GaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.actor_dropout, self.encoder, learns_encoder=False
        )

    @property
    def v(self) -> Value:
        """The state-value module: (ψ, s) → [B]."""
        return Value(self.critic_hidden, self.output_gain, encoder=self.encoder)

    def init(self, key: jax.Array, spec: Spec) -> IQLState:
        """Fresh parameters and optimiser states for observations and actions of those shapes."""
        base_key, value_key = jax.random.split(key)
        actor, critic = self.networks(base_key, spec)
        value = self.v.init(value_key, example(spec))["params"]
        state = IQLState(
            actor=actor,
            critic=critic,
            target_critic=jax.tree.map(jnp.copy, critic),
            value=value,
            actor_optimizer=optax.adam(self.actor_lr).init(actor),
            critic_optimizer=optax.adam(self.critic_lr).init(critic),
            value_optimizer=optax.adam(self.critic_lr).init(value),
        )
        return share_encoder(state)

    def pi(self, actor: PyTree, observations: PyTree, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean in [−1, 1] and log-std [B, A]; with dropout where a key is given."""
        rngs = {} if key is None else {"dropout": key}
        return apply(self.policy(actor["log_std"].shape[-1]), actor, observations, rngs=rngs)

    def values(self, value: PyTree, observations: PyTree) -> jax.Array:
        """V at [B, …] → [B]."""
        return apply(self.v, value, observations)

    # -- losses, in the order of their steps ---------------------------------------------------------------------------

    def data_value(self, state: IQLState, batch: Transition) -> jax.Array:
        """min_i Q̄_i(s, a) of the data's actions: [B]."""
        return self.q_values(state.target_critic, batch.observations, batch.actions).min(axis=0)

    def value_loss(self, value: PyTree, state: IQLState, batch: Transition) -> tuple[jax.Array, jax.Array]:
        """Expectile regression of V on the target critics. Also returns the mean of V."""
        v = self.values(value, batch.observations)
        u = self.data_value(state, batch) - v
        weight = jnp.where(u < 0, 1.0 - self.iql_expectile, self.iql_expectile)
        return (weight * jnp.square(u)).mean(), v.mean()

    def weights(self, advantage: jax.Array) -> jax.Array:
        """min(exp(β A), 100) / B: [B]."""
        return jnp.minimum(jnp.exp(self.iql_temperature * advantage), 100.0) / advantage.shape[0]

    def actor_loss(
        self, actor: PyTree, state: IQLState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """−Σ weight · log π(a|s), weighted by u = min_i Q̄_i(s, a) − V(s)."""
        _, dropout_key = jax.random.split(key)
        advantage = self.data_value(state, batch) - self.values(state.value, batch.observations)
        advantage = jax.lax.stop_gradient(advantage)
        log_pi = gaussian_log_prob(*self.pi(actor, batch.observations, dropout_key), batch.actions)
        loss = weighted_imitation(self.weights(advantage), log_pi)
        return loss, {"actor_loss": loss, "advantage": advantage.mean(), "log_pi": log_pi.mean()}

    def target_q(self, state: IQLState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · V(s′): [B]. No gradient flows."""
        return self.backup(batch, self.values(state.value, batch.next_observations))

    # -- the step ------------------------------------------------------------------------------------------------------

    def update(self, state: IQLState, batch: Transition, key: jax.Array) -> tuple[IQLState, Metrics]:
        """V, then the policy, then the critics, then their targets."""
        critic_key, actor_key = jax.random.split(key)
        (value_loss, v), gradient = jax.value_and_grad(self.value_loss, has_aux=True)(state.value, state, batch)
        value, optimizer = adam_step(self.critic_lr, gradient, state.value_optimizer, state.value)
        state = state._replace(value=value, value_optimizer=optimizer)
        gradient, policy_metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, actor_key)
        actor, optimizer = adamw_step(self.actor_lr, self.weight_decay, gradient, state.actor_optimizer, state.actor)
        state = share_encoder(state._replace(actor=actor, actor_optimizer=optimizer))
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        state = self.move_targets(self.step_critic(state, gradient))
        metrics |= {"critic_loss": critic_loss, "value_loss": value_loss, "v": v}
        return state, metrics | policy_metrics

    def act(self, state: IQLState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …]: the mean, or a sample where a key is given (online collection)."""
        mean, log_std = self.pi(state.actor, observations)
        if key is None:
            return mean
        if self.exploration_std is not None:
            log_std = jnp.full_like(log_std, jnp.log(self.exploration_std))
        return sample_gaussian(key, mean, log_std)
