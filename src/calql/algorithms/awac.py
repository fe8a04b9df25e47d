"""Advantage-weighted actor-critic: the policy imitates the batch's actions, those with the larger advantage more.

Nair et al. 2020 (arXiv 2006.09359), as the first author of Cal-QL ran it (nakamotoo/jaxrl, branch `dev_mitsuhiko`):

    V(s) = min_i Q_i(s, a′),  a′ ~ π(s)          A(s, a) = min_i Q_i(s, a) − V(s)
    L(π) = − Σ_batch softmax_batch(A / λ) log π(a|s)

The critics are SAC's with one target action and without entropy; the policy is a Gaussian that is not squashed, moved
by AdamW on the critics that have just moved.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms.sac import SAC, ActorCriticState
from calql.algorithms.steps import Metrics
from calql.networks import GaussianPolicy, gaussian_log_prob
from calql.types import PyTree, Transition


@dataclasses.dataclass(frozen=True)
class AWAC(SAC):
    """SAC's critics with a policy of weighted imitation."""

    actor_lr: float = 3e-4
    """AdamW learning rate of the policy."""
    actor_hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Hidden widths of the policy."""
    num_target_actions: int = 1
    """Actions of π(s′) whose best value enters the target."""
    awac_lambda: float = 1.0
    """λ, the temperature of the weights: smaller follows advantages more closely."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of the policy."""
    exploration_std: float | None = None
    """Standard deviation of the noise online; None: the policy's own."""
    actor_dropout: float = 0.0
    """Share of the policy's hidden units dropped in training."""

    def policy(self, action_dim: int) -> GaussianPolicy:
        """The policy module."""
        return GaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.actor_dropout, self.encoder, learns_encoder=False
        )

    def pi(self, actor: PyTree, observations: PyTree, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean in [−1, 1] and log-std [B, A]; with dropout where a key is given."""
        rngs = {} if key is None else {"dropout": key}
        return self.policy(actor["log_std"].shape[-1]).apply({"params": actor}, observations, rngs=rngs)

    def sample(self, key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None) -> tuple:
        """Actions of the Gaussian, clipped to [−1, 1], and their log densities before that."""
        if count is not None:
            mean, log_std = mean[:, None, :], log_std[:, None, :]
        shape = mean.shape if count is None else (mean.shape[0], count, mean.shape[-1])
        actions = mean + jnp.exp(log_std) * jax.random.normal(key, shape)
        return jnp.clip(actions, -1.0, 1.0), gaussian_log_prob(mean, log_std, actions)

    def advantage(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """min Q(s, a) − min Q(s, a′), a′ ~ π(s): [B]."""
        actions, _ = self.sample(key, *self.pi(state.actor, batch.observations))
        both = jnp.stack([batch.actions, actions], axis=1)
        q = self.q_values(state.critic, batch.observations, both).min(axis=0)
        return q[:, 0] - q[:, 1]

    def weights(self, advantage: jax.Array) -> jax.Array:
        """softmax over the batch of A / λ: [B], of sum 1."""
        return jax.nn.softmax(advantage / self.awac_lambda)

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """−Σ weight · log π(a|s)."""
        sample_key, dropout_key = jax.random.split(key)
        advantage = jax.lax.stop_gradient(self.advantage(state, batch, sample_key))
        log_pi = gaussian_log_prob(*self.pi(actor, batch.observations, dropout_key), batch.actions)
        loss = -(self.weights(advantage) * log_pi).sum()
        return loss, {"actor_loss": loss, "advantage": advantage.mean(), "log_pi": log_pi.mean()}

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """AdamW: the policy shrinks by lr · decay, then takes Adam's step."""
        gradient, metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        shrunk = jax.tree.map(lambda x: (1.0 - self.actor_lr * self.weight_decay) * x, state.actor)
        return self.step_actor(state._replace(actor=shrunk), gradient).sharing_encoder(), metrics

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """Critics first, then the policy on the new critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        state, about_policy = self.improve_policy(self.step_critic(state, gradient), batch, actor_key)
        return state, metrics | {"critic_loss": critic_loss} | about_policy

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …]: the mean, or a sample where a key is given (online collection)."""
        mean, log_std = self.pi(state.actor, observations)
        if key is None:
            return mean
        if self.exploration_std is not None:
            log_std = jnp.full_like(log_std, jnp.log(self.exploration_std))
        return self.sample(key, mean, log_std)[0]
