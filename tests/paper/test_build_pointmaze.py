"""The narrow data: what the demonstrator does, and what is on disk afterwards."""

import dataclasses
import functools
import itertools
import math

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces

import calql
from calql.commit import git_commit
from calql.data.minari_writer import write_minari
from calql.data.readers.local import local_id
from calql.paper.demonstrators import pointmaze as builder
from calql.paper.demonstrators.pointmaze import Recipe, demonstrate, demonstrations
from calql.paper.envs import pointmaze
from calql.paper.envs.ways import shortest_ways
from calql.paper.tasks import TASKS
from calql.types import Episode, InputError

TASK = TASKS["pointmaze-medium-narrow"]
DATASET_ID = local_id(TASK.id)
FEW = Recipe(episodes=12)
build = functools.partial(builder.build, TASK)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.observations, b.observations) and np.array_equal(a.actions, b.actions)
        for a, b in zip(one, other, strict=True)
    )


def test_shortest_path():
    way = shortest_ways(builder._is_free, pointmaze.GOAL_CELL)[pointmaze.START_CELL]
    assert (way[0], way[-1], len(way)) == (pointmaze.START_CELL, pointmaze.GOAL_CELL, 11)
    assert all(math.dist(a, b) == 1 for a, b in itertools.pairwise(way))
    assert all(pointmaze.MEDIUM_MAZE[row][column] != 1 for row, column in way)


def test_episodes_are_what_the_task_says():
    episodes = demonstrations(FEW)
    assert len(episodes) == 12
    for episode in episodes:
        length = episode.length
        assert episode.observations.shape == (length + 1, 4)
        assert episode.actions.shape == (length, 2)
        assert {a.dtype for a in (episode.observations, episode.actions, episode.rewards)} == {np.dtype(np.float32)}
        assert np.abs(episode.actions).max() <= 1
        assert not episode.terminations[:-1].any()
        np.testing.assert_array_equal(episode.terminations, episode.successes)
        np.testing.assert_array_equal(episode.rewards, episode.successes.astype(np.float32))
        assert episode.truncated != episode.terminations[-1]
        assert length == TASK.horizon if episode.truncated else length <= TASK.horizon


def test_recorded_actions_are_the_executed_ones():
    env, episode = pointmaze.make(), demonstrate(Recipe(action_noise=0.5), 4, 0)
    env.reset(seed=int(np.random.default_rng([4, 0]).integers(2**31)))
    for step, action in enumerate(episode.actions):
        np.testing.assert_array_equal(env.step(action)[0], episode.observations[step + 1])


def test_the_seed_determines_the_data():
    assert same(demonstrations(FEW, seed=1), demonstrations(FEW, seed=1))
    assert not same(demonstrations(FEW, seed=1), demonstrations(FEW, seed=2))
    more = dataclasses.replace(FEW, episodes=15)
    assert same(demonstrations(FEW, seed=1), demonstrations(more, seed=1)[:12])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_failure_share(share):
    episodes = demonstrations(dataclasses.replace(FEW, failure_share=share))
    assert sum(episode.truncated for episode in episodes) == share * 12


def test_a_failure_share_out_of_reach_is_an_input_error():
    fast = Recipe(episodes=2, speed=(2.5, 2.5), detour_probability=0.0, failure_share=1.0)
    with pytest.raises(InputError, match=r"only 0 of \d+ attempts could be kept"):
        demonstrations(fast)


def test_options_do_what_they_say():
    def success(**options):
        episodes = demonstrations(Recipe(episodes=10, failure_share=None, detour_probability=0.0, **options))
        return np.mean([not episode.truncated for episode in episodes])

    assert success(speed=(2.5, 2.5)) == 1
    assert success(speed=(1.0, 1.0)) == 0
    assert success(speed=(2.0, 2.0), horizon=30) == 0

    def cells(**options):
        episodes = demonstrations(Recipe(episodes=10, failure_share=None, action_noise=0.0, horizon=400, **options))
        points = np.concatenate([e.observations[:, :2] for e in episodes]) * pointmaze.OBSERVATION_SCALE[:2]
        return {tuple(cell) for cell in np.floor(points).astype(int)}

    narrow, wrong, deep = (cells(detour_probability=p, detour_depth=d) for p, d in [(0, 1), (1, 1), (1, 3)])
    assert len(narrow) <= 11 + 4  # the way and the start region, and nothing but
    assert narrow < wrong
    assert len(wrong) < len(deep)


