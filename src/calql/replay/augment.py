"""Random shifts of the pictures in a batch (Kostrikov et al. 2021, arXiv 2004.13649), within the compiled loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from calql.types import PyTree, Transition, is_picture


def random_crop(key: jax.Array, batch: Transition, most: int) -> Transition:
    """The batch with each picture shifted by up to `most` pixels either way, its edges repeated; s and s′ apart.

    Batches without pictures come back as they are.
    """
    keys = jax.random.split(key)
    parts = batch.observations, batch.next_observations
    shifted = (shift(k, part, most) for k, part in zip(keys, parts, strict=True))
    return batch._replace(**dict(zip(("observations", "next_observations"), shifted, strict=True)))


def shift(key: jax.Array, observations: PyTree, most: int) -> PyTree:
    """The same for observations [B, …]; several pictures of one observation are shifted alike."""

    def one(picture: jax.Array, by: jax.Array) -> jax.Array:
        rows, columns = (jnp.clip(jnp.arange(n) + d, 0, n - 1) for n, d in zip(picture.shape[:2], by, strict=True))
        return picture[rows][:, columns]

    def of(leaf: jax.Array) -> jax.Array:
        if not is_picture(leaf):
            return leaf
        return jax.vmap(one)(leaf, jax.random.randint(key, (len(leaf), 2), -most, most + 1))

    return jax.tree.map(of, observations)
