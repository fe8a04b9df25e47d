"""The hand's demonstrations, their clone, and the data made of both."""

import dataclasses
import json
from functools import partial

import minari
import numpy as np
import pytest

from calql.data.load import load
from calql.paper.demonstrators import adroit as builder
from calql.paper.demonstrators.run import collect
from calql.paper.envs import adroit
from calql.paper.tasks import TASKS
from calql.types import InputError

HANDS = pytest.mark.parametrize("hand", list(adroit.HANDS))
HORIZON = {"pen": 100, "door": 200, "relocate": 200}


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- what ships --------------------------------------------------------------------------------------------------------


@HANDS
def test_demonstrations_ship_and_succeed(hand):
    shown = builder.demonstrations(hand)
    assert len(shown) == len({demonstration.seed for demonstration in shown}) == builder.DEMONSTRATIONS
    assert sum(path.stat().st_size for path in builder.ASSETS.glob(f"{hand}_*")) < 350_000
    env = adroit.make(hand)
    for demonstration in shown:
        env.reset(seed=demonstration.seed)
        signals = [env.step(action)[-1]["success"] for action in demonstration.actions]
        assert any(signals[: HORIZON[hand]])
        assert np.abs(demonstration.actions).max() <= 1.0


# -- data --------------------------------------------------------------------------------------------------------------


@HANDS
def test_episodes_end_at_the_first_success(hand):
    recipe = builder.Recipe(hand, horizon=HORIZON[hand], keep_failures=True)
    episodes = [builder.demonstrate(recipe, 0, index) for index in range(20, 35)]
    assert any(episode.successes[-1] for episode in episodes)
    for episode in episodes:
        success = episode.successes[-1]
        assert not episode.successes[:-1].any()
        assert success or episode.length == HORIZON[hand]
        np.testing.assert_array_equal(episode.terminations, episode.successes)
        np.testing.assert_array_equal(episode.rewards, episode.successes - np.float32(1))
        np.testing.assert_array_equal(adroit.success_of(hand, episode.observations[1:]), episode.successes)
        assert episode.truncated is not bool(success)
        assert episode.observations.shape == (episode.length + 1, *adroit.make(hand).observation_space.shape)
        assert episode.observations.dtype == episode.actions.dtype == np.float32
        assert np.abs(episode.actions).max() <= 1.0


def test_failures_are_dropped_unless_they_are_asked_for():
    short = builder.Recipe("door", horizon=5)
    assert builder.demonstrate(short, 0, 0) is None
    assert builder.demonstrate(short, 0, 30) is None
    for index in (0, 30):
        kept = builder.demonstrate(dataclasses.replace(short, keep_failures=True), 0, index)
        assert kept.length == 5
        assert kept.truncated
        assert not kept.terminations.any()


def test_an_attempt_is_a_function_of_its_number():
    attempt = partial(builder.demonstrate, builder.Recipe("relocate", horizon=30, keep_failures=True), 3)
    first = attempt(40)
    attempt(41)
    assert same(attempt(40), first)
    assert not np.array_equal(attempt(41).observations[0], first.observations[0])


def test_any_number_of_workers_makes_the_same_data():
    recipe = builder.Recipe("door", horizon=60, demonstrations=3, keep_failures=True)
    attempt = partial(builder.demonstrate, recipe, 1)
    one, two = (collect(attempt, 600, workers=workers) for workers in (1, 2))
    assert len(one) == len(two)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_pauses_keep_the_last_action():
    recipe = builder.Recipe(
        "door", horizon=40, demonstrations=0, noise=(0, 0), pausing=(0.8, 0.8), pause_steps=8, keep_failures=True
    )
    episodes = [builder.demonstrate(recipe, 0, index) for index in range(20)]
    held = np.concatenate([(np.diff(episode.actions, axis=0) == 0).all(axis=1) for episode in episodes])
    assert held.mean() == pytest.approx(0.8, abs=0.1)


def test_noise_is_correlated_and_has_its_scale():
    recipe = builder.Recipe(
        "door", horizon=50, demonstrations=0, noise=(0.1, 0.1), noise_correlation=0.9, keep_failures=True
    )
    episodes = [builder.demonstrate(recipe, 0, index) for index in range(4)]
    clone = builder.shipped("door")
    rest = [episode.actions - clone(episode.observations[:-1]) for episode in episodes]
    inside = np.stack([r[np.abs(r) > 0][:1000] for r in rest])
    assert inside.std() == pytest.approx(0.1, rel=0.3)
    before, after = np.concatenate([r[:-1] for r in rest]), np.concatenate([r[1:] for r in rest])
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("hand", ["pen", "door"])
def test_the_improved_policy_succeeds_where_its_clone_does_not(hand):
    recipe = builder.Recipe(hand, horizon=HORIZON[hand], demonstrations=0, noise=(0.0, 0.0), keep_failures=True)
    wins = {}
    for policy in builder.POLICIES:
        episodes = [builder.attempt(recipe, builder.shipped(hand, policy), 1, index) for index in range(12)]
        wins[policy] = sum(bool(episode.successes[-1]) for episode in episodes)
    assert wins["improved"] >= 11 > wins["clone"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(policy="cloned"), "did you mean clone"),
        (dict(hand="relocate", policy="improved"), "no improved policy ships"),
        (dict(demonstrations=26), "there are 25"),
        (dict(noise=(0.2, 0.1)), "noise"),
        (dict(noise_correlation=1.0), "noise_correlation"),
        (dict(pausing=(0.0, 1.0)), "pausing"),
        (dict(pause_steps=0.5), "pause_steps"),
        (dict(horizon=0), "horizon"),
        (dict(hand="penn"), "did you mean pen"),
    ],
)
def test_impossible_recipes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        builder.Recipe(**dict(hand="door") | options)


# -- on disk -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.builder == f"{builder.__name__}:build"])
def test_stored_and_read_back(task, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made = builder.build(task, seed=3, transitions=60, demonstrations=2)
    recipe = builder.Recipe(**task.recipe | dict(transitions=60, demonstrations=2, horizon=task.horizon))
    expected = [e for e in (builder.demonstrate(recipe, 3, index) for index in range(2)) if e is not None]
    read = load(task.data)
    assert read.num_transitions >= 60
    assert all(episode.successes[-1] for episode in read.episodes)
    for stored, episode in zip(read.episodes, expected, strict=False):
        for name in ("observations", "actions", "rewards", "terminations", "truncated", "successes"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(episode, name))
    data = minari.load_dataset(made)
    provenance = data.storage.metadata["calql"]
    assert (provenance["builder"], provenance["seed"]) == (task.builder, 3)
    assert provenance["recipe"] == json.loads(json.dumps(dataclasses.asdict(recipe)))
    env = data.recover_environment()
    assert env.observation_space == adroit.make(recipe.hand).observation_space
