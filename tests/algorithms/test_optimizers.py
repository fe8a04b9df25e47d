"""Muon against plain NumPy, which networks it moves, and the counter that the policy delay reads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed import STATE, A, batch, state_of
from test_update import ACTOR_CRITICS, small, update_of

from calql.algorithms import BC, TD3BC, CalQL, optimizers
from calql.types import Spec

RATE = 0.01


def orthogonalised(x):
    """Five Newton–Schulz iterations of the momentum, at most as high as wide."""
    if len(x) > len(x[0]):
        return orthogonalised(x.T).T
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def nesterov(gradients, decay):
    """Momentum with look-ahead after the last of the gradients."""
    mean, t = 0.0, len(gradients)
    for gradient in gradients:
        mean = decay * mean + (1 - decay) * gradient
    return decay * mean / (1 - decay ** (t + 1)) + (1 - decay) * gradients[-1] / (1 - decay**t)


def muon(gradients):
    """The step of one matrix after these gradients."""
    step = orthogonalised(nesterov(gradients, 0.95))
    return -RATE * 0.2 * np.sqrt(max(step.shape)) * step


def adam(gradients):
    """The step of any other array."""
    square = 0.0
    for gradient in gradients:
        square = 0.999 * square + 0.001 * gradient**2
    return -RATE * nesterov(gradients, 0.9) / (np.sqrt(square / (1 - 0.999 ** len(gradients))) + 1e-8)


def expected(path, gradients):
    """Weights [E, in, out] are E matrices, those of a convolution one; everything else moves as in Adam."""
    if path[-1].key != "kernel":
        return adam(gradients)
    shape = gradients[0].shape
    rows = [g.reshape(-1, *shape[-2:]) if len(shape) < 4 else g.reshape(1, -1, shape[-1]) for g in gradients]
    return np.stack([muon([g[e] for g in rows]) for e in range(len(rows[0]))]).reshape(shape)


@pytest.mark.parametrize("images", [False, True])
def test_muon_in_numpy(images):
    rule = small(CalQL, num_critics=3, critic_layer_norm=True)
    seen = {"image": np.zeros((8, 8, 3), np.uint8)} if images else np.zeros(STATE, np.float32)
    parameters = jax.jit(lambda key: rule.init(key, Spec(seen, A)))(jax.random.key(0)).critic
    optimizer, rng = optimizers.make("muon", RATE), np.random.default_rng(1)
    state, gradients = optimizer.init(parameters), []
    for _ in range(3):
        gradients.append(jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), parameters))
        found, state = optimizer.update(gradients[-1], state, parameters)
        wanted = jax.tree_util.tree_map_with_path(lambda path, *steps: expected(path, steps), *gradients)
        jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=2e-3, atol=2e-6), found, wanted)
    assert any(x.ndim == 4 for x in jax.tree.leaves(parameters)) == images


@pytest.mark.parametrize("shape", [(8, 8), (64, 16), (16, 256)])
def test_its_steps_have_about_the_size_of_adam_s(shape):
    gradient = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)}
    optimizer = optimizers.make("muon", RATE)
    found, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert 0.1 * RATE < float(jnp.sqrt(jnp.square(found["kernel"]).mean())) < 0.4 * RATE


@pytest.mark.parametrize("rule", ACTOR_CRITICS)
def test_every_network_of_every_rule_is_moved_by_it(rule):
    """All but the encoders of the policies, which are copies."""
    algorithm = small(rule, optimizer="muon")
    state = state_of(algorithm)
    new, _ = update_of(algorithm)(state, batch(), jax.random.key(0))
    plain = state_of(dataclasses.replace(algorithm, optimizer="adam"))
    for part in ("actor_optimizer", "critic_optimizer", "value_optimizer"):
        used, other = getattr(state, part), getattr(plain, part)
        assert (used is None) == (other is None)
        assert used is None or jax.tree.structure(used) != jax.tree.structure(other)
        if used is not None and (part != "actor_optimizer" or getattr(rule, "actor_every", 1) == 1):
            assert optimizers.steps_taken(getattr(new, part)) == 1


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_the_policy_delay_counts_the_steps_of_the_critics(kind):
    algorithm = small(TD3BC, optimizer=kind, actor_every=3)
    state, moved = state_of(algorithm), []
    for step in range(6):
        new, _ = update_of(algorithm)(state, batch(seed=step), jax.random.key(step))
        moved.append(any((x != z).any() for x, z in zip(*map(jax.tree.leaves, (new.actor, state.actor)), strict=True)))
        state = new
    assert moved == [False, False, True, False, False, True]
    assert optimizers.steps_taken(state.critic_optimizer) == 6


def test_behaviour_cloning_has_no_choice():
    assert not hasattr(BC(), "optimizer")
