"""The ensemble is a set of separate critics in one module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.networks import CriticEnsemble
from calql.networks.critic import Critic

KEY = jax.random.key(0)
HIDDEN = (16, 8)


@pytest.fixture(scope="module")
def ensemble():
    module = CriticEnsemble(HIDDEN, members=3, output_gain=1.0)
    observation, action = jax.random.normal(KEY, (5, 4)), jax.random.uniform(KEY, (5, 7, 2), minval=-1)
    return module, jax.jit(module.init)(KEY, observation, action[:, 0])["params"], observation, action


def member(parameters, i):
    return jax.tree.map(lambda x: x[i], parameters)


def by_hand(parameters, observation, action):
    """Q of one member in NumPy: layers in the order of their input widths 6, 16, 8."""
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(parameters)]
    x = np.concatenate([observation, action], axis=-1)
    for inputs, outputs in ((6, 16), (16, 8), (8, 1)):
        kernel = next(k for k in leaves if k.shape == (inputs, outputs))
        bias = next(b for b in leaves if b.shape == (outputs,))
        x = x @ kernel + bias
        x = np.maximum(x, 0) if outputs > 1 else x
    return x[..., 0]


def test_members_differ_at_initialisation(ensemble):
    module, parameters, observation, action = ensemble
    values = np.asarray(module.apply({"params": parameters}, observation, action[:, 0]))
    assert values.shape == (3, 5)
    for i in range(3):
        for j in range(i):
            assert not np.allclose(values[i], values[j], atol=1e-3)


def test_each_member_is_a_critic_of_its_own(ensemble):
    module, parameters, observation, action = ensemble
    for each in (action[:, 0], action):
        values = module.apply({"params": parameters}, observation, each)
        assert values.shape == (3, *each.shape[:-1])
        for i in range(3):
            state = observation if each.ndim == 2 else np.repeat(observation[:, None], each.shape[1], axis=1)
            np.testing.assert_allclose(values[i], by_hand(member(parameters, i), state, each), rtol=1e-4, atol=1e-5)


def test_many_actions_a_state_equal_one_at_a_time(ensemble):
    module, parameters, observation, action = ensemble
    together = module.apply({"params": parameters}, observation, action)
    for n in range(action.shape[1]):
        alone = module.apply({"params": parameters}, observation, action[:, n])
        np.testing.assert_allclose(together[..., n], alone, rtol=1e-4, atol=1e-5)


def test_gradient_of_one_member_does_not_touch_the_others(ensemble):
    module, parameters, observation, action = ensemble
    gradient = jax.grad(lambda p: module.apply({"params": p}, observation, action)[1].sum())(parameters)
    assert all((leaf[np.array([0, 2])] == 0).all() for leaf in jax.tree.leaves(gradient))
    assert all((leaf[1] != 0).any() for leaf in jax.tree.leaves(gradient))


def test_layers_of_every_member_are_orthogonal_with_their_gains():
    init = jax.jit(CriticEnsemble((64, 32), members=2).init)
    parameters = init(KEY, jnp.zeros((1, 14)), jnp.zeros((1, 2)))["params"]
    weights = {x.shape[1:]: np.asarray(x, np.float64) for x in jax.tree.leaves(parameters) if x.ndim == 3}
    assert set(weights) == {(16, 64), (64, 32), (32, 1)}
    for shape, both in weights.items():
        gain = 0.01 if shape == (32, 1) else np.sqrt(2)
        for kernel in both:
            square = kernel @ kernel.T if shape[0] < shape[1] else kernel.T @ kernel
            np.testing.assert_allclose(square, gain**2 * np.eye(min(shape)), atol=1e-5 * gain**2)
    assert all((x == 0).all() for x in jax.tree.leaves(parameters) if x.ndim == 2)


def test_dictionaries_of_observations():
    observation = {"position": jnp.ones((3, 2)), "goal": jnp.zeros((3, 1))}
    module = CriticEnsemble(HIDDEN, output_gain=1.0)
    parameters = jax.jit(module.init)(KEY, observation, jnp.zeros((3, 2)))
    flat = jnp.concatenate([observation["goal"], observation["position"]], axis=-1)
    for action in (jnp.ones((3, 2)), jnp.ones((3, 4, 2))):
        named, plain = (module.apply(parameters, o, action) for o in (observation, flat))
        np.testing.assert_array_equal(named, plain)


def test_a_lone_critic_has_the_same_layers():
    init = jax.jit(Critic(HIDDEN, output_gain=1.0).init)
    parameters = init(KEY, jnp.zeros((1, 4)), jnp.zeros((1, 2)))["params"]
    observation, action = jax.random.normal(KEY, (5, 4)), jax.random.normal(KEY, (5, 2))
    value = Critic(HIDDEN).apply({"params": parameters}, observation, action)
    np.testing.assert_allclose(value, by_hand(parameters, observation, action), rtol=1e-4, atol=1e-5)
