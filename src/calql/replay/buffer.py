"""Replay on the device: the fixed data set, then a ring that admits whole online episodes, in one memory.

    storage   | 0 … N_off − 1: offline data, never overwritten | N_off … N_off + C − 1: ring of online transitions |

Mixing offline and online data is then only a question of which indices are drawn, and every batch is one gather.
Episodes enter whole because a transition's Monte-Carlo return exists only when its episode is over.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from calql.types import Transition

UNION = -1.0
"""Mixing ratio of the paper's H.2 for "both buffers appended to each other and sampled uniformly"."""


class Replay(NamedTuple):
    """Offline data and online ring; a pytree whose counters are arrays, so that no growth recompiles anything."""

    storage: Transition
    """[N_off + C, …] transitions."""
    offline: jax.Array
    """N_off: number of offline transitions at the front (int32)."""
    online: jax.Array
    """Number of valid online transitions, at most C (int32)."""
    cursor: jax.Array
    """Next position in the ring to be written, in [0, C) (int32)."""


def make_replay(offline: Transition | None, like: Transition, capacity: int) -> Replay:
    """Put the data set on the device, with room for `capacity` online transitions behind it.

    `like` is one transition (no batch axis) that gives shapes and dtypes where there are no offline data.
    """
    count = 0 if offline is None else len(offline.rewards)

    def allocate(example: np.ndarray, data: np.ndarray | None) -> jax.Array:
        memory = np.zeros((count + capacity, *np.shape(example)), np.asarray(example).dtype)
        if data is not None:
            memory[:count] = data
        return jnp.asarray(memory)

    storage = (
        jax.tree.map(allocate, like, offline)
        if offline is not None
        else jax.tree.map(lambda example: allocate(example, None), like)
    )
    return Replay(storage, jnp.int32(count), jnp.int32(0), jnp.int32(0))


@partial(jax.jit, donate_argnames="replay")
def add_episode(replay: Replay, episode: Transition, length: jax.Array) -> Replay:
    """Append an episode, padded to a fixed number of rows; only its first `length` rows are kept.

    First in, first out once the ring is full. Padding keeps one compiled function for all lengths.
    """
    capacity = replay.storage.rewards.shape[0] - replay.offline
    row = jnp.arange(episode.rewards.shape[0])
    out_of_bounds = replay.storage.rewards.shape[0]
    slots = jnp.where(row < length, replay.offline + (replay.cursor + row) % capacity, out_of_bounds)
    return Replay(
        jax.tree.map(lambda memory, new: memory.at[slots].set(new, mode="drop"), replay.storage, episode),
        replay.offline,
        jnp.minimum(replay.online + length, capacity),
        (replay.cursor + length) % capacity,
    )


def sample(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float) -> Transition:
    """Draw a batch [B] uniformly with replacement, floor(mixing · B) of it offline and the rest online.

    `mixing` is in [0, 1], or −1 for the union of both: then the offline share is N_off / (N_off + N_online)
    (nakamotoo/Cal-QL, `conservative_sac_main.py`). Where one side is empty, the other fills the batch.
    """
    share = jnp.where(mixing < 0, replay.offline / jnp.maximum(replay.offline + replay.online, 1), mixing)
    share = jnp.where(replay.online == 0, 1.0, jnp.where(replay.offline == 0, 0.0, share))
    from_offline = jnp.arange(batch_size) < jnp.floor(share * batch_size)
    low = jnp.where(from_offline, 0, replay.offline)
    size = jnp.where(from_offline, replay.offline, replay.online)
    index = jax.random.randint(key, (batch_size,), low, low + jnp.maximum(size, 1))
    return jax.tree.map(lambda memory: memory[index], replay.storage)