@pytest.mark.parametrize(
    "options",
    [
        {"speed": (2.0, 1.0)},
        {"action_noise": -1.0},
        {"detour_probability": 2.0},
        {"failure_share": 1.5},
        {"horizon": 0},
    ],
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError):
        Recipe(**options)


def test_unknown_options_are_named(root):
    with pytest.raises(InputError, match=r"wobble.*action_noise"):
        build(wobble=1)


def test_stored_and_read_back(root):
    calls = []
    assert build(seed=3, transitions=600, progress=lambda *call: calls.append(call), action_noise=0.2) == DATASET_ID
    expected = demonstrations(Recipe(transitions=600, action_noise=0.2), seed=3)
    data = minari.load_dataset(DATASET_ID)
    assert data.total_episodes == len(expected)
    assert data.total_steps == sum(episode.length for episode in expected) >= 600
    for stored, episode in zip(data.iterate_episodes(), expected, strict=True):
        for name in ("observations", "actions", "rewards", "terminations"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(episode, name))
            assert getattr(stored, name).dtype == getattr(episode, name).dtype
        assert not stored.truncations[:-1].any()
        assert stored.truncations[-1] == episode.truncated
        np.testing.assert_array_equal(stored.infos["success"], [False, *episode.successes])
    provenance = data.storage.metadata["calql"]
    assert (provenance["version"], provenance["seed"]) == (calql.__version__, 3)
    assert provenance["recipe"]["action_noise"] == 0.2
    assert provenance["build_s"] > 0
    assert provenance["git_commit"] == git_commit()
    assert calls[-1] == (600, 600)
    assert list(minari.list_local_datasets()) == [DATASET_ID]


def test_the_environment_is_recovered_from_the_data(root):
    build(transitions=50, failure_share=None)
    env = minari.load_dataset(DATASET_ID).recover_environment()
    assert isinstance(env.unwrapped, pointmaze.PointMaze)
    env.close()


def test_rebuilding_replaces(root):
    build(seed=0, transitions=300)
    build(seed=1, transitions=100)
    assert minari.load_dataset(DATASET_ID).storage.metadata["calql"]["seed"] == 1
    assert minari.load_dataset(DATASET_ID).total_steps < 300
    assert [path.name for path in root.iterdir()] == ["calql"]


@pytest.mark.parametrize("moment", ["writing", "moving"])
def test_an_interrupted_build_leaves_the_old_data(root, monkeypatch, moment):
    build(seed=0, transitions=100)
    rename = calql.data.minari_writer.os.rename

    def episodes():
        yield from demonstrations(Recipe(episodes=1, failure_share=None))
        if moment == "writing":
            raise KeyboardInterrupt

    def moves(source, target):
        if str(source).endswith("fresh"):
            raise KeyboardInterrupt
        rename(source, target)

    if moment == "moving":
        monkeypatch.setattr("calql.data.minari_writer.os.rename", moves)
    with pytest.raises(KeyboardInterrupt):
        write_minari(DATASET_ID, episodes(), pointmaze.make(), lambda: {"seed": 9})
    assert minari.load_dataset(DATASET_ID).storage.metadata["calql"]["seed"] == 0
    assert minari.load_dataset(DATASET_ID)[0].rewards.size > 0
    assert [path.name for path in root.iterdir()] == ["calql"]


def test_dicts_and_images_are_stored_without_loss(root):
    class Camera(gymnasium.Env):
        observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "state": spaces.Box(-1, 1, (2,))}
        )
        action_space = spaces.Box(-1, 1, (1,))

    rng = np.random.default_rng(0)
    image, state = rng.integers(0, 256, (5, 8, 8, 3), np.uint8), rng.uniform(-1, 1, (5, 2)).astype(np.float32)
    episode = Episode(
        {"image": image, "state": state}, np.zeros((4, 1), np.float32), np.zeros(4, np.float32), np.zeros(4, bool), True
    )
    write_minari("calql/camera-v0", [episode], Camera(), dict)
    stored = minari.load_dataset("calql/camera-v0")[0]
    np.testing.assert_array_equal(stored.observations["image"], image)
    np.testing.assert_array_equal(stored.observations["state"], state)
    assert stored.truncations.tolist() == [False, False, False, True]
    assert minari.load_dataset("calql/camera-v0").spec.observation_space == Camera.observation_space
    with h5py.File(root / "calql" / "camera-v0" / "data" / "main_data.hdf5") as file:
        assert file["episode_0/observations/image"].compression == "gzip"


def test_a_malformed_id_is_refused(root):
    with pytest.raises(ValueError, match="Malformed"):
        write_minari("no version", [], pointmaze.make(), dict)
    assert not list(root.iterdir())
