"""The tanh-Gaussian policy and its density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from calql.networks import MLP, TanhGaussianPolicy, flatten_observation, gaussian_tanh_log_prob, sample_actions

KEY = jax.random.key(0)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.3), (0.2, -3.0)])
def test_density_integrates_to_one(mean, log_std):
    def density(u):  # ∫ π(a) da = ∫ π(tanh u) (1 − tanh² u) du
        log_pi = gaussian_tanh_log_prob(jnp.array([mean]), jnp.array([log_std]), jnp.asarray(u, jnp.float32)[..., None])
        return np.exp(np.asarray(log_pi, np.float64)) * (1 - np.tanh(u) ** 2)

    u = mean + np.exp(log_std) * np.linspace(-8, 8, 4001)
    u = u[np.abs(u) < 8]
    inside = stats.norm.cdf([u[0], u[-1]], mean, np.exp(log_std))
    with jax.numpy_rank_promotion("allow"):
        assert integrate.trapezoid(density(u), u) == pytest.approx(inside[1] - inside[0], abs=1e-4)


def test_density_equals_scipys_with_the_change_of_variables():
    rng = np.random.default_rng(0)
    mean, log_std, u = rng.normal(size=(7, 3)), rng.uniform(-2, 1, (7, 3)), rng.normal(size=(7, 3))
    expected = stats.norm.logpdf(u, mean, np.exp(log_std)) - np.log1p(-(np.tanh(u) ** 2))
    actual = gaussian_tanh_log_prob(*(jnp.asarray(x, jnp.float32) for x in (mean, log_std, u)))
    np.testing.assert_allclose(actual, expected.sum(-1), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("u", [-1e4, -50.0, -20.0, 20.0, 50.0, 1e4])
def test_density_stays_finite_and_right_far_out(u):
    mean, log_std = jnp.array([u]), jnp.array([0.0])
    value, gradient = jax.value_and_grad(gaussian_tanh_log_prob, 2)(mean, log_std, jnp.array([u]))
    # log (1 − tanh² u) → log 4 − 2 |u|
    assert value == pytest.approx(-0.5 * np.log(2 * np.pi) - np.log(4) + 2 * abs(u), rel=1e-5)
    assert gradient[0] == pytest.approx(2 * np.sign(u), rel=1e-4)


def test_samples_carry_their_own_density():
    mean, log_std = jnp.array([[0.1, -0.4], [0.6, 0.0]]), jnp.array([[-1.0, 0.2], [-0.5, -2.0]])
    for count in (None, 1, 6):
        actions, log_pi = sample_actions(KEY, mean, log_std, count)
        assert actions.shape == ((2, 2) if count is None else (2, count, 2))
        assert log_pi.shape == actions.shape[:-1]
        wide = (mean, log_std) if count is None else (mean[:, None], log_std[:, None])
        u = np.arctanh(np.asarray(actions, np.float64))
        expected = (stats.norm.logpdf(u, wide[0], np.exp(wide[1])) - np.log1p(-(np.tanh(u) ** 2))).sum(-1)
        np.testing.assert_allclose(log_pi, expected, rtol=1e-3, atol=1e-3)


def test_samples_are_distributed_as_the_density_says():
    mean, log_std = jnp.array([[0.3, -0.8]]), jnp.array([[-0.7, 0.1]])
    actions, _ = sample_actions(KEY, mean, log_std, 4000)
    for i in range(2):
        u = np.arctanh(np.asarray(actions[0, :, i], np.float64))
        assert stats.kstest(u, stats.norm(float(mean[0, i]), float(np.exp(log_std[0, i]))).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.arctanh(np.asarray(actions[0], np.float64)).T)[0, 1]) < 0.06


@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize("log_std", [-1.0, -5.0, -8.0, -14.0, -20.0])
def test_densities_of_narrow_policies_are_those_of_float64(log_std, count):
    """In float32 (u − mean) / std has no correct digit at a log-std of −20; the drawn noise has all."""
    mean = np.float32(np.random.default_rng(0).normal(size=(64, 8)))
    wide = mean.shape if count is None else (64, count, 8)
    noise = np.asarray(jax.random.normal(KEY, wide), np.float64)

    def by_hand(mean, log_std):
        centre = mean if count is None else mean[:, None]
        u = centre + np.exp(log_std) * noise
        normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        return (normal - 2 * (np.log(2) - u - np.logaddexp(0, -2 * u))).sum(-1)

    def total(mean, log_std):
        return sample_actions(KEY, mean, log_std, count)[1].sum()

    narrow = jnp.full(mean.shape, log_std)
    _, log_pi = sample_actions(KEY, jnp.asarray(mean), narrow, count)
    np.testing.assert_allclose(log_pi, by_hand(np.float64(mean), log_std), rtol=1e-6, atol=3e-5)
    # d log π / d mean = 2 tanh(u), summed over the samples; d / d log-std = −1 + 2 tanh(u) · std · noise.
    slopes = jax.grad(total, (0, 1))(jnp.asarray(mean), narrow)
    centre = np.float64(mean) if count is None else np.float64(mean)[:, None]
    along = 2 * np.tanh(centre + np.exp(log_std) * noise)
    for slope, each in zip(slopes, (along, along * np.exp(log_std) * noise - 1), strict=True):
        np.testing.assert_allclose(slope, each if count is None else each.sum(1), rtol=1e-5, atol=1e-5)


def kernels(parameters):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(parameters) if x.ndim == 2]


def test_layers_are_orthogonal_with_their_gains_and_biases_are_zero():
    hidden = (64, 32)
    parameters = MLP(hidden, 4, 0.01).init(KEY, jnp.zeros((1, 16)))["params"]
    found = {kernel.shape: kernel for kernel in kernels(parameters)}
    assert set(found) == {(16, 64), (64, 32), (32, 4)}
    for shape, kernel in found.items():
        gain = 0.01 if shape == (32, 4) else np.sqrt(2)
        square = kernel @ kernel.T if shape[0] < shape[1] else kernel.T @ kernel
        np.testing.assert_allclose(square, gain**2 * np.eye(min(shape)), atol=1e-5 * gain**2)
    assert all((x == 0).all() for x in jax.tree.leaves(parameters) if x.ndim == 1)


def test_log_std_is_a_learned_affine_map_that_starts_at_1_and_minus_1():
    policy = TanhGaussianPolicy((8,), 2, output_gain=1.0)
    parameters = policy.init(KEY, jnp.zeros((1, 3)))["params"]
    scalars = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(parameters) if v.ndim == 0}
    assert {name.strip("[']"): float(value) for name, value in scalars.items()} == {
        "log_std_multiplier": 1.0,
        "log_std_offset": -1.0,
    }
    observation = jax.random.normal(KEY, (5, 3))
    mean, log_std = policy.apply({"params": parameters}, observation)
    changed = parameters | {"log_std_multiplier": jnp.float32(0.5), "log_std_offset": jnp.float32(0.25)}
    same_mean, other = policy.apply({"params": changed}, observation)
    np.testing.assert_array_equal(mean, same_mean)
    np.testing.assert_allclose(other, 0.5 * (log_std + 1.0) + 0.25, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda p: policy.apply({"params": p}, observation)[1].sum())(parameters)
    assert gradient["log_std_offset"] == 10  # learned: every entry moves with it
    assert gradient["log_std_multiplier"] != 0


@pytest.mark.parametrize(("offset", "limit"), [(-100.0, -20.0), (100.0, 2.0)])
def test_log_std_is_clipped(offset, limit):
    policy = TanhGaussianPolicy((8,), 2, log_std_offset=offset)
    parameters = policy.init(KEY, jnp.zeros((1, 3)))
    assert (policy.apply(parameters, jnp.ones((4, 3)))[1] == limit).all()


def test_mean_and_log_std_are_two_halves_of_one_network():
    policy, observation = TanhGaussianPolicy((8,), 2, output_gain=1.0), jax.random.normal(KEY, (5, 3))
    parameters = policy.init(KEY, jnp.zeros((1, 3)))["params"]
    first, last = sorted(kernels(parameters), key=lambda k: k.shape[0])
    raw = np.maximum(np.asarray(observation) @ first, 0) @ last
    mean, log_std = policy.apply({"params": parameters}, observation)
    np.testing.assert_allclose(mean, raw[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_std, raw[:, 2:] - 1.0, rtol=1e-4, atol=1e-5)


def test_flattening_a_dictionary_follows_the_order_of_its_keys():
    a, b = jnp.arange(6.0).reshape(2, 3), jnp.array([[10.0], [11.0]])
    np.testing.assert_array_equal(flatten_observation({"z": a, "b": b}), np.concatenate([b, a], axis=-1))
    np.testing.assert_array_equal(flatten_observation(a), a)
