"""What Cal-QL+ changes of Cal-QL; its losses are checked against NumPy in `test_losses`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed import SMALL, A, B, batch, q_of, state_of

from calql.algorithms import VARIANTS, CalQL, CalQLPlus
from calql.networks import sample_actions

KEY = jax.random.key(3)
PLUS = CalQLPlus(**SMALL, **VARIANTS["listing"], weigh_by_calibration=True)
PLAIN = CalQL(**SMALL, **VARIANTS["listing"])


def gradient(rule, returns):
    """Of the conservative term alone, by Q of the sampled and of the data's actions."""
    random = np.random.default_rng(0)
    q_ood = jnp.asarray(random.normal(size=(2, B, 8)), jnp.float32)
    q_data, log_density = jnp.zeros((2, B)), jnp.zeros((B, 8))

    def total(q_ood, q_data):
        return rule.conservative_gap(q_ood, log_density, q_data, jnp.full(B, returns)).sum()

    return jax.grad(total, (0, 1))(q_ood, q_data)


def test_no_conservatism_where_every_policy_action_lies_below_the_reference():
    for part in gradient(PLUS, 50.0):
        np.testing.assert_array_equal(part, 0.0)
    assert all((part != 0).any() for part in gradient(PLAIN, 50.0))  # Cal-QL pushes data up and random actions down


def test_all_of_it_where_none_does():
    jax.tree.map(np.testing.assert_array_equal, gradient(PLUS, -50.0), gradient(PLAIN, -50.0))


def test_without_its_weight_it_is_cal_ql():
    plain = CalQLPlus(**SMALL, **VARIANTS["listing"])
    for returns in (-50.0, 0.0, 50.0):
        jax.tree.map(np.testing.assert_array_equal, gradient(plain, returns), gradient(PLAIN, returns))


@pytest.mark.parametrize("candidates", [1, 2, 20])
def test_collection_takes_the_best_of_several_samples(candidates):
    rule = CalQLPlus(**SMALL, acting_candidates=candidates)
    state, observations = state_of(rule), batch().observations
    samples, _ = sample_actions(KEY, *rule.pi(state.actor, observations), count=candidates)
    best = q_of(rule, state.critic, observations, samples).mean(axis=0).argmax(axis=1)
    expected = np.asarray(samples)[np.arange(B), best]
    if candidates == 1:
        expected = CalQL.act(rule, state, observations, KEY)
    else:
        assert best.any()
    action = rule.act(state, observations, KEY)
    assert action.shape == (B, A)
    np.testing.assert_allclose(action, expected, rtol=1e-6)
    np.testing.assert_array_equal(rule.act(state, observations), CalQL.act(rule, state, observations))
