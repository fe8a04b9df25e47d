"""Gaussian policies, tanh-squashed and not, with sampling and log-densities as plain functions."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import Encoder
from calql.networks.mlp import MLP
from calql.types import PyTree

LOG_STD_RANGE = (-20.0, 2.0)
"""Clip of the log-std of `TanhGaussianPolicy`."""
GAUSSIAN_LOG_STD_RANGE = (-5.0, 2.0)
"""Clip of the log-std of `GaussianPolicy`."""


class TanhGaussianPolicy(nn.Module):
    """Tanh-squashed diagonal Gaussian: one MLP gives mean and raw, and log-std = m · raw + o with learned scalars m, o.

    Source: nakamotoo/Cal-QL, `JaxCQL/model.py` (m starts at 1, o at −1; log-std clipped to [−20, 2]).
    """

    hidden: Sequence[int]
    """Width of each hidden layer."""
    action_dim: int
    """Number of action dimensions A."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layer."""
    log_std_multiplier: float = 1.0
    """Initial value of the learned scalar m."""
    log_std_offset: float = -1.0
    """Initial value of the learned scalar o."""
    encoder: str = "small"
    """Kind of the `Encoder` of images."""
    learns_encoder: bool = True
    """Whether gradients of the policy reach the encoder; False: only the critics train the encoder."""
    layer_norm: bool = False
    """Layer normalisation in each hidden layer."""

    @nn.compact
    def __call__(self, observation: PyTree) -> tuple[jax.Array, jax.Array]:
        """Observations [B, …] → mean [B, A] and log-std [B, A] of the Gaussian before the tanh."""
        state = Encoder(self.encoder, name="encoder")(observation)
        state = state if self.learns_encoder else jax.lax.stop_gradient(state)
        raw = MLP(self.hidden, 2 * self.action_dim, self.output_gain, self.layer_norm, name="mlp")(state)
        mean, log_std = jnp.split(raw, 2, axis=-1)
        multiplier = self.param("log_std_multiplier", nn.initializers.constant(self.log_std_multiplier), ())
        offset = self.param("log_std_offset", nn.initializers.constant(self.log_std_offset), ())
        return mean, jnp.clip(multiplier * log_std + offset, *LOG_STD_RANGE)


class GaussianPolicy(nn.Module):
    """Diagonal Gaussian whose samples are not squashed: a tanh bounds the mean, and the log-std does not depend on the
    state.

    Source: ikostrikov/implicit_q_learning, `policy.py`; ikostrikov/jaxrl, `networks/policies.py`.
    """

    hidden: Sequence[int]
    """Width of each hidden layer."""
    action_dim: int
    """Number of action dimensions A."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layer."""
    dropout: float = 0.0
    """Dropout rate of hidden units in training."""
    encoder: str = "small"
    """Kind of the image `Encoder`, which only the critics train."""

    @nn.compact
    def __call__(self, observation: PyTree) -> tuple[jax.Array, jax.Array]:
        """Observations [B, …] → mean [B, A] in [−1, 1] and log-std [B, A] of the Gaussian."""
        state = jax.lax.stop_gradient(Encoder(self.encoder, name="encoder")(observation))
        mlp = MLP(self.hidden, self.action_dim, self.output_gain, dropout=self.dropout, name="mlp")
        mean = jnp.tanh(mlp(state))
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return mean, jnp.broadcast_to(jnp.clip(log_std, *GAUSSIAN_LOG_STD_RANGE), mean.shape)


def action_dim_of(actor: PyTree) -> int:
    """Number of action dimensions A of a `TanhGaussianPolicy` with these parameters; its output layer has 2 A units."""
    return actor["mlp"]["output"]["bias"].shape[-1] // 2


def gaussian_log_prob(mean: jax.Array, log_std: jax.Array, actions: jax.Array) -> jax.Array:
    """Log-density of actions under a diagonal Gaussian, summed over the last axis: [..., A] → [...]."""
    return _normal_log_prob((actions - mean) * jnp.exp(-log_std), log_std)


def gaussian_tanh_log_prob(mean: jax.Array, log_std: jax.Array, pre_tanh: jax.Array) -> jax.Array:
    """Log-density log π(tanh u) of a tanh-squashed Gaussian, for u = `pre_tanh`: [..., A] → [...]."""
    return gaussian_log_prob(mean, log_std, pre_tanh) - _log_derivative_of_tanh(pre_tanh)


def _normal_log_prob(noise: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log-density of mean + std · noise under a diagonal Gaussian, summed over the last axis: [..., A] → [...]."""
    return (-0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum(axis=-1)


def _log_derivative_of_tanh(u: jax.Array) -> jax.Array:
    """Σ log(1 − tanh²u) over the last axis, as 2 (log 2 − u − softplus(−2u)), which is finite for large |u|."""
    return (2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))).sum(axis=-1)


def sample_actions(
    key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Sample from a tanh-squashed Gaussian with mean and log-std [B, A] (before the tanh).

    Returns actions [B, A] and log-densities [B], or with `count` = N actions per state [B, N, A] and [B, N].
    """
    mean, log_std, noise = _draw(key, mean, log_std, count)
    pre_tanh = mean + jnp.exp(log_std) * noise
    # Computed from the noise, because (pre_tanh − mean) / std loses precision for small std.
    return jnp.tanh(pre_tanh), _normal_log_prob(noise, log_std) - _log_derivative_of_tanh(pre_tanh)


def sample_gaussian(key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None) -> jax.Array:
    """Sample from a Gaussian with mean and log-std [B, A], clipped to [−1, 1]: [B, A], or with `count` = N actions per
    state [B, N, A]."""
    mean, log_std, noise = _draw(key, mean, log_std, count)
    return jnp.clip(mean + jnp.exp(log_std) * noise, -1.0, 1.0)


def _draw(key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None) -> tuple[jax.Array, ...]:
    """Standard normal noise [B, A] or [B, count, A], after mean and log-std in shapes that broadcast to it."""
    shape = mean.shape
    if count is not None:
        mean, log_std, shape = mean[:, None, :], log_std[:, None, :], (mean.shape[0], count, mean.shape[-1])
    return mean, log_std, jax.random.normal(key, shape)
