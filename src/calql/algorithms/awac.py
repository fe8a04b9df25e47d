"""Advantage-weighted actor-critic: the policy imitates the actions of the batch, weighted by their advantages.

Nair et al. 2020 (arXiv 2006.09359), as in the code of Cal-QL's first author (nakamotoo/jaxrl, branch `dev_mitsuhiko`):

    y = r + γ · mask · max_j min_i Q̄_i(s′, a′_j),   a′_j ~ π(s′)
    V(s) = min_i Q_i(s, a′),  a′ ~ π(s)             A(s, a) = min_i Q_i(s, a) − V(s)
    L(π) = − Σ_batch softmax_batch(A / λ) log π(a|s)

The critics are updated first, then the policy with the updated critics.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import Below1, Count, NonNegative, Positive, Widths
from calql.algorithms.imitation import WeightedImitation
from calql.algorithms.steps import Metrics
from calql.networks import sample_gaussian
from calql.types import Transition


@dataclasses.dataclass(frozen=True)
class AWAC(WeightedImitation):
    """AWAC: hyper-parameters, and pure methods over an `ActorCriticState`."""

    actor_lr: Positive = 3e-4
    """AdamW learning rate of the policy."""
    actor_hidden: Widths = (256, 256, 256, 256)
    """Hidden widths of the policy."""
    num_target_actions: Count = 1
    """Number of actions sampled from π(s′), of which the one with the highest value enters the target."""
    awac_lambda: Positive = 1.0
    """λ, temperature of the weights: the smaller, the more the weights depend on the advantages."""
    weight_decay: NonNegative = 1e-4
    """Decoupled weight decay of the policy."""
    exploration_std: NonNegative | None = None
    """Standard deviation of the policy's Gaussian during online collection; None: the learned one."""
    actor_dropout: Below1 = 0.0
    """Dropout rate of the policy's hidden units in training."""

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · max_j min_i Q̄_i(s′, a′_j), a′_j ~ π(s′): [B]. No gradient flows."""
        dist = self.pi(state.actor, batch.next_observations)
        actions = sample_gaussian(key, *dist, count=self.num_target_actions)
        value = self.q_values(state.target_critic, batch.next_observations, actions).min(axis=0)
        return self.backup(batch, value.max(axis=1))

    def advantage(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """A(s, a) = min_i Q_i(s, a) − min_i Q_i(s, a′), a′ ~ π(s): [B]."""
        actions = sample_gaussian(key, *self.pi(state.actor, batch.observations))
        both = jnp.stack([batch.actions, actions], axis=1)
        q = self.q_values(state.critic, batch.observations, both).min(axis=0)
        return q[:, 0] - q[:, 1]

    def weights(self, advantage: jax.Array) -> jax.Array:
        """softmax(A / λ) over the batch: [B]."""
        return jax.nn.softmax(advantage / self.awac_lambda)

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """Steps of the critics and their targets, then of the policy with the updated critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        state = self.move_targets(self.step_critic(state, gradient))
        state, policy_metrics = self.improve_policy(state, batch, actor_key)
        return self.move_average(state), metrics | {"critic_loss": critic_loss} | policy_metrics
