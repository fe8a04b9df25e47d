"""Products in bfloat16 are those of rounded inputs, forward and backward, and only between hidden layers."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from calql.algorithms import CalQL
from calql.networks import MLP, CriticEnsemble
from calql.networks.products import product
from calql.types import InputError

KEYS = jax.random.split(jax.random.key(0), 4)


def rounded(x):
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(32, 48, 16), (5, 7, 3), (1, 16, 1), (33, 16, 40)])
def test_a_product_and_its_gradients_round_their_inputs_and_nothing_else(rows, inputs, outputs):
    x, kernel, weights = (
        jax.random.normal(key, shape)
        for key, shape in zip(KEYS, ((rows, inputs), (inputs, outputs), (rows, outputs)), strict=False)
    )
    value, pull = jax.vjp(product, x, kernel)
    to_x, to_kernel = pull(weights)
    for ours, exact in (
        (value, rounded(x) @ rounded(kernel)),
        (to_x, rounded(weights) @ rounded(kernel).T),
        (to_kernel, rounded(x).T @ rounded(weights)),
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-5)
    assert not np.allclose(value, np.asarray(x, np.float64) @ np.asarray(kernel, np.float64), rtol=1e-5, atol=1e-5)


def test_the_first_and_the_last_layer_stay_float32():
    x = jax.random.normal(KEYS[0], (6, 5))
    module = MLP((16, 32), 2, output_gain=1.0, precision="bfloat16")
    parameters = module.init(KEYS[1], x)["params"]
    by_hand = np.asarray(x, np.float64)
    for name, round_ in (("Dense_0", np.asarray), ("Dense_1", rounded), ("output", np.asarray)):
        layer = {part: np.asarray(values, np.float64) for part, values in parameters[name].items()}
        by_hand = round_(np.float32(by_hand)) @ round_(np.float32(layer["kernel"])) + layer["bias"]
        by_hand = by_hand if name == "output" else np.maximum(by_hand, 0)
    np.testing.assert_allclose(module.apply({"params": parameters}, x), by_hand, rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_near_its_float32_values_and_gradients_of_every_order():
    observation, action = jax.random.normal(KEYS[0], (8, 4)), jax.random.uniform(KEYS[1], (8, 3, 2), minval=-1)
    exact, fast = (CriticEnsemble((64, 64, 64), 2, 1.0, precision=name) for name in ("float32", "bfloat16"))
    parameters = exact.init(KEYS[2], observation, action)["params"]

    def near(function):
        ours, theirs = (jax.tree.leaves(function(module)) for module in (fast, exact))
        for a, b in zip(ours, theirs, strict=True):
            error = jnp.linalg.norm(a - b) / jnp.linalg.norm(b)
            assert 0 < error < 0.05

    def q(module, parameters, action):
        return module.apply({"params": parameters}, observation, action)

    near(lambda module: q(module, parameters, action))
    near(lambda module: jax.grad(lambda a: q(module, parameters, a).sum())(action))
    # The output's bias has an exact gradient.
    kernels = lambda tree: [x for path, x in jax.tree.leaves_with_path(tree) if path[-1].key == "kernel"]  # noqa: E731
    near(lambda module: kernels(jax.grad(lambda p: jnp.square(q(module, p, action)).mean())(parameters))[:-1])

    def slope(module, parameters):  # SMAC's loss is of the gradient with respect to the action
        return jnp.square(jax.grad(lambda a: q(module, parameters, a).sum())(action)).mean()

    near(lambda module: kernels(jax.grad(lambda p: slope(module, p))(parameters)))


def test_a_critic_without_a_product_between_hidden_layers_is_refused():
    with pytest.raises(InputError, match="critic_precision"):
        CalQL(critic_hidden=(64,), critic_precision="bfloat16")
