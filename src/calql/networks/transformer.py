"""A causal transformer over (return-to-go, state, action) tokens that predicts the action at each state token."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import flatten_observation
from calql.types import PyTree

DECISION_LOG_STD_RANGE = (-5.0, 2.0)
"""Range that a scaled tanh keeps the log-std of `DecisionTransformer` in."""


class Block(nn.Module):
    """Transformer block as in GPT-2, with layer normalisation before each sublayer: self-attention, and an MLP with one
    hidden ReLU layer of four times the width."""

    heads: int
    """Attention heads."""
    dropout: float
    """Dropout rate; applied only if `apply` gets `rngs` with a `dropout` key."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Tokens [B, T, D] with an attention mask [B, 1, T, T] → [B, T, D]."""
        width, deterministic = x.shape[-1], not self.has_rng("dropout")
        dense = nn.initializers.normal(0.02)
        attend = nn.MultiHeadDotProductAttention(
            self.heads, dropout_rate=self.dropout, deterministic=deterministic, kernel_init=dense
        )
        x = x + nn.Dropout(self.dropout, deterministic=deterministic)(attend(nn.LayerNorm()(x), mask=mask))
        hidden = nn.relu(nn.Dense(4 * width, kernel_init=dense)(nn.LayerNorm()(x)))
        return x + nn.Dropout(self.dropout, deterministic=deterministic)(nn.Dense(width, kernel_init=dense)(hidden))


class DecisionTransformer(nn.Module):
    """p(a_t | R_≤t, s_≤t, a_<t) as a tanh-squashed Gaussian.

    Source: Zheng et al. 2022 (arXiv 2202.05607), section 3 and Appendix A; Chen et al. 2021 (arXiv 2106.01345).
    """

    width: int
    """Embedding size D of a token."""
    layers: int
    """Number of transformer blocks."""
    heads: int
    """Attention heads per block."""
    dropout: float
    """Dropout rate; applied only if `apply` gets `rngs` with a `dropout` key."""
    max_timestep: int
    """Number of episode steps with their own embedding."""
    action_dim: int
    """Number of action dimensions A."""

    @nn.compact
    def __call__(
        self, observations: PyTree, actions: jax.Array, returns_to_go: jax.Array, timesteps: jax.Array, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log-std [B, K, A] of the Gaussian before the tanh, at each of K steps.

        `observations` are [B, K, …], `actions` [B, K, A], the others [B, K]. Steps that are not `valid` are never
        attended to, and the action of a step only by later steps.
        """
        dense = nn.initializers.normal(0.02)

        def embed(x: jax.Array, name: str) -> jax.Array:
            return nn.Dense(self.width, kernel_init=dense, name=name)(x)

        tokens = [
            embed(returns_to_go[..., None], "embed_return"),
            embed(flatten_observation(observations), "embed_state"),
            embed(actions, "embed_action"),
        ]
        time = nn.Embed(self.max_timestep, self.width, embedding_init=dense, name="embed_time")
        tokens = [token + time(jnp.clip(timesteps, 0, self.max_timestep - 1)) for token in tokens]
        size, length = valid.shape
        x = nn.LayerNorm()(jnp.stack(tokens, axis=2).reshape(size, 3 * length, self.width))
        x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        seen = jnp.repeat(valid, 3, axis=1)
        causal = jnp.tril(jnp.ones((3 * length, 3 * length), bool))[None] & seen[:, None, :]
        mask = (causal | jnp.eye(3 * length, dtype=bool)[None])[:, None]  # every token attends at least to itself
        for _ in range(self.layers):
            x = Block(self.heads, self.dropout)(x, mask)
        at_state = nn.LayerNorm()(x).reshape(size, length, 3, self.width)[:, :, 1]
        mean = nn.Dense(self.action_dim, kernel_init=nn.initializers.orthogonal(), name="mean")(at_state)
        raw = nn.Dense(self.action_dim, kernel_init=nn.initializers.orthogonal(), name="log_std")(at_state)
        low, high = DECISION_LOG_STD_RANGE
        return mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)
