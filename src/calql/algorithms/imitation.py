"""The common part of AWAC and IQL: a policy that imitates the actions of the batch, weighted by their advantages.

    L(π) = − Σ_batch w(A) log π(a|s)

The policy is a Gaussian without a tanh on its samples, trained with AdamW. A subclass adds the advantage A, the weights
w, the target of the critics and the order of the steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCritic, ActorCriticState, share_encoder
from calql.algorithms.steps import Metrics, descend
from calql.networks import GaussianPolicy, apply, gaussian_log_prob, sample_gaussian
from calql.types import PyTree, Transition


class WeightedImitation(ActorCritic):
    """The policy of AWAC and IQL. Both define the fields below with their own defaults."""

    weight_decay: float
    exploration_std: float | None
    actor_dropout: float

    def advantage(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """A(s, a) of the actions of the batch: [B]."""
        raise NotImplementedError

    def weights(self, advantage: jax.Array) -> jax.Array:
        """Weights w(A) of the batch: [B] → [B]."""
        raise NotImplementedError

    def policy(self, action_dim: int) -> GaussianPolicy:
        """The policy module."""
        return GaussianPolicy(self.actor_hidden, action_dim, self.output_gain, self.actor_dropout, self.encoder)

    def pi(self, actor: PyTree, observations: PyTree, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean in [−1, 1] and log-std [B, A] of the policy at observations [B, …]; with dropout if a key is given."""
        rngs = {} if key is None else {"dropout": key}
        return apply(self.policy(actor["log_std"].shape[-1]), actor, observations, rngs=rngs)

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """−Σ w(A) · log π(a|s) over the batch. Also returns metrics."""
        sample_key, dropout_key = jax.random.split(key)
        advantage = jax.lax.stop_gradient(self.advantage(state, batch, sample_key))
        log_pi = gaussian_log_prob(*self.pi(actor, batch.observations, dropout_key), batch.actions)
        loss = -(self.weights(advantage) * log_pi).sum()
        return loss, {"actor_loss": loss, "advantage": advantage.mean(), "log_pi": log_pi.mean()}

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """Optimiser step of the policy with decoupled weight decay, with the critics of `state`."""
        gradient, metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        state = descend(state, "actor", self.actor_lr, gradient, self.weight_decay, self.optimizer)
        return share_encoder(state), metrics

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …]: the mean, or a sample if a key is given."""
        mean, log_std = self.pi(self.acting(state), observations)
        if key is None:
            return mean
        if self.exploration_std is not None:
            log_std = jnp.full_like(log_std, jnp.log(self.exploration_std))
        return sample_gaussian(key, mean, log_std)
