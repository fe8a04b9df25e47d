"""Q-functions: an ensemble is one vectorised module, so all members run as one batched multiplication."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from calql.networks.encoder import Encoder
from calql.networks.mlp import MLP
from calql.types import PyTree


class Critic(nn.Module):
    """Q(s, a) from the concatenation of state and action, or V(s) of the state alone."""

    hidden: Sequence[int]
    """Width of each hidden layer."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layer."""
    layer_norm: bool = False
    """Normalise each hidden layer."""
    encoder: str = "small"
    """Kind of the `Encoder` of images."""

    @nn.compact
    def __call__(self, observation: PyTree, action: jax.Array | None = None) -> jax.Array:
        """States [B, …] → [B]; with actions [B, A] → [B], or with N actions per state [B, N, A] → [B, N]."""
        state = Encoder(self.encoder, name="encoder")(observation)
        mlp = MLP(self.hidden, 1, self.output_gain, self.layer_norm)
        if action is None:
            return mlp(state).squeeze(-1)
        if action.ndim > state.ndim:
            state = jnp.broadcast_to(state[:, None, :], (*action.shape[:-1], state.shape[-1]))
        inputs = jnp.concatenate([state, action], axis=-1).reshape(-1, state.shape[-1] + action.shape[-1])
        return mlp(inputs).reshape(action.shape[:-1])


class CriticEnsemble(nn.Module):
    """E independent critics as one module whose parameters carry a leading axis [E, …], behind one encoder."""

    hidden: Sequence[int]
    """Width of each hidden layer."""
    members: int = 2
    """Number of critics E."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layer."""
    layer_norm: bool = False
    """Normalise each hidden layer."""
    encoder: str = "small"
    """Kind of the `Encoder` of images."""

    @nn.compact
    def __call__(self, observation: PyTree, action: jax.Array) -> jax.Array:
        """[B, …] and [B, A] or [B, N, A] → [E, B] or [E, B, N]."""
        ensemble = nn.vmap(Critic, variable_axes={"params": 0}, split_rngs={"params": True}, axis_size=self.members)
        # Inputs get the members' axis too: every layer is then a plain batched multiplication without transposes.
        state = Encoder(self.encoder, name="encoder")(observation)
        inputs = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.members, *x.shape)), (state, action))
        return ensemble(self.hidden, self.output_gain, self.layer_norm)(*inputs)


def members(critic: PyTree) -> int:
    """Number of members E of an ensemble with these parameters."""
    return jax.tree.leaves(_apart(critic)[0])[0].shape[0]


def choose_members(critic: PyTree, chosen: jax.Array) -> PyTree:
    """Parameters of an ensemble of only the chosen members [N]."""
    parts, encoder = _apart(critic)
    return jax.tree.map(lambda x: x[chosen], parts) | encoder


def _apart(critic: PyTree) -> tuple[PyTree, PyTree]:
    """(parameters of the members, parameters of the shared encoder, if there is one)."""
    encoder = {name: part for name, part in critic.items() if name == "encoder"}
    return {name: part for name, part in critic.items() if name not in encoder}, encoder
