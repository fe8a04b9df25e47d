"""`import calql` is the library: few names, each documented, none of which costs anything before it is used."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import calql
from calql.types import InputError
from calql.units import ActionBounds

ROOT = Path(__file__).resolve().parents[1]


def test_there_are_at_most_25_names_and_all_of_them_exist():
    assert len(calql.__all__) <= 25
    for name in calql.__all__:
        assert getattr(calql, name) is not None
        assert name in dir(calql)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = calql.nothing


def test_every_name_stands_on_the_library_s_page_and_has_a_docstring():
    page = (ROOT / "docs" / "library.md").read_text()
    for name in calql.__all__:
        assert f"`{name}" in page or f".{name}" in page, name
        assert isinstance(getattr(calql, name), dict) or getattr(calql, name).__doc__, name


def test_importing_it_imports_nothing_heavy():
    heavy = {"jax", "numpy", "gymnasium", "mujoco", "minari", "matplotlib"}
    code = f"import sys, calql; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of Cal-QL on the default task, from Python."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    experiment = calql.experiment("pointmaze-medium-narrow", "cal-ql", "smoke", options={"online_steps": 60})
    summary = calql.train(experiment, folder)
    assert 0 <= summary["score_before"] <= 1
    return folder


def test_a_policy_acts_in_the_environment_s_unit_and_its_q_is_the_critics(run):
    policy = calql.load_policy(run)
    observation = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    action = policy.act(observation)
    assert action.shape == (2,)
    unit = policy.side_by_side(1)(observation[None], np.zeros(1, np.int32), np.zeros(1, np.float32))[0]
    np.testing.assert_allclose(action, unit, rtol=1e-6)  # this environment takes [−1, 1]
    policy.bounds = ActionBounds(np.array([-2.0, 0.0]), np.array([2.0, 10.0]))  # and as if it did not
    np.testing.assert_allclose(policy.act(observation), [2 * unit[0], 5 * (unit[1] + 1)], rtol=1e-5)
    scaled = policy.act(observation)
    q = policy.q(observation, scaled)
    expected = policy.algorithm.q_values(policy.state.critic, observation[None], unit[None])[:, 0]
    np.testing.assert_allclose(q, expected, rtol=1e-4, atol=1e-5)
    assert policy.q(observation, np.stack([scaled] * 3)).shape == (len(q), 3)


def test_a_policy_with_a_memory_acts_as_in_a_rollout(tmp_path):
    experiment = calql.experiment("pointmaze-medium-narrow", "odt", "smoke", options={"online_steps": 60})
    calql.train(experiment, tmp_path / "run")
    policy = calql.load_policy(tmp_path / "run")
    rollout = policy.side_by_side(1)
    rewards = [0.0, 1.0, 0.0]
    for step, reward in enumerate(rewards):
        observation = np.full(4, 0.1 * step, np.float32)
        paid = np.float32(policy.task.rewards.map(reward) if step else 0.0)
        wanted = rollout(observation[None], np.array([step], np.int32), paid[None])[0]
        np.testing.assert_allclose(policy.act(observation, reward), wanted, rtol=1e-6)
    first = policy.act(np.zeros(4, np.float32))
    policy.reset()
    assert not np.allclose(policy.act(np.zeros(4, np.float32)), first)
    with pytest.raises(InputError, match="learns no Q"):
        policy.q(np.zeros(4, np.float32), np.zeros(2))


def test_evaluate_returns_what_the_command_prints(run):
    row = calql.evaluate(run, episodes=2, step="pretrained")
    assert row["grad_step"] == 60
    assert {"score_mean", "return_mean", "length_mean", "episodes", "task", "method"} <= row.keys()
    assert calql.evaluate(calql.load_policy(run, "pretrained"), episodes=2) == row


def test_data_are_loaded_and_checked(run):
    data = calql.load("local:pointmaze-medium-narrow")
    report = calql.check(data, calql.TASKS["pointmaze-medium-narrow"])
    assert not report.errors
    assert report.facts["episodes"] == data.num_episodes
