"""Q against rollouts at one state, on a problem with known answers; then in runs that are stopped and taken over."""

import gymnasium
import numpy as np
import pytest

from calql.evaluation.slices import POINTS, q_slice
from calql.tasks import Task


class TwoSteps(gymnasium.Env):
    """First pays its first action's component 1, then, with the action of the policy, that action's component 0."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        self.seeds = [*getattr(self, "seeds", []), seed]
        return np.array([7.0], np.float32), {}

    def step(self, action):
        reward = float(action[1 - self.steps])
        self.steps += 1
        return np.array([8.0], np.float32), reward, self.steps == 2, False, {}


def test_rows_are_q_and_the_mean_return_of_what_follows():
    env = TwoSteps()
    task = Task(id="two", env=TwoSteps, horizon=5, data=None)

    def q(observation, actions):
        assert observation == 7.0
        np.testing.assert_array_equal(actions[:, 0], np.float32(0.3))
        return 2 * actions[:, 1]

    def policy(number):
        then = 0.7 if number is None else 0.1 * (number % 10)
        return lambda observations, steps, rewards: np.array([[then, 0.0]], np.float32)

    rows = list(
        q_slice(env, task, np.array([0.3, 0.5]), 1, 11, q, policy, lambda episode: float(episode.rewards.sum()))
    )
    action = np.linspace(-1, 1, POINTS)
    np.testing.assert_allclose([row["action"] for row in rows], action, atol=1e-6)
    np.testing.assert_allclose([row["q"] for row in rows], 2 * action, atol=1e-6)
    np.testing.assert_allclose([row["return_mean"] for row in rows], action + 0.45, atol=1e-6)
    np.testing.assert_allclose([row["return_deterministic"] for row in rows], action + 0.7, atol=1e-6)
    spread = np.std(0.1 * np.arange(10), ddof=1) / np.sqrt(10)
    assert [row["return_sem"] for row in rows] == pytest.approx([spread] * POINTS, rel=1e-5)
    assert set(env.seeds) == {11}
