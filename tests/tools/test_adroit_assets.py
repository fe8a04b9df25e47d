"""The planner of the hand, and how its demonstrations and their clones are remade."""

import dataclasses
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from calql.paper.demonstrators import adroit as builder
from calql.paper.envs import adroit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "make_assets"))
import make_adroit  # noqa: E402 - a folder of scripts, not a package
from planning import MPPI, PROBLEMS, Planner  # noqa: E402

HANDS = pytest.mark.parametrize("hand", list(adroit.HANDS))


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


# -- remaking what ships -----------------------------------------------------------------------------------------------


def test_remade_demonstrations_are_the_shipped_ones():
    """The first of them, which takes some seconds, and its first plan: processors round differently, and it grows."""
    shipped = builder.demonstrations("pen")
    made = next(filter(None, (make_adroit.plan("pen", 0, index) for index in range(3))))
    assert made.seed == shipped[0].seed
    np.testing.assert_allclose(made.actions[:4], shipped[0].actions[:4], atol=2e-3)
    assert abs(len(made.actions) - len(shipped[0].actions)) <= 10


def test_demonstrations_survive_being_stored(tmp_path, monkeypatch):
    shown = builder.demonstrations("door")[:3]
    monkeypatch.setattr(builder, "ASSETS", tmp_path)
    make_adroit.save_demonstrations("door", shown)
    again = builder.demonstrations("door")
    builder.demonstrations.cache_clear()
    assert [demonstration.seed for demonstration in again] == [demonstration.seed for demonstration in shown]
    for one, other in zip(again, shown, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_cloning_lowers_the_error():
    episode = builder.demonstrate(builder.Recipe("door"), 0, 0)
    errors = [
        np.square(make_adroit.fit_clone("door", steps=steps, hidden=(16,))(episode.observations[:-1]) - episode.actions)
        for steps in (1, 300)
    ]
    assert errors[1].mean() < 0.7 * errors[0].mean()


def test_practice_adds_the_clone_s_own_successes():
    clone = builder.shipped("door")
    successes, tried = make_adroit.practise("door", clone, seed=7, count=2)
    assert len(successes) == 2 <= tried
    for episode in successes:
        assert episode.successes[-1]
        assert not episode.successes[:-1].any()
    assert same(make_adroit.practise("door", clone, seed=7, count=1)[0][0], successes[0])

    def error(added):
        made = make_adroit.fit_clone("door", successes=added, steps=300, hidden=(16,))
        return np.mean([np.square(made(e.observations[:-1]) - e.actions).mean() for e in successes])

    assert error(successes) < error([])
