"""SMAC once more in plain float64 NumPy: its losses and their gradients; and what the score-matching term asks for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref
import optax
import pytest
from fixed import STATE, A, B, batch, state_of
from test_wsrl import slopes

from calql.algorithms import SAC, SMAC
from calql.types import Spec, Transition

KEY = jax.random.key(4)
NETWORKS = dict(actor_hidden=(4,), critic_hidden=(5,), output_gain=1.0, num_critics=3, discount=0.9)
RULE = SMAC(**NETWORKS, num_target_actions=1, score_weight=0.7, score_temperature=0.6, score_noise=(0.2, 0.9))


def float64(tree):
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


def layers(network):
    """First weights and biases, last weights and biases of a network of one hidden layer."""
    (mlp,) = network.values()
    while "Dense_0" not in mlp:  # those of an ensemble are one level deeper
        (mlp,) = mlp.values()
    return tuple(mlp[layer][name] for layer in ("Dense_0", "output") for name in ("kernel", "bias"))


def mlp(network, x):
    w, b, v, c = layers(network)
    return np.maximum(x @ w + b, 0) @ v + c


def critic_number(critic, e):
    return jax.tree.map(lambda x: x[e], critic)


def slope_by_action(critic, observations, actions):
    """∇_a Q of one critic, [B, A]."""
    w, b, v, _ = layers(critic)
    active = np.concatenate([observations, actions], axis=-1) @ w + b > 0
    return (active * v[:, 0]) @ w[-A:].T


def predicted(value, observations, noised, level):
    return mlp(value, np.concatenate([observations, noised, np.log(level)[:, None]], axis=-1))


def draws(rule, actions, key):
    return (np.asarray(x, np.float64) for x in rule.noised(actions, key))


def test_the_action_gradient_of_the_reference_is_that_of_its_values():
    critic, data = critic_number(float64(state_of(RULE).critic), 0), float64(batch())
    step = 1e-6 * np.eye(A)
    ends = [
        [mlp(critic, np.concatenate([data.observations, data.actions + sign * d], axis=-1))[:, 0] for sign in (1, -1)]
        for d in step
    ]
    differences = np.stack([(up - down) / 2e-6 for up, down in ends], axis=-1)
    np.testing.assert_allclose(slope_by_action(critic, data.observations, data.actions), differences, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.6, None])
def test_the_critics_loss_and_its_gradient_in_numpy(temperature):
    rule = dataclasses.replace(RULE, score_temperature=temperature)
    state, rows = state_of(rule), batch()
    data, value, critic = float64(rows), float64(state.value), float64(state.critic)
    y = np.asarray(rule.target_q(state, rows, KEY), np.float64)
    noised, level, _ = draws(rule, rows.actions, jax.random.fold_in(KEY, 2))
    noise = predicted(value, data.observations, noised, level)
    kappa = np.exp(-0.7) if temperature is None else temperature

    def loss(critic):
        total = 0.0
        for e in range(3):
            alone = critic_number(critic, e)
            q = mlp(alone, np.concatenate([data.observations, data.actions], axis=-1))[:, 0]
            distance = [
                np.sum((sigma * slope + kappa * n) ** 2)
                for sigma, slope, n in zip(level, slope_by_action(alone, data.observations, noised), noise, strict=True)
            ]
            total += np.mean((q - y) ** 2) + 0.7 * np.mean(distance)
        return total

    (found, metrics), gradient = jax.jit(lambda *arguments: rule.critic_gradient(*arguments))(state, rows, KEY)
    np.testing.assert_allclose(found, loss(critic), rtol=1e-5)
    np.testing.assert_allclose(found, metrics["td_loss"] + 0.7 * metrics["score_loss"], rtol=1e-5)
    jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=1e-3, atol=1e-5), gradient, slopes(loss, critic))


def test_the_diffusion_model_s_loss_and_step_in_numpy():
    state, rows = state_of(RULE), batch()
    data, value = float64(rows), float64(state.value)
    noised, level, noise = draws(RULE, rows.actions, jax.random.fold_in(KEY, 2))

    def loss(value):
        return np.mean(np.sum((predicted(value, data.observations, noised, level) - noise) ** 2, axis=-1))

    new, metrics = jax.jit(lambda *arguments: RULE.update(*arguments))(state, rows, KEY)
    np.testing.assert_allclose(metrics["noise_loss"], loss(value), rtol=1e-5)
    expected = jax.tree.map(lambda x, g: ref.Adam(RULE.critic_lr).step(x, g), value, slopes(loss, value))
    jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=1e-3, atol=1e-6), new.value, expected)


def test_noise_is_normal_and_its_levels_are_uniform_in_their_logarithm():
    actions = jnp.full((20_000, A), 0.3)
    noised, level, noise = draws(RULE, actions, KEY)
    np.testing.assert_allclose(noised, 0.3 + level[:, None] * noise, atol=1e-6)
    assert level.min() >= 0.2 * (1 - 1e-6)
    assert level.max() <= 0.9 * (1 + 1e-6)
    quarters = [0.25, 0.5, 0.75]
    np.testing.assert_allclose(np.quantile(np.log(level / 0.2) / np.log(4.5), quarters), quarters, atol=0.02)
    np.testing.assert_allclose((noise.mean(), noise.std(), np.corrcoef(noise.T)[0, 1]), (0, 1, 0), atol=0.03)


def test_without_weight_it_is_sac():
    rule = dataclasses.replace(RULE, score_weight=0.0)
    sac = SAC(**NETWORKS, num_target_actions=1)
    state = state_of(rule)
    found, metrics = jax.jit(lambda *arguments: rule.update(*arguments))(state, batch(), KEY)
    plain = state._replace(value=None, value_optimizer=None)
    expected, of_sac = jax.jit(lambda *arguments: sac.update(*arguments))(plain, batch(), KEY)
    found = found._replace(value=None, value_optimizer=None)
    jax.tree.map(lambda x, z: np.testing.assert_allclose(x, z, rtol=1e-4, atol=1e-6), found, expected)
    assert metrics.keys() - of_sac.keys() == {"score_loss", "noise_loss"}


# -- what the term asks for --------------------------------------------------------------------------------------------

SPREAD = 0.3


def centre(observations):
    """Mean action of a Gaussian behaviour, whose standard deviation is SPREAD."""
    return jnp.tanh(observations[:, :A])


def gaussian_noise(observations, noised, level):
    """What a perfect diffusion model of that behaviour predicts."""
    return level[:, None] * (noised - centre(observations)) / (SPREAD**2 + jnp.square(level))[:, None]


def test_the_diffusion_model_finds_the_score_of_a_gaussian_behaviour():
    rule = SMAC(critic_hidden=(64, 64), output_gain=1.0, score_noise=(0.1, 1.0))
    value = rule.init(KEY, Spec(np.zeros(STATE, np.float32), A)).value
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 1_500))

    def rows(key):
        state_key, action_key = jax.random.split(key)
        observations = jax.random.normal(state_key, (256, STATE))
        actions = centre(observations) + SPREAD * jax.random.normal(action_key, (256, A))
        return Transition(observations, actions, None, None, None, None)

    @jax.jit
    def learn(value):
        def step(carry, i):
            value, moments = carry
            key = jax.random.fold_in(KEY, i)
            gradient = jax.grad(rule.noise_loss)(value, rows(key), jax.random.fold_in(key, 1))
            updates, moments = adam.update(gradient, moments)
            return (optax.apply_updates(value, updates), moments), None

        return jax.lax.scan(step, (value, adam.init(value)), jnp.arange(1_500))[0][0]

    data = rows(jax.random.fold_in(KEY, 10_000))
    noised, level, _ = rule.noised(data.actions, KEY)
    score, truth = (
        -noise / level[:, None]
        for noise in (
            rule.predicted_noise(learn(value), data.observations, noised, level),
            gaussian_noise(data.observations, noised, level),
        )
    )
    error = jnp.square(score - truth).mean() / jnp.square(truth).mean()
    assert error < 0.02


class Quadratic(SMAC):
    """Q_i(s, a) = −½ θ_i |a − centre(s)|², and a perfect diffusion model of the Gaussian behaviour."""

    def q_values(self, critic, observations, actions):
        distance = jnp.square(actions - centre(observations)).sum(axis=-1)
        return -0.5 * critic["q"][:, None] * distance[None]

    def predicted_noise(self, value, observations, noised, level):
        return gaussian_noise(observations, noised, level)


def test_a_critic_that_is_the_log_density_of_the_noised_data_has_no_reason_to_change():
    """Q = κ log p of the behaviour noised at one level; a steeper one is pulled back, a flatter one is made steeper."""
    level, kappa = 0.4, 0.6
    rule = Quadratic(score_temperature=kappa, score_noise=(level, level * 1.00001))
    right = kappa / (SPREAD**2 + level**2)
    state = state_of(RULE)._replace(target_critic={"q": jnp.ones(3)})

    def score_loss(theta):
        rows = (jnp.zeros(B), *rule.noised(batch().actions, KEY)[:2])
        noise = gaussian_noise(batch().observations, *rows[1:])
        return rule.critic_loss({"q": theta}, state, batch(), KEY, (*rows, noise))[1]["score_loss"]

    loss, gradient = jax.value_and_grad(score_loss)(jnp.array([right, 2 * right, 0.5 * right]))
    assert abs(gradient[0]) < 1e-5
    assert gradient[1] > 0.01
    assert gradient[2] < -0.01
    assert loss > 0.01
    assert score_loss(jnp.full(3, right)) < 1e-8
