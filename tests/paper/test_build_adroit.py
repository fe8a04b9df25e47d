"""The hand's demonstrations, their clone, and the data made of both."""

import dataclasses
import json
from functools import partial

import minari
import mujoco
import numpy as np
import pytest

from calql.data.load import load
from calql.paper.demonstrators import adroit as builder
from calql.paper.demonstrators.planning import MPPI, PROBLEMS, Planner
from calql.paper.demonstrators.run import collect
from calql.paper.envs import adroit
from calql.paper.tasks import TASKS
from calql.types import InputError

HANDS = pytest.mark.parametrize("hand", list(adroit.HANDS))
HORIZON = {"pen": 100, "door": 200, "relocate": 200}


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- planning ----------------------------------------------------------------------------------------------------------


@HANDS
def test_the_planner_is_a_function_of_its_generator(hand):
    env = adroit.make(hand)

    def first_actions(seed: int) -> np.ndarray:
        env.reset(seed=1)
        planner = Planner(env, np.random.default_rng(seed), MPPI(samples=4, knots=2, spacing=2, every=2))
        actions = []
        for _ in range(5):
            actions.append(planner.act())
            env.step(actions[-1])
        return np.stack(actions)

    np.testing.assert_array_equal(first_actions(0), first_actions(0))
    assert not np.array_equal(first_actions(0), first_actions(1))


@HANDS
def test_searching_again_finds_better_plans(hand):
    env = adroit.make(hand)
    env.reset(seed=1)
    planner = Planner(env, np.random.default_rng(0), dataclasses.replace(PROBLEMS[hand].mppi, samples=16))
    found = []
    for _ in range(8):  # without executing anything
        planner.search()
        found.append(planner.cost)
    resting = dataclasses.replace(PROBLEMS[hand].mppi, samples=1, noise=0.0)
    rest = Planner(env, np.random.default_rng(0), resting)
    rest.search()
    assert min(found[4:]) < found[0] < rest.cost
    assert env.simulation.data.time == 0.0


def test_actions_between_knots_are_interpolated():
    env = adroit.make("door")
    env.reset(seed=1)
    planner = Planner(env, np.random.default_rng(0), MPPI(samples=4, knots=3, spacing=4, every=4))
    for _ in range(3):
        actions = np.stack([planner.act() for _ in range(4)])
        steps = np.diff(actions, axis=0)
        np.testing.assert_allclose(steps, steps[:1].repeat(3, axis=0), atol=1e-6)  # a straight line
        np.testing.assert_allclose(planner.plan[0], actions[-1], atol=1e-6)  # from which the next one goes on


@HANDS
def test_the_planner_s_model_is_the_environment_s(hand):
    """Three simulated steps are the environment's, for the model that the reset has changed."""
    env = adroit.make(hand)
    env.reset(seed=4)
    planner = Planner(env, np.random.default_rng(0))
    model, ours = planner._model, planner._data
    data = env.simulation.data
    ours.qpos[:], ours.qvel[:] = data.qpos, data.qvel
    mujoco.mj_forward(model, ours)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, model.nu)):
        env.step(action)
        ours.ctrl[:] = env.simulation.act_mean + action * env.simulation.act_rng
        mujoco.mj_step(model, ours, nstep=env.simulation.frame_skip)
    np.testing.assert_allclose(ours.qpos, data.qpos, atol=1e-8)


# -- what ships --------------------------------------------------------------------------------------------------------


@HANDS
def test_demonstrations_ship_and_succeed(hand):
    shown = builder.demonstrations(hand)
    assert len(shown) == len({demonstration.seed for demonstration in shown}) == builder.DEMONSTRATIONS
    assert sum((builder.ASSETS / f"{hand}_{name}").stat().st_size for name in FILES) < 250_000
    env = adroit.make(hand)
    for demonstration in shown:
        env.reset(seed=demonstration.seed)
        signals = [env.step(action)[-1]["success"] for action in demonstration.actions]
        assert any(signals[: HORIZON[hand]])
        assert np.abs(demonstration.actions).max() <= 1.0


FILES = ("demonstrations.npz", "clone.safetensors")


def test_remade_demonstrations_are_the_shipped_ones():
    """The first of them, which takes some seconds, and its first plan: processors round differently, and it grows."""
    shipped = builder.demonstrations("pen")
    made = next(filter(None, (builder.plan("pen", 0, index) for index in range(3))))
    assert made.seed == shipped[0].seed
    np.testing.assert_allclose(made.actions[:4], shipped[0].actions[:4], atol=2e-3)
    assert abs(len(made.actions) - len(shipped[0].actions)) <= 10


def test_demonstrations_survive_being_stored(tmp_path, monkeypatch):
    shown = builder.demonstrations("door")[:3]
    monkeypatch.setattr(builder, "ASSETS", tmp_path)
    builder.save_demonstrations("door", shown)
    again = builder.demonstrations("door")
    builder.demonstrations.cache_clear()
    assert [demonstration.seed for demonstration in again] == [demonstration.seed for demonstration in shown]
    for one, other in zip(again, shown, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_cloning_lowers_the_error():
    episode = builder.demonstrate(builder.Recipe("door"), 0, 0)
    errors = [
        np.square(builder.fit_clone("door", steps=steps, hidden=(16,))(episode.observations[:-1]) - episode.actions)
        for steps in (1, 300)
    ]
    assert errors[1].mean() < 0.7 * errors[0].mean()


def test_practice_adds_the_clone_s_own_successes():
    clone = builder._clone("door")
    successes, tried = builder.practise("door", clone, seed=7, count=2)
    assert len(successes) == 2 <= tried
    for episode in successes:
        assert episode.successes[-1]
        assert not episode.successes[:-1].any()
    assert same(builder.practise("door", clone, seed=7, count=1)[0][0], successes[0])

    def error(added):
        made = builder.fit_clone("door", successes=added, steps=300, hidden=(16,))
        return np.mean([np.square(made(e.observations[:-1]) - e.actions).mean() for e in successes])

    assert error(successes) < error([])


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
    clone = builder._clone("door")
    rest = [episode.actions - clone(episode.observations[:-1]) for episode in episodes]
    inside = np.stack([r[np.abs(r) > 0][:1000] for r in rest])
    assert inside.std() == pytest.approx(0.1, rel=0.3)
    before, after = np.concatenate([r[:-1] for r in rest]), np.concatenate([r[1:] for r in rest])
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.7


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (dict(demonstrations=26), "there are 25"),
        (dict(noise=(0.2, 0.1)), "noise"),
        (dict(noise_correlation=1.0), "noise_correlation"),
        (dict(pausing=(0.0, 1.0)), "pausing"),
        (dict(pause_steps=0.5), "pause_steps"),
        (dict(horizon=0), "horizon"),
        (dict(hand="penn"), "did you mean pen"),
    ],
)
def test_impossible_recipes_are_refused(knobs, message):
    with pytest.raises(InputError, match=message):
        builder.Recipe(**dict(hand="door") | knobs)


# -- on disk -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.builder == f"{builder.__name__}:build"])
def test_stored_and_read_back(task, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made = builder.build(task, seed=3, transitions=60, demonstrations=2)
    recipe = builder.Recipe(**task.recipe | dict(transitions=60, demonstrations=2, horizon=task.horizon))
    expected = [e for e in (builder.demonstrate(recipe, 3, index) for index in range(2)) if e is not None]
    read = load(f"local:{task.id}")
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
