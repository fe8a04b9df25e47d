"""Random shifts of the images in a batch (Kostrikov et al. 2021, arXiv 2004.13649), within the compiled loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from calql.types import PyTree, Transition, is_image


def random_crop(key: jax.Array, batch: Transition, most: int) -> Transition:
    """The batch with each image shifted by up to `most` pixels either way, edges repeated; s and s′ independently.

    Batches without images are returned unchanged.
    """
    now, following = jax.random.split(key)
    return batch._replace(
        observations=shift(now, batch.observations, most),
        next_observations=shift(following, batch.next_observations, most),
    )


def shift(key: jax.Array, observations: PyTree, most: int) -> PyTree:
    """The same for observations [B, …]; all images of one observation get the same shift."""

    def one(image: jax.Array, by: jax.Array) -> jax.Array:
        rows, columns = (jnp.clip(jnp.arange(n) + d, 0, n - 1) for n, d in zip(image.shape[:2], by, strict=True))
        return image[rows][:, columns]

    def of(leaf: jax.Array) -> jax.Array:
        if not is_image(leaf):
            return leaf
        return jax.vmap(one)(leaf, jax.random.randint(key, (len(leaf), 2), -most, most + 1))

    return jax.tree.map(of, observations)
