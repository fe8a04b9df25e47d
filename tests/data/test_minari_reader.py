"""Minari data sets, made by Minari itself and by our own writer, and what is said where there are none."""

import json

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from minari.dataset.minari_storage import MinariStorage
from recordings import FLAT, NESTED, an_episode, same_episode, some_episodes, store

from calql.data import load
from calql.data.minari_writer import write_minari
from calql.data.readers.local import local_id
from calql.data.readers.minari import list_local
from calql.types import InputError


class Nowhere(gymnasium.Env):
    """Spaces and nothing else."""

    def __init__(self, observations):
        self.observation_space, self.action_space = observations, spaces.Box(-1, 1, (1,), np.float32)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Data sets of this test only, and no network."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))

    def refuse(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(minari, "download_dataset", refuse)
    return tmp_path / "datasets"


@given(episodes=some_episodes(max_size=3))
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_our_writer_stored_comes_back(episodes):
    write_minari("calql/toy-v0", episodes, Nowhere(FLAT), dict)
    found = load("local:toy")
    assert found.uri == "local:toy"
    for episode, expected in zip(found.episodes, episodes, strict=True):
        same_episode(episode, expected)


@pytest.mark.parametrize("infos", [True, False])
def test_what_minari_stored_comes_back(infos):
    episodes = [an_episode(3, terminated=True, success=[2]), an_episode(4, seed=1)]
    store("toys/flat-v3", episodes, infos=infos)
    found = load("minari:toys/flat-v3")
    for episode, expected in zip(found.episodes, episodes, strict=True):
        same_episode(episode, expected if infos else expected._replace(successes=None))
        assert (episode.successes is not None) == infos


def test_dict_observations_stay_dicts():
    episodes = [an_episode(3, keys=True), an_episode(2, keys=True, terminated=True)]
    store("dicts-v0", episodes, NESTED)
    for episode, expected in zip(load("minari:dicts-v0").episodes, episodes, strict=True):
        same_episode(episode, expected)


def test_unmarked_ends_are_cuts():
    store("cut-v0", [an_episode(3)._replace(truncated=False)])
    assert load("minari:cut-v0").episodes[0].truncated


def test_what_is_not_here_is_not_found(root):
    with pytest.raises(InputError) as caught:
        load("minari:D4RL/door/human-v2")
    for part in ("D4RL/door/human-v2", str(root), "minari download D4RL/door/human-v2", "ConnectionError: no route"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="run 'calql data build local:toy'"):
        load("local:toy")
    assert local_id("toy") == local_id("toy-v0") == "calql/toy-v0"
    assert local_id("toy-v1") == "calql/toy-v1"


def test_downloads_are_read(monkeypatch):
    episodes = [an_episode()]
    monkeypatch.setattr(minari, "download_dataset", lambda name: store(name, episodes))
    same_episode(load("minari:far-v0").episodes[0], episodes[0])


def damage_file(home):
    path = home / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[:1000])


def damage_rewards(home):
    with h5py.File(home / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/rewards"]


def damage_metadata(home):
    (home / "data" / "metadata.json").write_text("{")


def remove_metadata(home):
    (home / "data" / "metadata.json").unlink()


def remove_spaces(home):
    path = home / "data" / "metadata.json"
    about = json.loads(path.read_text())
    del about["observation_space"]
    path.write_text(json.dumps(about))


@pytest.mark.parametrize("damage", [damage_file, damage_rewards, damage_metadata, remove_metadata, remove_spaces])
def test_damaged_sets_are_refused(root, damage):
    store("toy-v0", [an_episode(), an_episode(seed=1)])
    damage(root / "toy-v0")
    with pytest.raises(InputError, match=r"toy-v0 is damaged \(.*\); delete its folder") as caught:
        load("minari:toy-v0")
    assert "\n" not in str(caught.value)


def test_missing_packages_are_named(monkeypatch):
    store("toy-v0", [an_episode()])

    def refuse(_):
        raise ImportError("pyarrow is not installed")

    monkeypatch.setattr(minari, "load_dataset", refuse)
    with pytest.raises(InputError, match=r"pyarrow is not installed; run pip install 'minari\[hdf5\]'"):
        load("minari:toy-v0")


def test_discrete_actions_are_refused(root):
    store("toy-v0", [an_episode()])
    with h5py.File(root / "toy-v0" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
        file["episode_0/actions"] = np.zeros(3, int)
    with pytest.raises(InputError, match=r"episode 0: 'actions' has shape \(3,\), expected \(3, A\)"):
        load("minari:toy-v0")


def test_environments_named_by_a_file_are_not_made(root, monkeypatch):
    store("toy-v0", [an_episode()])
    remove_spaces(root / "toy-v0")
    monkeypatch.setattr(MinariStorage, "read", lambda *_: pytest.fail("Minari was asked to make the environment"))
    with pytest.raises(InputError, match="its metadata name no spaces"):
        load("minari:toy-v0")


def test_local_sets_are_listed(root):
    assert list_local() == []
    assert not root.exists()
    store("toys/flat-v3", [an_episode(3), an_episode(4)])
    write_minari("calql/toy-v0", [an_episode(2)], Nowhere(FLAT), dict)
    listed = list_local()
    assert [(x.id, x.episodes, x.steps) for x in listed] == [("calql/toy-v0", 1, 2), ("toys/flat-v3", 2, 7)]
    assert all(1_000 < x.size < 1_000_000 for x in listed)


@pytest.mark.parametrize("uri", ["door.hdf5", "hdf5:door.hdf5", "minari:", "d4rl", "", "npz"])
def test_unknown_uris_list_the_known_ones(uri):
    with pytest.raises(
        InputError, match=r"is not a data URI; use one of local:TASK, minari:ID, d4rl:FILE.hdf5, awac:DIR, npz"
    ):
        load(uri)


def test_infos_that_are_not_used_are_named(root):
    store("toy-v0", [an_episode(3)])
    with h5py.File(root / "toy-v0" / "data" / "main_data.hdf5", "a") as file:
        file["episode_0/infos/torque"] = np.zeros(4)
    assert load("minari:toy-v0").notes == ("not used: infos/torque",)
