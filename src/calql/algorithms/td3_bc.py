"""TD3+BC: the deterministic policy gradient with a pull towards the data's action.

Fujimoto and Gu 2021 (arXiv 2106.06860); settings after sfujim/TD3_BC, `TD3_BC.py` (states are not normalised):

    y = r + γ · mask · min_i Q̄_i(s′, clip(π̄(s′) + clip(ε, ±0.5), ±1)),   ε ~ N(0, 0.2²)
    L(π) = − λ mean Q_1(s, π(s)) + mean (π(s) − a)²,                      λ = 2.5 / mean |Q_1(s, π(s))|

The policy and both targets move at every second update of the critics.
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
    """Hyper-parameters with pure methods over an `ActorCriticState`."""

    actor_lr: Positive = 3e-4
    """Adam learning rate of the policy."""
    critic_hidden: Widths = (256, 256)
    """Hidden widths of each critic."""
    actor_every: Count = 2
    """Update the policy and both targets once per this many critic updates, together with the last ("policy delay")."""
    td3_bc_alpha: NonNegative = 2.5
    """Weight of the value against the pull to the data."""
    target_noise: NonNegative = 0.2
    """Standard deviation of the noise on target actions."""
    target_noise_clip: NonNegative = 0.5
    """Largest noise on target actions."""
    exploration_std: NonNegative = 0.1
    """Standard deviation of the noise online."""

    def policy(self, action_dim: int) -> TanhGaussianPolicy:
        """SAC's policy module, of which the tanh of the mean is the policy here."""
        return TanhGaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, encoder=self.encoder, learns_encoder=False
        )

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """A fresh state; the target policy starts as the policy."""
        state = super().init(key, spec)
        return state._replace(target_actor=jax.tree.map(jnp.copy, state.actor))

    def actions(self, actor: PyTree, observations: PyTree) -> jax.Array:
        """π(s) [B, A]."""
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
        """−λ mean Q_1(s, π(s)) + mean (π(s) − a)²."""
        actions = self.actions(actor, batch.observations)
        q = self.q_values(state.critic, batch.observations, actions)[0]
        scale = self.td3_bc_alpha / jax.lax.stop_gradient(jnp.abs(q).mean())
        distance = jnp.square(actions - batch.actions).mean()
        loss = distance - scale * q.mean()
        return loss, {"actor_loss": loss, "bc_loss": distance}

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """The policy's step, after which both targets move."""
        gradient, metrics = jax.grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        state = descend(state, "actor", self.actor_lr, gradient)
        target = optax.incremental_update(state.actor, state.target_actor, self.tau)
        return self.move_targets(state._replace(target_actor=target)), metrics

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """Critics, and every second time the policy on the new critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        moved = self.step_critic(state, gradient)
        moved, policy_metrics = apply_every(
            self.actor_every, state.critic_optimizer, lambda: self.improve_policy(moved, batch, actor_key), moved
        )
        return moved, metrics | {"critic_loss": critic_loss} | policy_metrics

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …], with noise where a key is given (online collection)."""
        actions = self.actions(state.actor, observations)
        if key is None:
            return actions
        noise = self.exploration_std * jax.random.normal(key, actions.shape)
        return jnp.clip(actions + noise, -1.0, 1.0)
