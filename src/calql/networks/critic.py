"""Q-functions. An ensemble is one vectorised module, so each layer of all its members is one batched multiplication."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import Encoder
from calql.networks.mlp import MLP
from calql.networks.products import Precision
from calql.types import PyTree


class Critic(nn.Module):
    """Q(s, a) of the concatenation of encoded observation and action, or V(s) of the encoded observation alone."""

    hidden: Sequence[int]
    """Width of each hidden layer."""
    output_gain: float = 0.01
    """Gain of the orthogonal initialisation of the output layer."""
    layer_norm: bool = False
    """Layer normalisation in each hidden layer."""
    encoder: str = "small"
    """Kind of the image `Encoder`."""
    precision: Precision = "float32"
    """Precision of the inputs of the products between hidden layers."""

    @nn.compact
    def __call__(self, observation: PyTree, action: jax.Array | None = None) -> jax.Array:
        """Observations [B, …] → V [B]; with actions [B, A] → Q [B]; with N actions per state [B, N, A] → Q [B, N]."""
        state = Encoder(self.encoder, name="encoder")(observation)
        mlp = MLP(self.hidden, 1, self.output_gain, self.layer_norm, precision=self.precision)
        if action is None:
            return mlp(state).squeeze(-1)
        if action.ndim > state.ndim:
            state = jnp.broadcast_to(state[:, None, :], (*action.shape[:-1], state.shape[-1]))
        inputs = jnp.concatenate([state, action], axis=-1).reshape(-1, state.shape[-1] + action.shape[-1])
        return mlp(inputs).reshape(action.shape[:-1])


class CriticEnsemble(nn.Module):
    """E independent critics that share one encoder, as one module; their parameters have a leading axis [E, …]."""

    hidden: Sequence[int]
    """Width of each hidden layer."""
    members: int = 2
    """Number of critics E."""
    output_gain: float = 0.01
    """Gain of the orthogonal initialisation of the output layer."""
    layer_norm: bool = False
    """Layer normalisation in each hidden layer."""
    encoder: str = "small"
    """Kind of the image `Encoder`."""
    precision: Precision = "float32"
    """Precision of the inputs of the products between hidden layers."""

    @nn.compact
    def __call__(self, observation: PyTree, action: jax.Array) -> jax.Array:
        """Observations [B, …] with actions [B, A] → Q [E, B], or with N actions per state [B, N, A] → Q [E, B, N]."""
        ensemble = nn.vmap(Critic, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=self.members)
        # The inputs also get the axis [E], so that every layer is a batched multiplication without transposes.
        state = Encoder(self.encoder, name="encoder")(observation)
        inputs = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.members, *x.shape)), (state, action))
        return ensemble(self.hidden, self.output_gain, self.layer_norm, precision=self.precision)(*inputs)


def members(critic: PyTree) -> int:
    """Number of critics E of an ensemble with these parameters."""
    return jax.tree.leaves(_split_encoder(critic)[0])[0].shape[0]


def choose_members(critic: PyTree, chosen: jax.Array) -> PyTree:
    """Parameters of the ensemble of the critics with the indices `chosen` [N]."""
    critics, encoder = _split_encoder(critic)
    return jax.tree.map(lambda x: x[chosen], critics) | encoder


def of_each_member(function: Callable[[PyTree], jax.Array], critic: PyTree) -> jax.Array:
    """function(parameters of an ensemble of one) for every critic of an ensemble, stacked: [E, …]."""
    critics, encoder = _split_encoder(critic)
    return jax.vmap(lambda alone: function(alone | encoder))(jax.tree.map(lambda x: x[:, None], critics))


def _split_encoder(critic: PyTree) -> tuple[PyTree, PyTree]:
    """The parameters of an ensemble in two parts: those of the critics, and those of the encoder (empty if none)."""
    encoder = {name: part for name, part in critic.items() if name == "encoder"}
    return {name: part for name, part in critic.items() if name not in encoder}, encoder
