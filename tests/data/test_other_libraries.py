"""Files as robomimic and OGBench write them, and HDF5 files with groups and links."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from ogbench.utils import load_dataset
from recordings import TASK

from calql.data import load
from calql.data.transitions import to_transitions
from calql.types import InputError

FILES = Path(__file__).parent / "files"


def transitions(uri):
    return to_transitions(load(uri).episodes, TASK.rewards, 0.9, action_clip=None)


# -- robomimic ---------------------------------------------------------------------------------------------------------


def test_what_robomimic_wrote_is_read():
    data = load(f"robomimic:{FILES / 'robomimic-0.3.0.hdf5'}")
    assert [e.length for e in data.episodes] == [5, 5]
    states = np.arange(30, dtype="f4").reshape(10, 3)
    for episode, rows in zip(data.episodes, (slice(0, 5), slice(5, 10)), strict=True):
        np.testing.assert_array_equal(episode.observations["flat"][:5], states[rows])
        assert episode.rewards.tolist() == episode.terminations.tolist() == [0, 0, 0, 0, 1]
    assert data.notes == ("'dones' does not tell terminals from cuts: it is read as terminal",)


def a_demo(file, name, steps=3, **changes):
    parts = {"obs/eef": np.ones((steps, 2)), "obs/object": np.zeros((steps, 3)), "actions": np.zeros((steps, 1))}
    parts |= {"rewards": np.arange(steps) == steps - 1, "dones": np.arange(steps) == steps - 1} | changes
    for key, array in parts.items():
        if array is not None:
            file[f"data/{name}/{key}"] = array


def robomimic(folder, *demos, **changes):
    with h5py.File(folder / "demo.hdf5", "w") as file:
        for number in demos:
            a_demo(file, f"demo_{number}", steps=number + 1)
        a_demo(file, "demo_1", **changes)
    return f"robomimic:{folder}/demo.hdf5"


def test_demonstrations_are_in_the_order_of_their_numbers(tmp_path):
    data = load(robomimic(tmp_path, 10, 2, states=np.zeros((3, 9))))
    assert [e.length for e in data.episodes] == [3, 3, 11]
    assert "not used: data/*/states" in data.notes
    data = load(f"robomimic:{tmp_path}/demo.hdf5#keys=object")
    assert data.spec().observation.keys() == {"object"}
    assert "not used: data/*/states, data/*/obs/eef" in data.notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs/eef": None, "obs/object": None, "states": np.zeros((3, 9))}, "dataset_states_to_obs.py"),
        ({"obs/eef": None}, "all must hold the same"),
        ({"obs/eef": np.zeros((3, 4))}, r"'observations/eef' differs between the episodes"),
        ({"rewards": np.zeros(2)}, "the arrays of data/demo_1 differ in their number of rows"),
        ({"rewards": None}, "all must hold the same"),
        ({"actions": np.array([[b"a"]] * 3)}, r"'actions' (differs|does not hold numbers)"),
    ],
)
def test_unsound_demonstrations_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        load(robomimic(tmp_path, 2, **changes))
    assert len(str(caught.value).splitlines()) == 1


def test_other_layouts_name_the_format_that_reads_them(tmp_path):
    robomimic(tmp_path, 2)
    with pytest.raises(InputError, match=rf"use robomimic:{tmp_path}/demo.hdf5$"):
        load(f"d4rl:{tmp_path}/demo.hdf5")
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file["actions"] = np.zeros((3, 1))
    with pytest.raises(InputError, match=r"a flat file is read by d4rl:FILE\.hdf5"):
        load(f"robomimic:{tmp_path}/flat.hdf5")
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        file["episode_0/actions"] = np.zeros((3, 1))
    with pytest.raises(InputError, match="Minari data set; name the set: minari:ID"):
        load(f"d4rl:{tmp_path}/main_data.hdf5")


# -- OGBench -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    """Two trajectories of five states in the layout of OGBench's files, with what it calls `qpos`."""
    states = np.arange(20, dtype="f4").reshape(10, 2)
    ends = np.arange(10) % 5 == 4
    np.savez(tmp_path / "raw.npz", observations=states, actions=states / 20, terminals=ends, qpos=states)
    return tmp_path


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("scheme", ["ogbench", "npz"])
def test_what_ogbench_loads_is_learned_from(published, compact, scheme):
    """`load_dataset` is OGBench's own; rewards and masks are those of `relabel_dataset`: solved steps inside, too."""
    loaded = load_dataset(str(published / "raw.npz"), compact_dataset=compact, add_info=True)
    solved = np.isin(loaded["observations"][:, 0], [2.0, 4.0, 16.0])
    loaded |= {"rewards": solved - 1.0, "masks": 1.0 - solved}
    np.savez(published / "task.npz", **loaded)
    got = transitions(f"{scheme}:{published}/task.npz")
    kept = loaded["valids"] > 0 if compact else np.ones(8, bool)
    following = np.roll(loaded["observations"], -1, 0) if compact else loaded["next_observations"]
    np.testing.assert_array_equal(got.observations, loaded["observations"][kept])
    np.testing.assert_array_equal(got.next_observations, following[kept])
    np.testing.assert_array_equal(got.actions, loaded["actions"][kept])
    np.testing.assert_array_equal(got.masks, loaded["masks"][kept])
    data = load(f"{scheme}:{published}/task.npz")
    assert [e.length for e in data.episodes] == [4, 4]
    assert "not used: qpos" in data.notes


