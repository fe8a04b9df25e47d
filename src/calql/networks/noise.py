"""The network of a diffusion model of actions: it predicts the noise in them."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import Encoder
from calql.networks.mlp import MLP
from calql.types import PyTree


class NoisePredictor(nn.Module):
    """ε(s, ã, σ): the standard normal noise n in a noised action ã = a + σ n, as an MLP of s, ã and log σ."""

    hidden: Sequence[int]
    """Width of each hidden layer."""
    output_gain: float = 0.01
    """Gain of the orthogonal initialisation of the output layer."""
    encoder: str = "small"
    """Kind of the image `Encoder`."""

    @nn.compact
    def __call__(self, observation: PyTree, noised: jax.Array, level: jax.Array) -> jax.Array:
        """Observations [B, …], noised actions [B, A] and their noise levels σ > 0 [B] → predicted noise [B, A]."""
        state = Encoder(self.encoder, name="encoder")(observation)
        inputs = jnp.concatenate([state, noised, jnp.log(level)[:, None]], axis=-1)
        return MLP(self.hidden, noised.shape[-1], self.output_gain)(inputs)
