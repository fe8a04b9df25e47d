"""The policy in examples/policy: it loads, fits its environment, and does what its card says."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

import calql
from calql.export import act, load
from calql.tasks import load_attribute
from calql.training.policy import evaluation_seeds

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "policy"
EPISODES = 20


@pytest.fixture(scope="module")
def policy():
    return load(FOLDER / "policy.npz")


@pytest.fixture(scope="module")
def card():
    return (FOLDER / "README.md").read_text()


def test_it_is_small_and_its_reader_is_that_of_the_library():
    assert (FOLDER / "policy.npz").stat().st_size < 200_000
    assert (FOLDER / "policy.py").read_bytes() == Path(act.__file__).read_bytes()


def test_the_contract_is_that_of_the_environment_and_of_the_card(policy, card):
    contract, origin = policy.contract, policy.contract["provenance"]
    env = load_attribute(contract["task"]["env"])(**contract["task"]["env_options"])
    (array,) = contract["observations"]["arrays"]
    assert (array["name"], tuple(array["shape"])) == ("observation", env.observation_space.shape)
    np.testing.assert_array_equal(contract["actions"]["low"], env.action_space.low)
    np.testing.assert_array_equal(contract["actions"]["high"], env.action_space.high)
    assert contract["check"]["worst_share"] < 1e-5
    task = calql.TASKS[contract["task"]["id"]]
    assert (contract["task"]["horizon"], contract["task"]["stop_at_success"]) == (task.horizon, task.stop_at_success)
    assert re.fullmatch("[0-9a-f]{40}", origin["git_commit"])  # not of a tree with changes
    for known in ("git_commit", "checkpoint_sha256", "data_fingerprint", "data"):
        assert origin[known] in card
    with (ROOT / "docs" / "tasks" / "data.csv").open() as file:
        assert origin["data_fingerprint"] in {row["fingerprint"] for row in csv.DictReader(file)}
    assert f"--task {contract['task']['id']} --method {origin['method']} --seed {origin['seed']}" in card
    env.close()


def success(policy, act, seed: int) -> bool:
    """Whether one episode of the contract's task succeeds."""
    task = policy.contract["task"]
    env = load_attribute(task["env"])(**task["env_options"])
    observation, _ = env.reset(seed=seed)
    for _ in range(task["horizon"]):
        observation, _, terminated, _, info = env.step(act(observation))
        if info["success"] or terminated:
            break
    env.close()
    return bool(info["success"])


def test_it_does_what_its_card_says(policy, card):
    (result,) = ModelCard(card).data.eval_results
    stated = float(result.metric_value.partition(" ")[0])
    measured = np.mean([success(policy, policy.act, seed) for seed in evaluation_seeds(7, EPISODES)])
    assert abs(measured - stated) <= 0.1


def test_another_policy_would_not(policy):
    """The test above can fail: the actions, turned around, do not reach the goal."""
    assert not any(success(policy, lambda x: -policy.act(x), seed) for seed in range(3))
