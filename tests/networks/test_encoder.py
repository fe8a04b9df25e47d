"""Images become latents; everything else passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.networks import ENCODERS, Encoder
from calql.networks.encoder import LATENT, convolve_by_matmul, convolve_by_xla, spatial_softmax

KEY = jax.random.key(0)


def seen(size=12, batch=3):
    image = jax.random.randint(KEY, (batch, size, size, 3), 0, 256).astype(jnp.uint8)
    return {"image": image, "state": jax.random.normal(KEY, (batch, 4))}


def test_without_images_there_is_nothing_to_learn():
    observation = {"b": jnp.ones((2, 1)), "a": jnp.zeros((2, 3))}
    assert "params" not in Encoder().init(KEY, observation)
    np.testing.assert_array_equal(Encoder().apply({}, observation), [[0, 0, 0, 1]] * 2)


@pytest.mark.parametrize("kind", ENCODERS)
def test_latents_stand_beside_the_rest(kind):
    observation = seen()
    encoder = Encoder(kind)
    parameters = jax.jit(encoder.init)(KEY, observation)
    apply = jax.jit(encoder.apply)
    vector = apply(parameters, observation)
    assert vector.shape == (3, LATENT + 4)
    np.testing.assert_array_equal(vector[:, LATENT:], observation["state"])
    assert (jnp.abs(vector[:, :LATENT]) <= 1).all()
    assert vector[:, :LATENT].std() > 0.1
    alone = apply(parameters, jax.tree.map(lambda x: x[1:2], observation))
    np.testing.assert_allclose(alone[0], vector[1], atol=1e-5)


@pytest.mark.parametrize("height", [6, 7, 12])
@pytest.mark.parametrize(("width", "strides"), [(1, 1), (3, 1), (3, 2), (4, 4), (2, 3)])
def test_convolutions_are_those_of_the_library(height, width, strides):
    x = jax.random.normal(KEY, (2, height, height + 1, 3))
    kernel = jax.random.normal(KEY, (width, width, 3, 5))
    np.testing.assert_allclose(convolve_by_matmul(x, kernel, strides), convolve_by_xla(x, kernel, strides), atol=1e-4)


def test_spatial_softmax_says_where_the_peaks_are():
    x = np.zeros((1, 5, 9, 3), np.float32)
    x[0, 0, 8, 0] = 100.0  # right above
    x[0, 4, 2, 1] = 100.0  # below, a quarter from the left; the third channel is flat
    np.testing.assert_allclose(spatial_softmax(x), [[1, -1, -0.5, 1, 0, 0]], atol=1e-6)
