"""The online decision transformer: its loss against NumPy, what it may see, and what it remembers while it acts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import pytest
from fixed import STATE, A, B

from calql.algorithms import ODT
from calql.types import Spec, Window

KEY = jax.random.key(3)
K = 4
MODEL = ODT(
    odt_width=8, odt_layers=2, odt_heads=2, odt_context=K, odt_acting_context=3, odt_dropout=0.0, odt_warmup=1,
    actor_lr=1e-2,
)  # fmt: skip
SPEC = Spec(
    np.zeros(STATE, np.float32),
    A,
    mean=np.arange(STATE, dtype=np.float32),
    std=np.full(STATE, 2.0, np.float32),
    best_return=-7.0,
)


def lively(state):
    """A state whose outputs are not nearly zero."""
    keys = jax.random.split(KEY, len(jax.tree.leaves(state.actor)))
    leaves, structure = jax.tree.flatten(state.actor)
    noisy = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return state._replace(actor=jax.tree.unflatten(structure, noisy))


STATE_0 = lively(jax.jit(lambda key: MODEL.init(key, SPEC))(KEY))
PI = jax.jit(MODEL.pi)


def window(seed=0, length=K):
    rng = np.random.default_rng(seed)
    rows = np.arange(length)[None] + np.array([0, 3, 5, 0, 9])[:, None]
    valid = np.arange(length)[None] < np.array([length, 1, length - 1, 2, length])[:, None]
    return Window(
        jnp.float32(rng.normal(size=(B, length, STATE))),
        jnp.float32(rng.uniform(-0.9, 0.9, (B, length, A))),
        jnp.float32(rng.normal(size=(B, length))),
        jnp.int32(rows),
        jnp.asarray(valid),
    )


def test_loss_is_the_mean_over_valid_steps(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.full(shape, 0.3, jnp.float32))
    data = window()
    loss, (log_pi, entropy) = MODEL.actor_loss(STATE_0.actor, STATE_0, data, KEY)
    mean, log_std = (np.float64(x) for x in PI(STATE_0.actor, STATE_0, data))
    valid = np.asarray(data.valid)
    by_hand = ref.log_prob(mean, log_std, np.arctanh(np.float64(data.actions)))[valid].mean()
    drawn = ref.log_prob(mean, log_std, mean + 0.3 * np.exp(log_std))[valid].mean()
    np.testing.assert_allclose(log_pi, by_hand, rtol=1e-4)
    np.testing.assert_allclose(entropy, -drawn, rtol=1e-4)
    np.testing.assert_allclose(loss, -by_hand - 0.1 * -drawn, rtol=1e-4)  # the temperature starts at 0.1


def test_temperature_rises_while_the_entropy_is_below_its_target():
    for entropy, sign in ((-A - 1.0, -1), (-A + 1.0, 1)):
        slope = jax.grad(MODEL.temperature_loss)(STATE_0.log_temperature, jnp.float32(entropy), A)
        assert np.sign(slope) == sign  # gradient descent goes the other way
    np.testing.assert_allclose(MODEL.temperature_loss(jnp.log(0.5), jnp.float32(1.0), A), 0.5 * (1.0 + A), rtol=1e-6)


def test_states_are_normalised_by_the_data():
    data = window()
    shifted = data._replace(observations=jnp.asarray(np.asarray(data.observations) * SPEC.std + SPEC.mean))
    plain = STATE_0._replace(mean=jnp.zeros(STATE), std=jnp.ones(STATE))
    for one, two in zip(PI(STATE_0.actor, STATE_0, shifted), PI(STATE_0.actor, plain, data), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["observations", "actions", "to_go", "timesteps"])
def test_an_action_follows_from_the_past_alone(name):
    """Row 2 sees returns, states and steps up to row 2, actions up to row 1, and no row that is not valid."""
    data = window()._replace(valid=jnp.ones((B, K), bool))
    before = PI(STATE_0.actor, STATE_0, data)[0]
    for row in range(K):
        changed = data._replace(**{name: getattr(data, name).at[:, row].add(1)})
        after = PI(STATE_0.actor, STATE_0, changed)[0]
        moved = np.abs(after - before).max(axis=(0, 2)) > 1e-6
        assert moved.tolist() == [i > row or (i == row and name != "actions") for i in range(K)]
    blind = data._replace(valid=data.valid.at[:, 1].set(False))
    other = blind._replace(**{name: getattr(blind, name).at[:, 1].add(1)})
    np.testing.assert_allclose(*(PI(STATE_0.actor, STATE_0, x)[0][:, 2:] for x in (blind, other)), atol=1e-6)


def test_acting_is_the_forward_pass_over_the_last_steps():
    rng, length = np.random.default_rng(0), MODEL.odt_acting_context
    observations, rewards = rng.normal(size=(6, B, STATE)), rng.normal(size=(6, B))
    rewards[0] = 0
    memory, taken = MODEL.blank(SPEC, B), []
    act = jax.jit(MODEL.act_in_context)
    for t in range(6):
        steps = np.full(B, t, np.int32)
        actions, memory = act(STATE_0, memory, jnp.float32(observations[t]), steps, jnp.float32(rewards[t]))
        taken.append(np.asarray(actions))
        seen = range(max(0, t - length + 1), t + 1)
        data = Window(
            jnp.float32(np.stack([observations[i] for i in seen], 1)),
            jnp.float32(np.stack([taken[i] for i in seen], 1)),
            jnp.float32(np.stack([-7.0 - rewards[: i + 1].sum(0) for i in seen], 1)),  # the data's best return
            jnp.broadcast_to(jnp.int32(list(seen)), (B, len(seen))),
            jnp.ones((B, len(seen)), bool),
        )
        expected = np.tanh(PI(STATE_0.actor, STATE_0, data)[0][:, -1])
        np.testing.assert_allclose(actions, expected, rtol=1e-3, atol=1e-5)


def test_an_episode_knows_nothing_of_the_one_before():
    rng = np.random.default_rng(0)
    act = jax.jit(MODEL.act_in_context)
    memory = MODEL.blank(SPEC, B)
    for t in range(3):
        _, memory = act(STATE_0, memory, jnp.float32(rng.normal(size=(B, STATE))), np.full(B, t, np.int32), jnp.ones(B))
    now = jnp.float32(rng.normal(size=(B, STATE)))
    start = np.zeros(B, np.int32)
    again, _ = act(STATE_0, memory, now, start, jnp.zeros(B))
    fresh, _ = act(STATE_0, MODEL.blank(SPEC, B), now, start, jnp.zeros(B))
    np.testing.assert_allclose(again, fresh, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("asked", "online"), [(None, 0.0), (1.0, 2.0), (-3.0, 0.0)])
def test_online_it_asks_for_more_than_anybody_reached(asked, online):
    model = dataclasses.replace(MODEL, odt_return=asked)
    blank, now = model.blank(SPEC, B), jnp.zeros((B, STATE))
    arguments = STATE_0, blank, now, np.zeros(B, np.int32), jnp.zeros(B)
    offline = model.act_in_context(*arguments)[1].to_go[:, -1]
    np.testing.assert_allclose(offline, -7.0 if asked is None else asked)
    np.testing.assert_allclose(model.act_in_context(*arguments, KEY)[1].to_go[:, -1], online)
