"""Advantage-weighted actor-critic: the policy imitates the batch's actions, those with the larger advantage more.

Nair et al. 2020 (arXiv 2006.09359), as the first author of Cal-QL ran it (nakamotoo/jaxrl, branch `dev_mitsuhiko`):

    y = r + γ · mask · max_j min_i Q̄_i(s′, a′_j),   a′_j ~ π(s′)
    V(s) = min_i Q_i(s, a′),  a′ ~ π(s)             A(s, a) = min_i Q_i(s, a) − V(s)
    L(π) = − Σ_batch softmax_batch(A / λ) log π(a|s)

The policy is a Gaussian that is not squashed, moved by AdamW on the critics that have just moved.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.actor_critic import ActorCritic, share_encoder
from calql.algorithms.bounds import Below1, Count, NonNegative, Positive, Widths
from calql.algorithms.steps import Metrics, adamw_step, weighted_imitation
from calql.networks import GaussianPolicy, apply, gaussian_log_prob, sample_gaussian
from calql.types import PyTree, Spec, Transition


class AWACState(NamedTuple):
    """What AWAC learns."""

    actor: PyTree
    """Policy parameters φ."""
    critic: PyTree
    """Critic parameters θ, leading axis [E]."""
    target_critic: PyTree
    """Polyak average of θ."""
    actor_optimizer: Any
    critic_optimizer: Any


@dataclasses.dataclass(frozen=True)
class AWAC(ActorCritic):
    """Hyper-parameters with pure methods over an `AWACState`."""

    actor_lr: Positive = 3e-4
    """AdamW learning rate of the policy."""
    actor_hidden: Widths = (256, 256, 256, 256)
    """Hidden widths of the policy."""
    num_target_actions: Count = 1
    """Actions of π(s′) whose best value enters the target."""
    awac_lambda: Positive = 1.0
    """λ, the temperature of the weights: smaller follows advantages more closely."""
    weight_decay: NonNegative = 1e-4
    """Decoupled weight decay of the policy."""
    exploration_std: NonNegative | None = None
    """Standard deviation of the noise online; None: the policy's own."""
    actor_dropout: Below1 = 0.0
    """Share of the policy's hidden units dropped in training."""

    def policy(self, action_dim: int) -> GaussianPolicy:
        """The policy module."""
        return GaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.actor_dropout, self.encoder, learns_encoder=False
        )

    def init(self, key: jax.Array, spec: Spec) -> AWACState:
        """Fresh parameters and optimiser states for observations and actions of those shapes."""
        actor, critic = self.networks(key, spec)
        state = AWACState(
            actor=actor,
            critic=critic,
            target_critic=jax.tree.map(jnp.copy, critic),
            actor_optimizer=optax.adam(self.actor_lr).init(actor),
            critic_optimizer=optax.adam(self.critic_lr).init(critic),
        )
        return share_encoder(state)

    def pi(self, actor: PyTree, observations: PyTree, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean in [−1, 1] and log-std [B, A]; with dropout where a key is given."""
        rngs = {} if key is None else {"dropout": key}
        return apply(self.policy(actor["log_std"].shape[-1]), actor, observations, rngs=rngs)

    def target_q(self, state: AWACState, batch: Transition, key: jax.Array) -> jax.Array:
        """y, by the target critics at the policy's best of `num_target_actions`: [B]. No gradient flows."""
        dist = self.pi(state.actor, batch.next_observations)
        actions = sample_gaussian(key, *dist, count=self.num_target_actions)
        value = self.q_values(state.target_critic, batch.next_observations, actions).min(axis=0)
        return self.backup(batch, value.max(axis=1))

    def advantage(self, state: AWACState, batch: Transition, key: jax.Array) -> jax.Array:
        """min Q(s, a) − min Q(s, a′), a′ ~ π(s): [B]."""
        actions = sample_gaussian(key, *self.pi(state.actor, batch.observations))
        both = jnp.stack([batch.actions, actions], axis=1)
        q = self.q_values(state.critic, batch.observations, both).min(axis=0)
        return q[:, 0] - q[:, 1]

    def actor_loss(
        self, actor: PyTree, state: AWACState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """−Σ softmax(A / λ) · log π(a|s)."""
        sample_key, dropout_key = jax.random.split(key)
        advantage = jax.lax.stop_gradient(self.advantage(state, batch, sample_key))
        log_pi = gaussian_log_prob(*self.pi(actor, batch.observations, dropout_key), batch.actions)
        loss = weighted_imitation(jax.nn.softmax(advantage / self.awac_lambda), log_pi)
        return loss, {"actor_loss": loss, "advantage": advantage.mean(), "log_pi": log_pi.mean()}

    def improve_policy(self, state: AWACState, batch: Transition, key: jax.Array) -> tuple[AWACState, Metrics]:
        """The policy's AdamW step, on the critics of `state`."""
        gradient, metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        actor, optimizer = adamw_step(self.actor_lr, self.weight_decay, gradient, state.actor_optimizer, state.actor)
        return share_encoder(state._replace(actor=actor, actor_optimizer=optimizer)), metrics

    def update(self, state: AWACState, batch: Transition, key: jax.Array) -> tuple[AWACState, Metrics]:
        """Critics and their targets first, then the policy on the new critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        state = self.move_targets(self.step_critic(state, gradient))
        state, policy_metrics = self.improve_policy(state, batch, actor_key)
        return state, metrics | {"critic_loss": critic_loss} | policy_metrics

    def act(self, state: AWACState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …]: the mean, or a sample where a key is given (online collection)."""
        mean, log_std = self.pi(state.actor, observations)
        if key is None:
            return mean
        if self.exploration_std is not None:
            log_std = jnp.full_like(log_std, jnp.log(self.exploration_std))
        return sample_gaussian(key, mean, log_std)
