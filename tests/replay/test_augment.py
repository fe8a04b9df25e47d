"""Random crops: images move by whole pixels, nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.replay import random_crop
from calql.types import Transition

SIZE, BATCH = 6, 64


def batch():
    """Images whose pixels tell their row (first channel) and column (second)."""
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    image = np.broadcast_to(np.stack([rows, columns], -1), (BATCH, SIZE, SIZE, 2)).astype(np.uint8)
    observation = {"image": image, "wrist": image, "state": np.arange(BATCH, dtype=np.float32)[:, None]}
    ones = np.ones(BATCH, np.float32)
    return Transition(observation, ones[:, None], ones, observation, ones, ones)


@pytest.mark.parametrize("most", [0, 2])
def test_every_shift_up_to_the_most_and_edges_repeat(most):
    cropped = random_crop(jax.random.key(1), batch(), most)
    images = np.asarray(cropped.observations["image"])
    down, right = images[:, 3, 0, 0].astype(int) - 3, images[:, 0, 3, 1].astype(int) - 3
    assert {*down} == {*right} == {*range(-most, most + 1)}
    if most:
        assert np.corrcoef(down, right)[0, 1] < 0.5
    steps = np.arange(SIZE)
    for image, i, j in zip(images, down, right, strict=True):
        np.testing.assert_array_equal(image[:, 0, 0], np.clip(steps + i, 0, SIZE - 1))
        np.testing.assert_array_equal(image[0, :, 1], np.clip(steps + j, 0, SIZE - 1))
    assert images.dtype == np.uint8


def test_images_of_one_moment_move_together_and_the_next_moment_apart():
    cropped = random_crop(jax.random.key(1), batch(), 2)
    now, then = cropped.observations, cropped.next_observations
    np.testing.assert_array_equal(now["image"], now["wrist"])
    assert (np.asarray(now["image"]) != np.asarray(then["image"])).any()


def test_all_else_stays():
    before = batch()
    after = random_crop(jax.random.key(1), before, 2)
    np.testing.assert_array_equal(after.observations["state"], before.observations["state"])
    states = before._replace(observations=jnp.ones((BATCH, 3)), next_observations=jnp.ones((BATCH, 3)))
    jax.tree.map(np.testing.assert_array_equal, random_crop(jax.random.key(1), states, 2), states)
