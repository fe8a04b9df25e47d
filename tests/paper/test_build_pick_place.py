"""The scripted arm: what it can do, what is recorded of it, and how that is stored."""

import numpy as np
import pytest

from calql.data.load import load
from calql.data.readers.minari import root as datasets
from calql.paper.demonstrators.pick_place import Recipe, build, demonstrate, script
from calql.paper.envs import pick_place
from calql.paper.envs.pick_place import DISTRACTORS, TARGETS
from calql.paper.tasks import TASKS
from calql.types import InputError

TASK = TASKS["visual-pick-place"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def successes(count, **options):
    return [demonstrate(Recipe(1, **options), 5, i).successes[-1] for i in range(count)]


def test_the_script_puts_the_right_object_into_the_bowl():
    assert np.mean(successes(40)) >= 0.9
    assert np.mean(successes(15, action_noise=0.0)) >= 0.9


def test_mistaken_episodes_fail():
    assert np.mean(successes(15, mistaken=1.0)) <= 0.1
    assert 0.2 < np.mean(successes(25, mistaken=0.5)) < 0.8


def test_a_gripper_that_closed_too_early_opens_again():
    made = [demonstrate(Recipe(1, image_size=16, fumble=0.1), 5, i) for i in range(20)]
    closed = [e.observations["state"][:-1, 9] == 0 for e in made]
    high = [e.observations["state"][:-1, 2] > 0.09 for e in made]
    commands = np.concatenate([e.actions[:, 6] for e in made])
    early = np.concatenate([c & h for c, h in zip(closed, high, strict=True)])
    assert 0.05 < np.mean(commands[early] > 0.5) < 0.5  # the others carry
    assert np.mean([e.successes[-1] for e in made]) >= 0.5


@pytest.mark.parametrize("name", [*TARGETS, *DISTRACTORS])
def test_every_object_can_be_carried(name):
    env = pick_place.make(16, name) if name in TARGETS else pick_place.make(16, None, name)
    for seed in range(3):
        env.reset(seed=seed)
        for step, action in enumerate(script(env, name, env.bowl)):
            env.step(action)
            if step == 39 or (np.linalg.norm(env.place(name)[:2] - env.bowl) < 0.05 and env.is_open):
                break
        if np.linalg.norm(env.place(name)[:2] - env.bowl) < 0.05:
            return
    pytest.fail(f"three times, the {name} was not carried to the bowl")


def test_recorded_actions_are_the_executed_ones():
    episode = demonstrate(Recipe(1, image_size=24), 3, 1)
    env = pick_place.make(24)
    seed = int(np.random.default_rng([3, 1]).integers(2**31))
    seen = [env.reset(seed=seed)[0], *(env.step(action)[0] for action in episode.actions)]
    for name in ("image", "state"):
        np.testing.assert_array_equal([one[name] for one in seen], episode.observations[name])


def test_an_episode_ends_at_success_or_at_the_horizon():
    made = [demonstrate(Recipe(1, horizon=25, mistaken=0.5, image_size=16), 0, i) for i in range(12)]
    assert {bool(e.successes[-1]) for e in made} == {True, False}
    for episode in made:
        won = bool(episode.successes[-1])
        assert (episode.terminations.any(), episode.truncated) == (won, not won)
        assert episode.length == 25 or won
        np.testing.assert_array_equal(episode.rewards, episode.successes.astype(np.float32))
        assert np.abs(episode.actions).max() <= 1
        assert episode.actions.dtype == np.float32


def test_images_are_stored_exactly_and_compactly(root):
    name = build(TASK, 0, 60)
    stored = load(f"minari:{name}").episodes
    assert sum(e.length for e in stored) >= 60
    raw = sum(e.observations["image"].nbytes for e in stored)
    assert sum(file.stat().st_size for file in (datasets() / name).rglob("*.hdf5")) < 0.6 * raw
    recipe = Recipe(**TASK.recipe | {"transitions": 60})
    np.testing.assert_array_equal(stored[1].observations["image"], demonstrate(recipe, 0, 1).observations["image"])


def test_images_of_another_size(root):
    build(TASK, 0, 20, image_size=32)
    assert load(TASK.data).spec().observation["image"].shape == (32, 32, 3)


@pytest.mark.parametrize("options", [{"mistaken": 1.5}, {"fumble": -1}, {"action_noise": -0.1}, {"pixels": 3}])
def test_impossible_options_are_named(root, options):
    with pytest.raises(InputError, match=next(iter(options))):
        build(TASK, 0, 20, **options)
