"""Behaviour cloning with the same policy network: the yardstick of how good the data's own behaviour is.

Maximum likelihood of the data's actions under the tanh-squashed Gaussian. The critics of the shared state never move.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from calql.algorithms.sac import SAC, ActorCriticState
from calql.algorithms.steps import Metrics, adam_step
from calql.networks import gaussian_tanh_log_prob
from calql.types import PyTree, Transition


@dataclasses.dataclass(frozen=True)
class BC(SAC):
    """SAC's policy and records; only `actor_loss` and `update` differ."""

    learns_values: ClassVar[bool] = False

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """−mean log π(a|s) over the data. Also returns log π [B]."""
        mean, log_std = self.pi(actor, batch.observations)
        log_pi = gaussian_tanh_log_prob(mean, log_std, jnp.arctanh(jnp.clip(batch.actions, -0.99999, 0.99999)))
        return -log_pi.mean(), log_pi

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """One Adam step of the policy on the batch [B]."""
        (loss, log_pi), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        actor, optimizer = adam_step(self.actor_lr, gradient, state.actor_optimizer, state.actor)
        return state._replace(actor=actor, actor_optimizer=optimizer), {"actor_loss": loss, "log_pi": log_pi.mean()}