def test_ogbench_files_without_rewards_say_how_to_get_them(published):
    with pytest.raises(InputError, match=r"no rewards, which belong to a task; .*make_env_and_datasets"):
        load(f"ogbench:{published}/raw.npz")
    data = load(f"ogbench:{published}/raw.npz#success=last")
    assert [e.rewards.tolist() for e in data.episodes] == [[0, 0, 0, 0, 1]] * 2


# -- HDF5 --------------------------------------------------------------------------------------------------------------


ROWS = {
    "observations": np.arange(6.0)[:, None],
    "actions": np.zeros((6, 1)),
    "rewards": np.zeros(6),
    "terminals": np.arange(6) == 5,
    "timeouts": np.zeros(6, bool),
}


def hdf5(path, **changes):
    with h5py.File(path, "w") as file:
        for name, array in (ROWS | changes).items():
            if array is not None:
                file[name] = array
    return h5py.File(path, "a")


def test_links_are_followed(tmp_path):
    with hdf5(tmp_path / "other.hdf5"):
        pass
    with hdf5(tmp_path / "log.hdf5", observations=None, rewards=None, **{"raw/states": ROWS["observations"]}) as file:
        file["observations"] = h5py.SoftLink("/raw/states")
        file["rewards"] = h5py.ExternalLink("other.hdf5", "/rewards")
        file["successes"] = file["terminals"]  # a hard link
        file["raw/loop"] = h5py.SoftLink("/")
        file["nothing"] = h5py.SoftLink("/nowhere")
    data = load(f"d4rl:{tmp_path}/log.hdf5")
    assert data.episodes[0].observations[:6, 0].tolist() == list(range(6))
    assert data.episodes[0].successes.tolist() == [False] * 5 + [True]
    assert "not used: nothing, raw/states" in data.notes


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    with hdf5(tmp_path / "log.hdf5", rewards=None) as file:
        file["rewards"] = h5py.ExternalLink("gone.hdf5", "/rewards")
    with pytest.raises(InputError, match=r"the link 'rewards' leads to 'gone.hdf5:/rewards', which cannot be opened"):
        load(f"d4rl:{tmp_path}/log.hdf5")


def test_rows_that_end_nowhere_are_counted(tmp_path):
    with hdf5(tmp_path / "log.hdf5", terminals=np.zeros(6, bool)):
        pass
    with pytest.raises(InputError, match=r"no complete episode; the last 6 rows were dropped: .*; mark ends"):
        load(f"d4rl:{tmp_path}/log.hdf5")
