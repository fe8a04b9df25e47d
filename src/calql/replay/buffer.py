"""Replay buffer on the device: the fixed data set, followed by a ring buffer of complete online episodes.

    storage   | 0 … N_off − 1: offline data, never overwritten | N_off … N_off + C − 1: ring of online transitions |

A batch is one gather, and the indices that are drawn determine how offline and online data are mixed. Only complete
episodes are added, because the Monte-Carlo return of a transition is not known before its episode ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from calql.types import Transition

BLOCK = 64 * 2**20
"""Bytes of transitions that `newest` and `put_back` copy between the device and the host at once."""
UNION = -1.0
"""Value of the mixing ratio for uniform sampling from the union of offline and online data (Appendix H.2: "both buffers
appended to each other and sampled uniformly")."""


class Replay(NamedTuple):
    """Offline data and the ring of online transitions: a pytree whose counters are arrays, so that adding transitions
    never causes recompilation."""

    storage: Transition
    """[N_off + C, …] transitions."""
    offline: jax.Array
    """N_off: number of offline transitions, which come first (int32)."""
    online: jax.Array
    """Number of valid online transitions, at most C (int32)."""
    cursor: jax.Array
    """Next write position in the ring, in [0, C) (int32)."""


def make_replay(offline: Transition | None, like: Transition, capacity: int = 0, one_buffer: bool = False) -> Replay:
    """A replay buffer with the offline data, if any, and space for `capacity` online transitions.

    `like` is one transition (no batch axis) with the shapes and dtypes of the storage. With `one_buffer`, the data are
    put into the ring as its oldest transitions, which online transitions later overwrite; if there are more data than
    `capacity`, only the last transitions are kept (`rows_dropped` gives the number of the others).
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
    """Add the first `length` rows of `episode` to the ring; a full ring overwrites its oldest transitions.

    The episode is padded to a fixed number of rows, so that the function compiles once for all lengths.
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


def newest(replay: Replay, count: int) -> Transition:
    """The newest `count` online transitions, or as many as the ring holds, oldest first: NumPy arrays [N, …].

    They are copied block by block, so that the device needs no room for a second ring.
    """
    slots = _slots(replay, int(replay.cursor), count)

    def read(memory: jax.Array) -> np.ndarray:
        rows = np.empty((len(slots), *memory.shape[1:]), memory.dtype)
        for start, index in _blocks(memory, slots):
            part = rows[start : start + len(index)]
            part[:] = np.asarray(_take(memory, index))[: len(part)]
        return rows

    return jax.tree.map(read, replay.storage)


def put_back(replay: Replay, rows: Transition, collected: int) -> Replay:
    """A fresh replay from `make_replay`, with the `newest` rows of a saved one after `collected` online steps.

    The ring's cursor follows from the number of collected steps, so it is never stored: a checkpoint
    from before fine-tuning serves runs with any ring. The memory of `replay` is reused, block by block.
    """
    capacity = _capacity(replay)
    cursor = (int(replay.cursor) + collected) % max(capacity, 1)
    slots = _slots(replay, cursor, len(rows.rewards))

    def write(memory: jax.Array, new: np.ndarray) -> jax.Array:
        for start, index in _blocks(memory, slots):
            block = np.zeros((len(index), *memory.shape[1:]), memory.dtype)
            some = new[start : start + len(index)]
            block[: len(some)] = some
            memory = _put(memory, index, block)
        return memory

    return Replay(
        jax.tree.map(write, replay.storage, rows),
        replay.offline,
        jnp.minimum(replay.online + collected, capacity).astype(jnp.int32),
        jnp.int32(cursor),
    )


def _capacity(replay: Replay) -> int:
    """C, the size of the ring."""
    return replay.storage.rewards.shape[0] - int(replay.offline)


def _slots(replay: Replay, cursor: int, count: int) -> np.ndarray:
    """Rows [N] of the storage that hold the newest `count` online transitions if the next one goes to `cursor`."""
    capacity = _capacity(replay)
    count = min(count, capacity)
    return int(replay.offline) + (cursor - count + np.arange(count)) % max(capacity, 1)


def _blocks(memory: jax.Array, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first position, slots) of parts of `slots` [N] of about BLOCK bytes; the last part is padded out of bounds.

    As all parts have one size, reading and writing compile once, however many rows there are.
    """
    rows = memory.shape[0]
    size = min(max(BLOCK // max(memory.nbytes // max(rows, 1), 1), 1), max(rows, 1))
    for start in range(0, len(slots), size):
        part = slots[start : start + size]
        yield start, np.pad(part, (0, size - len(part)), constant_values=rows)


@jax.jit
def _take(memory: jax.Array, slots: jax.Array) -> jax.Array:
    return memory.at[slots].get(mode="clip")


@partial(jax.jit, donate_argnames="memory")
def _put(memory: jax.Array, slots: jax.Array, rows: jax.Array) -> jax.Array:
    return memory.at[slots].set(rows, mode="drop")


def sample(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float) -> Transition:
    """Draw a batch [B] uniformly with replacement: floor(mixing · B) offline transitions, the rest online.

    `mixing` is in [0, 1], or UNION: then the offline share is N_off / (N_off + N_online) (nakamotoo/Cal-QL,
    `conservative_sac_main.py`). If there are no offline (online) transitions, all are online (offline).
    """
    index = draw(replay, key, batch_size, mixing)
    return jax.tree.map(lambda memory: memory[index], replay.storage)


def draw(replay: Replay, key: jax.Array, batch_size: int, mixing: jax.Array | float) -> jax.Array:
    """Indices [B] into the storage of a batch, see `sample`."""
    share = jnp.where(mixing < 0, replay.offline / jnp.maximum(replay.offline + replay.online, 1), mixing)
    share = jnp.where(replay.online == 0, 1.0, jnp.where(replay.offline == 0, 0.0, share))
    from_offline = jnp.arange(batch_size) < jnp.floor(share * batch_size)
    low = jnp.where(from_offline, 0, replay.offline)
    size = jnp.where(from_offline, replay.offline, replay.online)
    return jax.random.randint(key, (batch_size,), low, low + jnp.maximum(size, 1))
