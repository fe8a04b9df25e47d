"""Replay buffer on the device: the fixed data set, followed by a ring buffer of complete online episodes.

    storage   | 0 … N_off − 1: offline data, never overwritten | N_off … N_off + C − 1: ring of online transitions |

Mixing offline and online data then only depends on which indices are drawn, and every batch is one gather.
Episodes are added whole because a transition's Monte-Carlo return is only known when its episode is over.
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
    """Offline data and online ring; a pytree whose counters are arrays, so that growth never recompiles."""

    storage: Transition
    """[N_off + C, …] transitions."""
    offline: jax.Array
    """N_off: number of offline transitions at the front (int32)."""
    online: jax.Array
    """Number of valid online transitions, at most C (int32)."""
    cursor: jax.Array
    """Next write position in the ring, in [0, C) (int32)."""


def make_replay(offline: Transition | None, like: Transition, capacity: int = 0, one_buffer: bool = False) -> Replay:
    """Put the data set on the device, followed by room for `capacity` online transitions.

    `like` is one transition (no batch axis) that gives shapes and dtypes if there are no offline data.
    `one_buffer`: the data are the oldest rows of the ring, which new rows will overwrite; of data larger than
    the ring, which is first in, first out, the newest rows are kept (`rows_dropped` says how many are not).
    """
    count = 0 if offline is None else len(offline.rewards)
    kept = min(count, capacity) if one_buffer else count

    def allocate(example: np.ndarray, data: np.ndarray | None = None) -> jax.Array:
        memory = np.zeros((capacity + (0 if one_buffer else kept), *np.shape(example)), np.asarray(example).dtype)
        if data is not None:
            memory[:kept] = data[count - kept :]
        return jnp.asarray(memory)

    storage = jax.tree.map(allocate, like) if offline is None else jax.tree.map(allocate, like, offline)
    if one_buffer:
        return Replay(storage, jnp.int32(0), jnp.int32(kept), jnp.int32(kept % max(capacity, 1)))
    return Replay(storage, jnp.int32(kept), jnp.int32(0), jnp.int32(0))


def rows_dropped(offline: Transition, capacity: int, one_buffer: bool) -> int:
    """Number of transitions of the data that `make_replay` leaves out."""
    return max(len(offline.rewards) - capacity, 0) if one_buffer else 0


@partial(jax.jit, donate_argnames="replay")
def add_episode(replay: Replay, episode: Transition, length: jax.Array) -> Replay:
    """Append an episode, padded to a fixed number of rows; only its first `length` rows are stored.

    First in, first out once the ring is full. With padding, one compiled function serves all lengths.
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


def newest(replay: Replay, count: int) -> np.ndarray:
    """Rows [N] of the storage with the newest `count` online transitions, or as many as the ring holds."""
    first = int(replay.offline)
    capacity = replay.storage.rewards.shape[0] - first
    count = min(count, capacity)
    return first + (int(replay.cursor) - count + np.arange(count)) % max(capacity, 1)


@partial(jax.jit, donate_argnames="replay")
def put_back(replay: Replay, rows: Transition, collected: int) -> Replay:
    """A fresh replay from `make_replay`, with the `newest` rows of a saved one after `collected` online steps.

    The ring's cursor follows from the number of collected steps, so it is never stored: a checkpoint
    from before fine-tuning serves runs with any ring.
    """
    capacity = replay.storage.rewards.shape[0] - replay.offline
    count = rows.rewards.shape[0]
    cursor = (replay.cursor + collected) % jnp.maximum(capacity, 1)
    slots = replay.offline + (cursor - count + jnp.arange(count)) % jnp.maximum(capacity, 1)
    return replay._replace(
        storage=jax.tree.map(lambda memory, new: memory.at[slots].set(new), replay.storage, rows),
        online=jnp.minimum(replay.online + collected, capacity),
        cursor=cursor,
    )


def sample(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float) -> Transition:
    """Draw a batch [B] uniformly with replacement, floor(mixing · B) of it offline and the rest online.

    `mixing` is in [0, 1], or −1 for the union of both: then the offline share is N_off / (N_off + N_online)
    (nakamotoo/Cal-QL, `conservative_sac_main.py`). If one side is empty, the other fills the batch.
    """
    index = draw(replay, key, batch_size, mixing)
    return jax.tree.map(lambda memory: memory[index], replay.storage)


def draw(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float) -> jax.Array:
    """The indices [B] of a batch of `sample`."""
    share = jnp.where(mixing < 0, replay.offline / jnp.maximum(replay.offline + replay.online, 1), mixing)
    share = jnp.where(replay.online == 0, 1.0, jnp.where(replay.offline == 0, 0.0, share))
    from_offline = jnp.arange(batch_size) < jnp.floor(share * batch_size)
    low = jnp.where(from_offline, 0, replay.offline)
    size = jnp.where(from_offline, replay.offline, replay.online)
    return jax.random.randint(key, (batch_size,), low, low + jnp.maximum(size, 1))
