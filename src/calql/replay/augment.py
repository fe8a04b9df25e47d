"""Random shifts of the images in a batch (DrQ: Kostrikov et al. 2021, arXiv 2004.13649), inside the compiled loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from calql.types import PyTree, Transition, is_image


def random_crop(key: jax.Array, batch: Transition, pixels: int) -> Transition:
    """The batch with images shifted by random offsets of up to `pixels` in each direction; edge pixels are repeated.

    s and s′ are shifted independently. A batch without images is returned unchanged.
    """
    key, next_key = jax.random.split(key)
    return batch._replace(
        observations=shift(key, batch.observations, pixels),
        next_observations=shift(next_key, batch.next_observations, pixels),
    )


def shift(key: jax.Array, observations: PyTree, pixels: int) -> PyTree:
    """Observations [B, …] with shifted images, see `random_crop`; all images of one observation get the same shift."""

    def shift_image(image: jax.Array, offset: jax.Array) -> jax.Array:
        rows, columns = (jnp.clip(jnp.arange(n) + d, 0, n - 1) for n, d in zip(image.shape[:2], offset, strict=True))
        return image[rows][:, columns]

    def shift_leaf(leaf: jax.Array) -> jax.Array:
        if not is_image(leaf):
            return leaf
        return jax.vmap(shift_image)(leaf, jax.random.randint(key, (len(leaf), 2), -pixels, pixels + 1))

    return jax.tree.map(shift_leaf, observations)
