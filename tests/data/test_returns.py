"""Monte-Carlo returns against hand numbers and against their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calql.data.returns import monte_carlo_returns


def by_definition(rewards, terminations, discount, failure_reward, tail_bootstrap):
    """G_t = Σ_k γ^k r_{t+k} up to the first termination at or after t, or to the end (plus the tail)."""
    count = len(rewards)
    if failure_reward is not None and all(r == failure_reward for r in rewards):
        return [failure_reward / (1 - discount)] * count
    returns = []
    for t in range(count):
        total, factor, alive = 0.0, 1.0, True
        for k in range(t, count):
            if alive:
                total += factor * rewards[k]
            alive = alive and not terminations[k]
            factor *= discount
        if alive and tail_bootstrap:
            total += factor * rewards[-1] / (1 - discount)
        returns.append(total)
    return returns


@given(
    steps=st.lists(st.tuples(st.sampled_from([-5.0, -1.0, 0.0, 2.5]), st.booleans()), min_size=1, max_size=30),
    discount=st.sampled_from([0.0, 0.5, 0.96, 0.99]),
    failure_reward=st.sampled_from([None, -5.0, -1.0]),
    tail_bootstrap=st.booleans(),
)
@settings(deadline=None)
def test_returns_are_the_definition(steps, discount, failure_reward, tail_bootstrap):
    rewards, ends = (np.array(x) for x in zip(*steps, strict=True))
    found = monte_carlo_returns(rewards, ends, discount, failure_reward, tail_bootstrap)
    expected = by_definition(rewards, ends, discount, failure_reward, tail_bootstrap)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_success_by_hand():
    found = monte_carlo_returns(np.array([-1.0, -1.0, 10.0]), np.array([False, False, True]), 0.5, failure_reward=-1.0)
    assert found.tolist() == [1.0, 4.0, 10.0]
    assert found.dtype == np.float32


@pytest.mark.parametrize("left", [0, 50, 300])
def test_closed_form_of_the_sparse_tasks(left):
    """Rewards −5 … −5, +5 at γ = 0.99: G = 505 · 0.99^k − 500 with k steps left."""
    rewards = np.full(301, -5.0)
    rewards[-1] = 5.0
    found = monte_carlo_returns(rewards, rewards > 0, 0.99, failure_reward=-5.0)
    np.testing.assert_allclose(found[300 - left], 505 * 0.99**left - 500, rtol=1e-5)


def test_an_episode_of_failures_is_worth_failing_for_ever():
    rewards, ends = np.full(3, -5.0, np.float32), np.zeros(3, bool)
    np.testing.assert_allclose(monte_carlo_returns(rewards, ends, 0.99, failure_reward=-5.0), -500.0, rtol=1e-6)
    np.testing.assert_allclose(monte_carlo_returns(rewards, ends, 0.5), [-8.75, -7.5, -5.0])


def test_the_failure_rule_looks_at_the_whole_episode():
    rewards, ends = np.array([-5.0, 5.0, -5.0]), np.array([False, True, False])
    np.testing.assert_allclose(monte_carlo_returns(rewards, ends, 0.5, failure_reward=-5.0), [-2.5, 5.0, -5.0])


def test_the_failure_rule_survives_float32_maps():
    rewards = np.float32(0.1) * np.full(4, -3.0, np.float32)
    np.testing.assert_allclose(monte_carlo_returns(rewards, np.zeros(4), 0.9, failure_reward=-0.3), -3.0, rtol=1e-5)


def test_the_tail_is_cut_at_a_termination_only():
    rewards = np.array([0.0, -1.0])
    assert monte_carlo_returns(rewards, np.array([False, False]), 0.5, tail_bootstrap=True).tolist() == [-1.0, -2.0]
    assert monte_carlo_returns(rewards, np.array([False, True]), 0.5, tail_bootstrap=True).tolist() == [-0.5, -1.0]
    assert monte_carlo_returns(rewards, np.array([False, False]), 0.5).tolist() == [-0.5, -1.0]
