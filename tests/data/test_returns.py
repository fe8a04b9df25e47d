"""Monte-Carlo returns against hand numbers and against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calql.rewards import Rewards
from calql.types import InputError


def returns_of(rewards, ends, discount, failing=None, tail=False):
    return Rewards(failing=failing).returns(rewards, ends, discount, tail)


def by_definition(rewards, terminations, discount, failing, tail):
    """G_t = Σ_k γ^k r_{t+k} up to the first termination at or after t, or to the end (plus the tail)."""
    count = len(rewards)
    fails = failing is not None and all(r == failing for r in rewards)
    returns = []
    for t in range(count):
        total, factor, alive = 0.0, 1.0, True
        for k in range(t, count):
            if alive:
                total += factor * rewards[k]
            alive = alive and not terminations[k]
            factor *= discount
        if alive and (fails or tail):
            total += factor * rewards[-1] / (1 - discount)
        returns.append(total)
    return returns


@given(
    steps=st.lists(st.tuples(st.sampled_from([-5.0, -1.0, 0.0, 2.5]), st.booleans()), min_size=1, max_size=30),
    discount=st.sampled_from([0.0, 0.5, 0.96, 0.99]),
    failing=st.sampled_from([None, -5.0, -1.0]),
    tail=st.booleans(),
)
@settings(deadline=None)
def test_returns_are_the_definition(steps, discount, failing, tail):
    rewards, ends = (np.array(x) for x in zip(*steps, strict=True))
    found = returns_of(rewards, ends, discount, failing, tail)
    expected = by_definition(rewards, ends, discount, failing, tail)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_success_by_hand():
    found = returns_of(np.array([-1.0, -1.0, 10.0]), np.array([False, False, True]), 0.5, failing=-1.0)
    assert found.tolist() == [1.0, 4.0, 10.0]
    assert found.dtype == np.float32


@pytest.mark.parametrize("left", [0, 50, 300])
def test_closed_form_of_the_sparse_tasks(left):
    """Rewards −5 … −5, +5 at γ = 0.99: G = 505 · 0.99^k − 500 with k steps left."""
    rewards = np.full(301, -5.0)
    rewards[-1] = 5.0
    found = returns_of(rewards, rewards > 0, 0.99, failing=-5.0)
    np.testing.assert_allclose(found[300 - left], 505 * 0.99**left - 500, rtol=1e-5)


def test_an_episode_of_failures_is_worth_failing_for_ever():
    rewards, ends = np.full(3, -5.0, np.float32), np.zeros(3, bool)
    np.testing.assert_allclose(returns_of(rewards, ends, 0.99, failing=-5.0), -500.0, rtol=1e-6)
    np.testing.assert_allclose(returns_of(rewards, ends, 0.5), [-8.75, -7.5, -5.0])


def test_the_failure_rule_looks_at_the_whole_episode():
    rewards, ends = np.array([-5.0, 5.0, -5.0]), np.array([False, True, False])
    np.testing.assert_allclose(returns_of(rewards, ends, 0.5, failing=-5.0), [-2.5, 5.0, -5.0])


def test_the_failure_rule_survives_float32_maps():
    rewards = np.float32(0.1) * np.full(4, -3.0, np.float32)
    np.testing.assert_allclose(returns_of(rewards, np.zeros(4), 0.9, failing=-0.3), -3.0, rtol=1e-5)


def test_the_tail_is_cut_at_a_termination_only():
    rewards = np.array([0.0, -1.0])
    assert returns_of(rewards, np.array([False, False]), 0.5, tail=True).tolist() == [-1.0, -2.0]
    assert returns_of(rewards, np.array([False, True]), 0.5, tail=True).tolist() == [-0.5, -1.0]
    assert returns_of(rewards, np.array([False, False]), 0.5).tolist() == [-0.5, -1.0]


def test_a_fall_is_worth_what_it_paid():
    """An episode that fails at every step and terminates has a known return; only what a clock cut would go on."""
    rewards, fell = np.full(3, -1.0), np.array([False, False, True])
    assert returns_of(rewards, fell, 0.5, failing=-1.0).tolist() == [-1.75, -1.5, -1.0]
    assert returns_of(rewards, fell[::-1], 0.5, failing=-1.0).tolist() == [-1.0, -2.0, -2.0]


def test_returns_are_those_of_mapped_rewards():
    pays = Rewards(scale=10.0, bias=-5.0, failing=0.0)
    ends = np.array([False, True])
    assert pays.returns(np.array([0.0, 1.0], np.float32), ends, 0.5).tolist() == [-2.5, 5.0]
    assert pays.returns(np.zeros(2, np.float32), np.zeros(2, bool), 0.5).tolist() == [-10.0, -10.0]


def test_success_is_told_by_the_rewards_where_they_can():
    raw = np.array([-1.0, 0.0, 4.0])
    assert Rewards(scale=10.0, failing=-1.0).successes(raw).tolist() == [False, True, True]
    assert Rewards(bias=-4.0, low=0.0, high=4.0).successes(raw).tolist() == [False, False, True]
    assert Rewards(low=-1.0).successes(raw) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0.0}, "rewards.scale is 0.0"),
        ({"bias": float("nan")}, "rewards.bias is nan"),
        ({"high": float("inf")}, "rewards.high is inf"),
        ({"low": 1.0, "high": 0.0}, "rewards.low 1.0 lies above"),
    ],
)
def test_rewards_that_cannot_be_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Rewards(**fields)
