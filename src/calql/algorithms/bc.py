"""Behaviour cloning with SAC's policy network, a baseline that shows how good the behaviour in the data is.

Maximum likelihood of the data's actions under the tanh-squashed Gaussian: L(π) = − mean log π(a|s).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.bounds import Below1, EncoderKind, Finite, NonNegative, Positive, Widths
from calql.algorithms.steps import Metrics, descend, example
from calql.networks import TanhGaussianPolicy, action_dim_of, apply, gaussian_tanh_log_prob, sample_actions
from calql.types import PyTree, Spec, Transition


class BCState(NamedTuple):
    """Everything that behaviour cloning learns."""

    actor: PyTree
    """Policy parameters φ."""
    actor_optimizer: Any


@dataclasses.dataclass(frozen=True)
class BC:
    """Behaviour cloning: hyper-parameters, and pure methods over a `BCState`."""

    discount: Below1 = 0.99
    """Discount factor γ of the reported Monte-Carlo returns; the loss does not use it."""
    actor_lr: Positive = 1e-4
    """Adam learning rate of the policy."""
    actor_hidden: Widths = (256, 256)
    """Hidden widths of the policy."""
    output_gain: NonNegative = 0.01
    """Gain of the orthogonal initialisation of the output layer."""
    log_std_multiplier: Finite = 1.0
    """Initial value of the learned m in log-std = m · raw + o."""
    log_std_offset: Finite = -1.0
    """Initial value of the learned o in log-std = m · raw + o."""
    encoder: EncoderKind = "small"
    """Image encoder, see `Encoder`."""

    context = 0
    """Batches are transitions."""

    def policy(self, action_dim: int) -> TanhGaussianPolicy:
        """The policy module."""
        return TanhGaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.log_std_multiplier, self.log_std_offset, self.encoder
        )

    def init(self, key: jax.Array, spec: Spec) -> BCState:
        """Initial parameters and optimiser state for observations and actions of the shapes in `spec`."""
        policy, observation = self.policy(spec.action_dim), example(spec)
        # Same initial encoder as in the other rules, where it belongs to the critics and gets the second key.
        actor, second = (policy.init(k, observation)["params"] for k in jax.random.split(key))
        actor = {**actor, **{name: part for name, part in second.items() if name == "encoder"}}
        return BCState(actor, optax.adam(self.actor_lr).init(actor))

    def pi(self, actor: PyTree, observations: PyTree) -> tuple[jax.Array, jax.Array]:
        """Mean and log-std [B, A] of the policy at observations [B, …], before the tanh."""
        return apply(self.policy(action_dim_of(actor)), actor, observations)

    def actor_loss(
        self, actor: PyTree, state: BCState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """−mean log π(a|s) over the batch. Also returns log π [B]."""
        mean, log_std = self.pi(actor, batch.observations)
        log_pi = gaussian_tanh_log_prob(mean, log_std, jnp.arctanh(jnp.clip(batch.actions, -0.99999, 0.99999)))
        return -log_pi.mean(), log_pi

    def update(self, state: BCState, batch: Transition, key: jax.Array) -> tuple[BCState, Metrics]:
        """One Adam step of the policy on a batch [B]."""
        (loss, log_pi), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        return descend(state, "actor", self.actor_lr, gradient), {"actor_loss": loss, "log_pi": log_pi.mean()}

    def act(self, state: BCState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …]: tanh of the mean, or a sample if a key is given."""
        mean, log_std = self.pi(state.actor, observations)
        return jnp.tanh(mean) if key is None else sample_actions(key, mean, log_std)[0]
