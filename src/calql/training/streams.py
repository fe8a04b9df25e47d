"""Randomness derived from (seed, stream, index) and never carried along, so that a resumed run draws the same."""

from __future__ import annotations

import jax
import numpy as np

STREAMS = {"init": 0, "update": 1, "collect": 2, "evaluate": 3, "probe": 4, "slice": 5}


class Streams:
    """Keys for JAX and seeds for environments of one run."""

    def __init__(self, seed: int) -> None:
        self.run_seed = seed
        self.root = jax.random.key(seed)

    def key(self, stream: str, index: int = 0) -> jax.Array:
        """A key for JAX."""
        return jax.random.fold_in(jax.random.fold_in(self.root, STREAMS[stream]), index)

    def seed(self, stream: str, *index: int) -> int:
        """A seed for an environment's reset, in [0, 2³¹)."""
        words = np.random.SeedSequence([self.run_seed, STREAMS[stream], *index]).generate_state(1)
        return int(words[0] >> 1)
