"""The known answers of the probes follow from the environments themselves."""

import numpy as np
import pytest
from probes import PROBES, ProbeEnv, probe_dataset

GAMMA = 0.9


@pytest.mark.parametrize("name", PROBES)
def test_q_is_the_discounted_return_of_the_environment(name):
    probe, rng = PROBES[name], np.random.default_rng(0)
    for seed in range(20):
        env = ProbeEnv(name)
        observation, _ = env.reset(seed=seed)
        steps, terminated = [], False
        while not terminated:
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            following, reward, terminated, truncated, info = env.step(action)
            assert env.observation_space.contains(following)
            assert not truncated
            assert info["success"] == terminated
            steps.append((float(observation[0]), float(action[0]), reward))
            observation = following
        value = 0.0
        for state, action, reward in reversed(steps):
            value = reward + GAMMA * value
            assert value == pytest.approx(probe.q(state, action, GAMMA))
        assert len(steps) == probe.length


@pytest.mark.parametrize("name", PROBES)
def test_best_action_maximises_q(name):
    probe, grid = PROBES[name], np.linspace(-1, 1, 401)
    for state in probe.starts:
        q = np.broadcast_to(probe.q(state, grid, GAMMA), grid.shape)
        if probe.best_action is None:
            assert np.ptp(q) == 0
        else:
            assert grid[np.argmax(q)] == pytest.approx(probe.best_action(state))


@pytest.mark.parametrize("behaviour", ["uniform", "expert"])
@pytest.mark.parametrize("name", PROBES)
def test_dataset(name, behaviour):
    episodes, again = (probe_dataset(name, 50, seed=3, behaviour=behaviour) for _ in range(2))
    probe = PROBES[name]
    assert len(episodes) == 50
    assert {float(episode.observations[0, 0]) for episode in episodes} == set(probe.starts)
    for episode, other in zip(episodes, again, strict=True):
        assert episode.length == probe.length
        assert episode.observations.shape == (probe.length + 1, 1)
        assert episode.terminations[-1]
        assert not episode.truncated
        np.testing.assert_array_equal(episode.actions, other.actions)
        np.testing.assert_array_equal(episode.observations, other.observations)
        if behaviour == "expert" and probe.best_action is not None:
            np.testing.assert_allclose(episode.actions, probe.best_action(episode.observations[:-1]))
