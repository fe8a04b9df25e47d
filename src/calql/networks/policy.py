"""The tanh-squashed diagonal Gaussian policy, and its sampling and log-density as plain functions."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import Encoder
from calql.networks.mlp import MLP
from calql.types import PyTree

LOG_STD_RANGE = (-20.0, 2.0)
GAUSSIAN_LOG_STD_RANGE = (-5.0, 2.0)


class TanhGaussianPolicy(nn.Module):
    """One network for mean and log-std; log-std passes through a learned affine map m · raw + o.

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
    """Whether gradients of the policy reach the encoder; False: only the critics train it."""

    @nn.compact
    def __call__(self, observation: PyTree) -> tuple[jax.Array, jax.Array]:
        """[B, …] → mean [B, A] and log-std [B, A] of the Gaussian before the tanh."""
        state = Encoder(self.encoder, name="encoder")(observation)
        state = state if self.learns_encoder else jax.lax.stop_gradient(state)
        raw = MLP(self.hidden, 2 * self.action_dim, self.output_gain, name="mlp")(state)
        mean, log_std = jnp.split(raw, 2, axis=-1)
        multiplier = self.param("log_std_multiplier", nn.initializers.constant(self.log_std_multiplier), ())
        offset = self.param("log_std_offset", nn.initializers.constant(self.log_std_offset), ())
        return mean, jnp.clip(multiplier * log_std + offset, *LOG_STD_RANGE)


class GaussianPolicy(nn.Module):
    """A Gaussian with a tanh on its mean, not squashed, and one log-std per dimension for all states.

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
    """Kind of the `Encoder` of images, which only the critics train."""

    @nn.compact
    def __call__(self, observation: PyTree) -> tuple[jax.Array, jax.Array]:
        """[B, …] → mean [B, A] in [−1, 1] and log-std [B, A] of the Gaussian."""
        state = jax.lax.stop_gradient(Encoder(self.encoder, name="encoder")(observation))
        mlp = MLP(self.hidden, self.action_dim, self.output_gain, dropout=self.dropout, name="mlp")
        mean = jnp.tanh(mlp(state))
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return mean, jnp.broadcast_to(jnp.clip(log_std, *GAUSSIAN_LOG_STD_RANGE), mean.shape)


def action_dim_of(actor: PyTree) -> int:
    """Number of action dimensions of a `TanhGaussianPolicy` with these parameters: mean and log-std share a layer."""
    return actor["mlp"]["output"]["bias"].shape[-1] // 2


def gaussian_log_prob(mean: jax.Array, log_std: jax.Array, actions: jax.Array) -> jax.Array:
    """log density of a diagonal Gaussian, summed over the last axis: [..., A] → [...]."""
    return _normal_log_prob((actions - mean) * jnp.exp(-log_std), log_std)


def gaussian_tanh_log_prob(mean: jax.Array, log_std: jax.Array, pre_tanh: jax.Array) -> jax.Array:
    """log π(tanh(u)) of the squashed Gaussian, summed over the last axis: [..., A] → [...]."""
    return gaussian_log_prob(mean, log_std, pre_tanh) - _log_slope_of_tanh(pre_tanh)


def _normal_log_prob(noise: jax.Array, log_std: jax.Array) -> jax.Array:
    """log density of mean + std · noise under a diagonal Gaussian, summed over the last axis: [..., A] → [...]."""
    return (-0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum(axis=-1)


def _log_slope_of_tanh(u: jax.Array) -> jax.Array:
    """Σ log(1 − tanh²u) over the last axis, as 2 (log 2 − u − softplus(−2u)), which is finite for large |u|."""
    return (2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u))).sum(axis=-1)


def sample_actions(
    key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Draw from the squashed Gaussian of mean and log-std [B, A]: actions and their log densities.

    [B, A], [B]; or with `count` = N actions per state: [B, N, A], [B, N].
    """
    mean, log_std, noise = _draw(key, mean, log_std, count)
    pre_tanh = mean + jnp.exp(log_std) * noise
    # From the drawn noise: (u − mean) / std would lose precision if std is small.
    return jnp.tanh(pre_tanh), _normal_log_prob(noise, log_std) - _log_slope_of_tanh(pre_tanh)


def sample_gaussian(key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None) -> jax.Array:
    """Draw from the Gaussian of mean and log-std [B, A], clipped to [−1, 1]: [B, A]; with `count` = N [B, N, A]."""
    mean, log_std, noise = _draw(key, mean, log_std, count)
    return jnp.clip(mean + jnp.exp(log_std) * noise, -1.0, 1.0)


def _draw(key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None) -> tuple[jax.Array, ...]:
    """Mean and log-std, broadcastable to the standard normal noise [B, A] or [B, N, A], and the noise."""
    shape = mean.shape
    if count is not None:
        mean, log_std, shape = mean[:, None, :], log_std[:, None, :], (mean.shape[0], count, mean.shape[-1])
    return mean, log_std, jax.random.normal(key, shape)
