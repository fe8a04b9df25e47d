"""The kitchen's demonstrations: what the scripts can do, and which episodes each recipe keeps."""

import dataclasses
import itertools

import minari
import numpy as np
import pytest

from calql.data.load import load
from calql.data.readers.local import local_id
from calql.paper.demonstrators import kitchen as builder
from calql.paper.demonstrators.kitchen import Recipe, build, demonstrate, draw_sequence, perform
from calql.paper.demonstrators.kitchen_script import SCRIPTS
from calql.paper.envs import kitchen
from calql.paper.tasks import TASKS
from calql.types import InputError

FOUR = ("microwave", "kettle", "light switch", "slide cabinet")
OTHER_FOUR = ("microwave", "kettle", "bottom burner", "light switch")
COMPLETE = Recipe(tasks=FOUR, transitions=1, target_share=1.0)
MIXED = Recipe(tasks=OTHER_FOUR, transitions=1, target_share=0.0)
SHORT = {"tasks": ("light switch", "slide cabinet"), "transitions": 100, "target_share": 0.5, "sequence_length": 1}
TASK = dataclasses.replace(TASKS["kitchen-mixed"], env_options={"tasks": SHORT["tasks"]}, recipe=SHORT)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def attempts(names, count, **options):
    recipe = Recipe(tasks=names, transitions=1, **options)
    return [perform(recipe, names, np.random.default_rng([3, i])) for i in range(count)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_solve_single_subtasks(name):
    results = attempts((name,), 3)
    assert sum(solved for _, solved in results) >= 2
    for episode, solved in results:
        assert episode.successes[-1] >= solved
        np.testing.assert_array_equal(episode.rewards, episode.successes.astype(np.float32))


def test_a_demonstration_is_what_d4rl_s_look_like():
    episode = demonstrate(COMPLETE, 0, 0)
    length = episode.length
    assert 100 < length <= 280
    assert episode.observations.shape == (length + 1, 60)
    assert episode.actions.shape == (length, 9)
    assert {a.dtype for a in (episode.observations, episode.actions, episode.rewards)} == {np.dtype(np.float32)}
    assert np.abs(episode.actions).max() <= 1
    assert (np.diff(episode.rewards) >= 0).all()
    assert episode.rewards[-1] >= 3
    np.testing.assert_array_equal(episode.successes, episode.rewards == 4)
    assert np.flatnonzero(episode.terminations).tolist() == [length - 1]
    assert not episode.truncated


def test_rewards_follow_from_the_observations():
    """So far solved, by the joints that are recorded."""
    episode = demonstrate(MIXED, 0, 0)
    solved = np.stack([kitchen.is_solved(name, episode.observations[1:, :30]) for name in MIXED.tasks])
    np.testing.assert_array_equal(np.maximum.accumulate(solved, axis=1).sum(0), episode.rewards)


def test_recorded_actions_are_the_executed_ones():
    recipe = Recipe(tasks=("light switch",), transitions=1, action_noise=0.5, terminal=False, steps=30)
    episode = demonstrate(recipe, 4, 0)
    assert (episode.length, episode.truncated, episode.terminations.any()) == (30, True, False)
    rng = np.random.default_rng([4, 0])
    draw_sequence(recipe, rng)
    env = kitchen.make(recipe.tasks)
    env.reset(seed=int(rng.integers(2**31)))
    for step, action in enumerate(episode.actions):
        np.testing.assert_array_equal(env.step(action)[0], episode.observations[step + 1])


def test_attempts_depend_on_seed_and_index_alone():
    recipe = Recipe(tasks=("light switch",), transitions=1, steps=10)
    first = demonstrate(recipe, 0, 5)
    demonstrate(recipe, 0, 6)
    np.testing.assert_array_equal(demonstrate(recipe, 0, 5).observations, first.observations)
    for seed, index in [(0, 6), (1, 5)]:
        assert not np.array_equal(demonstrate(recipe, seed, index).observations, first.observations)


@pytest.mark.parametrize("tasks", [FOUR, OTHER_FOUR])
def test_random_sequences_never_hold_the_target(tasks):
    recipe = Recipe(tasks, 1, target_share=0.0)
    in_order = {draw_sequence(recipe, np.random.default_rng(i)) for i in range(400)}
    assert in_order == set(recipe.sequences())
    shuffled = dataclasses.replace(recipe, shuffled=1.0)
    drawn = [draw_sequence(shuffled, np.random.default_rng(i)) for i in range(400)]
    assert all(len(set(names)) == 4 and set(names) != set(tasks) for names in drawn)
    assert {frozenset(names) for names in drawn} == set(map(frozenset, itertools.combinations(SCRIPTS, 4))) - {
        frozenset(tasks)
    }
    assert len(set(drawn)) > 80  # of 4 · 24 orders


def test_target_share():
    drawn = [draw_sequence(Recipe(FOUR, 1, target_share=0.25), np.random.default_rng(i)) for i in range(400)]
    assert 70 < sum(names == FOUR for names in drawn) < 130
    assert all(names == FOUR or set(names) != set(FOUR) for names in drawn)


@pytest.mark.parametrize(("share", "kept"), [(0.0, False), (0.5, True)])
def test_mixed_drops_what_solves_the_target_by_accident(monkeypatch, share, kept):
    recipe = Recipe(tasks=("light switch",), transitions=1, target_share=share, sequence_length=1)
    monkeypatch.setattr(builder, "draw_sequence", lambda recipe, rng: ("light switch",))
    assert (demonstrate(recipe, 0, 0) is not None) == kept


@pytest.mark.parametrize("failures", [True, False])
def test_failures_are_kept_or_not(failures):
    hopeless = Recipe(tasks=("kettle",), transitions=1, steps=5, failures=failures)
    assert (demonstrate(hopeless, 0, 0) is not None) == failures


@pytest.mark.parametrize(
    "options",
    [
        {"tasks": ("toaster",)},
        {"tasks": ("top burner",)},
        {"sequence_length": 5, "target_share": 0.5},
        {"target_share": 2.0},
        {"action_noise": -1.0},
        {"steps": 0},
        {"tries": 0},
    ],
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError):
        Recipe(**{"tasks": FOUR, "transitions": 1} | options)


@pytest.mark.parametrize("workers", [1, 2])
def test_stored_and_read_back(root, workers):
    calls = []
    build(TASK, seed=3, workers=workers, progress=lambda *call: calls.append(call))
    episodes = load(f"local:{TASK.id}")
    assert episodes.num_transitions >= 100
    assert calls[-1] == (100, 100)
    made = [demonstrate(Recipe(**SHORT), 3, index) for index in range(episodes.num_episodes)]
    assert episodes.fingerprint() == dataclasses.replace(episodes, episodes=tuple(made)).fingerprint()
    data = minari.load_dataset(local_id(TASK.id))
    assert data.storage.metadata["calql"]["recipe"]["target_share"] == 0.5
    env = data.recover_environment().unwrapped
    assert (type(env), env.tasks) == (kitchen.Kitchen, SHORT["tasks"])
    env.close()


def test_unknown_options_are_named(root):
    with pytest.raises(InputError, match=r"wobble.*action_noise"):
        build(TASK, wobble=1)
