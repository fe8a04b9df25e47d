"""Windows of consecutive steps, for sequence models."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from calql.replay.buffer import Replay, draw
from calql.types import Window


def sample_windows(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float, length: int) -> Window:
    """Windows [B, K, …] of K = `length` steps that start at steps drawn as in `sample`; `valid` marks the steps before
    the end of the episode.

    An episode is followed while `timesteps` increases by one, and not past the end of the offline data, nor from the
    newest online transition to the oldest one, which is next to it in the ring.
    """
    first = draw(replay, key, batch_size, mixing)
    offset = jnp.arange(length)[None]
    is_offline = first[:, None] < replay.offline
    capacity = jnp.maximum(replay.storage.rewards.shape[0] - replay.offline, 1)
    ring = (first[:, None] - replay.offline + offset) % capacity
    index = jnp.where(is_offline, first[:, None] + offset, replay.offline + ring)
    outside = jnp.where(is_offline, index >= replay.offline, (ring == replay.cursor) & (offset > 0))
    index = jnp.minimum(index, replay.storage.rewards.shape[0] - 1)
    timesteps = replay.storage.timesteps[index]
    valid = jnp.cumprod((timesteps == timesteps[:, :1] + offset) & ~outside, axis=1).astype(bool)
    rows = jax.tree.map(lambda memory: memory[index], replay.storage)
    return Window(rows.observations, rows.actions, rows.to_go, timesteps, valid)
