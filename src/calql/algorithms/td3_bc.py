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

from calql.algorithms.sac import SAC, ActorCriticState
from calql.algorithms.steps import Metrics, adam_step, every
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class TD3BC(SAC):
    """SAC's networks with a deterministic policy: the tanh of the mean."""

    actor_lr: float = 3e-4
    """Adam learning rate of the policy."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of each critic."""
    actor_every: int = 2
    """Critic updates a policy update ("policy delay")."""
    td3_bc_alpha: float = 2.5
    """Weight of the value against the pull to the data."""
    target_noise: float = 0.2
    """Standard deviation of the noise on target actions."""
    target_noise_clip: float = 0.5
    """Largest noise on target actions."""
    exploration_std: float = 0.1
    """Standard deviation of the noise online."""

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """Fresh parameters and optimiser states; the target policy starts as the policy."""
        state = super().init(key, spec)
        return state._replace(target_actor=jax.tree.map(jnp.copy, state.actor))

    def actions(self, actor: PyTree, observations: PyTree) -> jax.Array:
        """π(s) [B, A]."""
        return jnp.tanh(self.pi(actor, observations)[0])

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y with clipped noise on the target policy's action: [B]. No gradient flows."""
        noise = self.target_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -self.target_noise_clip, self.target_noise_clip)
        actions = jnp.clip(self.actions(state.target_actor, batch.next_observations) + noise, -1.0, 1.0)
        value = self.q_values(state.target_critic, batch.next_observations, actions).min(axis=0)
        return jax.lax.stop_gradient(batch.rewards + self.discount * batch.masks * value)

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
        state = self.step_actor(state, gradient)
        return state._replace(
            target_actor=optax.incremental_update(state.actor, state.target_actor, self.tau),
            target_critic=optax.incremental_update(state.critic, state.target_critic, self.tau),
        ), metrics

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """Critics, and every second time the policy on the new critics."""
        critic_key, actor_key = jax.random.split(key)
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        critic, optimizer = adam_step(self.critic_lr, gradient, state.critic_optimizer, state.critic)
        moved = state._replace(critic=critic, critic_optimizer=optimizer).sharing_encoder()
        moved, about_policy = every(
            self.actor_every, state.critic_optimizer, lambda: self.improve_policy(moved, batch, actor_key), moved
        )
        return moved, metrics | {"critic_loss": critic_loss} | about_policy

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …], with noise where a key is given (online collection)."""
        actions = self.actions(state.actor, observations)
        if key is None:
            return actions
        noise = self.exploration_std * jax.random.normal(key, actions.shape)
        return jnp.clip(actions + noise, -1.0, 1.0)
