"""TD3+BC: TD3 with a behaviour-cloning term in the policy loss.

Fujimoto and Gu 2021 (arXiv 2106.06860); hyper-parameters as in sfujim/TD3_BC, `TD3_BC.py` (states are not normalised):

    y = r + γ · mask · min_i Q̄_i(s′, clip(π̄(s′) + clip(ε, ±0.5), ±1)),   ε ~ N(0, 0.2²)
    L(π) = − λ mean Q_1(s, π(s)) + mean (π(s) − a)²,                      λ = 2.5 / mean |Q_1(s, π(s))|

The policy and both target networks are updated once per two updates of the critics.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.actor_critic import ActorCritic, ActorCriticState
from calql.algorithms.bounds import Count, NonNegative, Positive, Widths
from calql.algorithms.steps import Metrics, apply_every, descend
from calql.networks import TanhGaussianPolicy, action_dim_of, apply
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class TD3BC(ActorCritic):
    """TD3+BC: hyper-parameters, and pure methods over an `ActorCriticState`."""

    actor_lr: Positive = 3e-4
    """Adam learning rate of the policy."""
    critic_hidden: Widths = (256, 256)
    """Hidden widths of each critic."""
    actor_every: Count = 2
    """Update the policy and both target networks once per this many critic updates, together with the last of them
    ("policy delay")."""
    td3_bc_alpha: NonNegative = 2.5
    """Weight of the Q-value relative to the behaviour-cloning term, the 2.5 in λ."""
    target_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions."""
    target_noise_clip: NonNegative = 0.5
    """Maximum absolute value of the noise on target actions."""
    exploration_std: NonNegative = 0.1
    """Standard deviation of the action noise during online collection."""

    def policy(self, action_dim: int) -> TanhGaussianPolicy:
        """SAC's policy module; only the tanh of its mean is used."""
        return TanhGaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, encoder=self.encoder, learns_encoder=False
        )

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The initial state; the target policy is a copy of the policy."""
        state = super().init(key, spec)
        return state._replace(target_actor=jax.tree.map(jnp.copy, state.actor))

    def actions(self, actor: PyTree, observations: PyTree) -> jax.Array:
        """π(s) at observations [B, …]: [B, A]."""
        mean, _ = apply(self.policy(action_dim_of(actor)), actor, observations)
        return jnp.tanh(mean)

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y with clipped noise on the target policy's action: [B]. No gradient flows."""
        noise = self.target_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        actions = jnp.clip(self.actions(state.target_actor, batch.next_observations) + noise, -1.0, 1.0)
        value = self.q_values(state.target_critic, batch.next_observations, actions).min(axis=0)
        return self.backup(batch, value)

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """−λ mean Q_1(s, π(s)) + mean (π(s) − a)². Also returns metrics."""
        actions = self.actions(actor, batch.observations)
        q = self.q_values(state.critic, batch.observations, actions)[0]
        scale = self.td3_bc_alpha / jax.lax.stop_gradient(jnp.abs(q).mean())
        distance = jnp.square(actions - batch.actions).mean()
        loss = distance - scale * q.mean()
        return loss, {"actor_loss": loss, "bc_loss": distance}

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """Optimiser step of the policy, followed by Polyak updates of the target policy and the target critics."""
        gradient, metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        state = descend(state, "actor", self.actor_lr, gradient, kind=self.optimizer)
        target = optax.incremental_update(state.actor, state.target_actor, self.tau)
        return self.move_targets(state._replace(target_actor=target)), metrics

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """A step of the critics, and once per `actor_every` updates one of the policy with the updated critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        moved = self.step_critic(state, gradient)
        moved, policy_metrics = apply_every(
            self.actor_every, state.critic_optimizer, lambda: self.improve_policy(moved, batch, actor_key), moved
        )
        return self.move_average(moved), metrics | {"critic_loss": critic_loss} | policy_metrics

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …], with noise if a key is given."""
        actions = self.actions(self.acting(state), observations)
        if key is None:
            return actions
        noise = self.exploration_std * jax.random.normal(key, actions.shape)
        return jnp.clip(actions + noise, -1.0, 1.0)
