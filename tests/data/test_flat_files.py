"""D4RL and npz files: random episodes are written in each layout and read back."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import TASK, an_episode, rows_of, same_episode, some_episodes, write_hdf5

from calql.data import Episodes, load
from calql.data.arrays import named_leaves
from calql.data.readers.d4rl import read_d4rl
from calql.data.readers.npz import read_npz, save_npz
from calql.data.transitions import to_transitions
from calql.types import InputError, RunError


@pytest.fixture(params=["d4rl", "npz"])
def read(request, tmp_path):
    """Write arrays in either format and read them."""

    def run(arrays):
        path = tmp_path / f"data.{request.param}"
        if request.param == "npz":
            with open(path, "wb") as file:
                np.savez(file, **arrays)
        else:
            write_hdf5(path, arrays)
        return load(f"{request.param}:{path}")

    return run


@given(some_episodes())
@settings(deadline=None, max_examples=50)
def test_d4rl_layout_is_read_back(episodes):
    with tempfile.TemporaryDirectory() as folder:
        found = read_d4rl(write_hdf5(Path(folder) / "data.hdf5", rows_of(episodes)))
    assert found.num_episodes == len(episodes)
    for episode, expected in zip(found.episodes, episodes, strict=True):
        assert episode.truncated == expected.truncated
        np.testing.assert_array_equal(episode.actions, expected.actions)
        np.testing.assert_array_equal(episode.rewards, expected.rewards)
        np.testing.assert_array_equal(episode.terminations, expected.terminations)
        known = expected.length + expected.truncated  # the state after a terminal step is not in the file
        np.testing.assert_array_equal(episode.observations[:known], expected.observations[:known])
    flat, expected = to_transitions(found.episodes, TASK.rewards, 0.9), to_transitions(episodes, TASK.rewards, 0.9)
    np.testing.assert_array_equal(flat.masks, expected.masks)
    np.testing.assert_array_equal(flat.returns, expected.returns)


@given(some_episodes(inner_terminals=True), st.booleans())
@settings(deadline=None, max_examples=50)
def test_npz_round_trip(episodes, keys):
    if keys:
        episodes = [an_episode(e.length, terminated=not e.truncated, seed=e.length, keys=True) for e in episodes]
    data = Episodes(tuple(episodes))
    with tempfile.TemporaryDirectory() as folder:
        save_npz(data, Path(folder) / "data.npz")
        assert os.listdir(folder) == ["data.npz"]
        found = load(f"npz:{folder}/data.npz")
    for episode, expected in zip(found.episodes, data.episodes, strict=True):
        same_episode(episode, expected)
    assert found.fingerprint() == data.fingerprint()
    assert not [note for note in found.notes if "dropped" in note]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "data.npz"
    save_npz(Episodes((an_episode(),)), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(RunError, match="disk full"):
        save_npz(Episodes((an_episode(seed=1),)), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["data.npz"]


def flat(count, **changes):
    arrays = {
        "observations": np.arange(count, dtype=np.float32)[:, None],
        "actions": np.zeros((count, 1)),
        "rewards": -np.ones(count),
        "terminals": np.zeros(count, bool),
        "timeouts": np.zeros(count, bool),
    }
    return {name: x for name, x in {**arrays, **changes}.items() if x is not None}


def at(count, *rows):
    return np.isin(np.arange(count), rows)


def test_timeouts_are_no_terminals(read):
    data = read(flat(6, timeouts=at(6, 2), terminals=at(6, 5)))
    assert [e.observations[:, 0].tolist() for e in data.episodes] == [[0, 1, 2], [3, 4, 5, 5]]
    assert [e.truncated for e in data.episodes] == [True, False]
    assert to_transitions(data.episodes, TASK.rewards, 0.9).masks.tolist() == [1, 1, 1, 1, 0]
    assert data.notes == ("1 rows at the ends of cut episodes gave only the last observation, no transition",)


def test_the_state_after_a_terminal_is_the_following_row(read):
    data = read(flat(4, terminals=at(4, 1, 3)))
    assert [e.observations[:, 0].tolist() for e in data.episodes] == [[0, 1, 2], [2, 3, 3]]


def test_a_terminal_wins_over_a_timeout_in_the_same_row(read):
    data = read(flat(3, terminals=at(3, 2), timeouts=at(3, 2)))
    assert [e.length for e in data.episodes] == [3]
    assert to_transitions(data.episodes, TASK.rewards, 0.9).masks.tolist() == [1, 1, 0]
    assert data.episodes[0].truncated


def test_a_timeout_row_alone_is_no_episode(read):
    data = read(flat(4, timeouts=at(4, 2, 3)))
    assert [e.length for e in data.episodes] == [2]


def test_unfinished_rows(tmp_path):
    path = write_hdf5(tmp_path / "data.hdf5", flat(7, timeouts=at(7, 2)))
    dropped = read_d4rl(path)
    assert [e.length for e in dropped.episodes] == [2]
    assert "the last 4 rows were dropped: they end neither in a terminal nor in a time-out" in dropped.notes


def test_npz_files_end_their_last_episode(tmp_path):
    np.savez(tmp_path / "data.npz", **flat(7, timeouts=at(7, 2)))
    assert [e.length for e in read_npz(tmp_path / "data.npz").episodes] == [2, 3]


def test_without_timeouts_the_end_of_the_recording_is_one(read):
    data = read(flat(6, timeouts=None, terminals=at(6, 1)))
    assert [e.length for e in data.episodes] == [2, 3]
    assert [e.truncated for e in data.episodes] == [False, True]
    assert "there is no array 'timeouts'" in data.notes[0]


def test_leftovers_of_relabelled_recordings(read):
    """AntMaze v2: reward and terminal on every step near the goal; the ant walks on, and away."""
    terminals = at(9, 2, 3, 4)
    arrays = flat(9, terminals=terminals, rewards=terminals - 1.0, timeouts=at(9, 8))
    data = read(arrays)
    assert [e.length for e in data.episodes] == [3, 1, 1, 3]
    assert "2 episodes have one step, which is terminal (kept" in data.notes[-1]
    returns = to_transitions(data.episodes, TASK.rewards, 0.99).returns
    np.testing.assert_allclose(returns[2:], [5, 5, 5, -500, -500, -500], rtol=1e-6)


def test_with_next_observations_nothing_is_dropped(read):
    states = np.arange(5, dtype=np.float32)[:, None]
    following = states + 1
    following[2] = 77.0
    data = read(flat(5, next_observations=following, timeouts=at(5, 2)))
    assert [e.observations[:, 0].tolist() for e in data.episodes] == [[0, 1, 2, 77], [3, 4, 5]]
    assert not [note for note in data.notes if "dropped" in note or "cut ends" in note]


def test_gaps_inside_an_episode_are_refused(read):
    following = np.arange(1, 6, dtype=np.float32)[:, None]
    following[2] = 77.0
    with pytest.raises(InputError, match=r"next observation of row 2 is not 'observations' of row 3.*mark its end"):
        read(flat(5, next_observations=following))
    with pytest.raises(InputError, match="'next_observations' must have the keys and shapes"):
        read(flat(5, next_observations=np.zeros((5, 3))))


def test_columns_of_one_are_flattened_and_successes_kept(read):
    wins = at(4, 3)[:, None].astype(np.uint8)
    data = read(flat(4, rewards=-np.ones((4, 1)), terminals=wins, successes=wins))
    assert data.episodes[0].successes.tolist() == [False, False, False, True]


def test_dict_observations(read):
    episode = an_episode(3, terminated=True, keys=True)
    leaves = dict(named_leaves("observations", episode.observations))
    arrays = flat(3, observations=None, terminals=at(3, 2)) | {name: leaf[:3] for name, leaf in leaves.items()}
    found = read(arrays).episodes[0].observations
    assert found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["state"]["arm"][:3], episode.observations["state"]["arm"][:3])


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_missing_arrays_are_named(read, name):
    with pytest.raises(InputError, match=rf"there is no array '{name}' \(found: .*timeouts"):
        read(flat(4, **{name: None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": np.zeros((5, 1))}, r"'actions' has shape \(5, 1\), expected \(4, A\)"),
        ({"terminals": np.zeros(3)}, r"'terminals' has shape \(3,\), expected \(4,\)"),
        ({"timeouts": np.zeros(3)}, "'timeouts' has shape"),
        ({"observations": np.zeros((6, 1))}, "'observations' has shape"),
        ({"terminals": np.full(4, np.nan)}, "'terminals' holds NaN"),
        ({"rewards": np.zeros(0)}, "it has no rows"),
        ({"rewards": np.zeros((4, 2))}, "'rewards' has shape"),
        ({"timeouts": at(4, 0, 1, 2, 3)}, "no complete episode"),
        ({"actions": np.array([[b"a"]] * 4)}, "'actions' does not hold numbers"),
    ],
)
def test_unsound_rows_are_refused(read, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read(flat(4, **changes))
    assert "\n" not in str(caught.value)


def test_nan_is_found_in_its_episode(read):
    rewards = -np.ones(8)
    rewards[5] = np.nan
    with pytest.raises(InputError, match="episode 1: 'rewards' holds NaN or infinite values at step 2"):
        read(flat(8, rewards=rewards, terminals=at(8, 2, 7)))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"action_low": [-1.0]}, "'action_low' without the other bound"),
        ({"action_low": [1.0], "action_high": [-1.0]}, "'action_low' and 'action_high': action bounds are"),
        ({"action_low": ["a"], "action_high": ["b"]}, "'action_low' and 'action_high': could not convert"),
        ({"rate_hz": [10.0, 20.0]}, "it must be one number"),
        ({"rate_hz": "fast"}, "it must be one number"),
        ({"rate_hz": 0}, "states 0.0 steps per second"),
        ({"rate_hz": np.nan}, "states nan steps per second"),
        ({"action_names": ["x", "y", "z"]}, "states 3 names of actions, and an action has"),
        ({"action_names": [1.0]}, "it must be texts"),
    ],
)
def test_what_an_npz_states_of_the_machine_must_be_sound(tmp_path, stated, message):
    np.savez(tmp_path / "data.npz", **flat(4), **stated)
    with pytest.raises(InputError, match=message) as caught:
        read_npz(tmp_path / "data.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("reader", "suffix"), [(read_d4rl, "hdf5"), (read_npz, "npz")])
def test_damaged_files_are_refused(tmp_path, reader, suffix):
    path = tmp_path / f"data.{suffix}"
    with pytest.raises(InputError, match="there is no such file"):
        reader(path)
    if suffix == "npz":
        np.savez(path, **flat(500))
    else:
        write_hdf5(path, flat(500))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a complete") as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    for text in (b"", b"hello\nworld"):
        path.write_bytes(text)
        with pytest.raises(InputError, match="not a complete") as caught:
            reader(path)
        assert "allow_pickle" not in str(caught.value)


def test_a_bit_flip_inside_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", **flat(500))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[2000] ^= 0xFF
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a complete"):
        read_npz(tmp_path / "data.npz")


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "data.npz", **flat(4, rewards=np.array([{}, {}, {}, {}])))
    with pytest.raises(InputError, match="plain arrays"):
        read_npz(tmp_path / "data.npz")
    np.save(tmp_path / "data.npy", np.zeros(3))
    with pytest.raises(InputError, match="a single array"):
        read_npz(tmp_path / "data.npy")


@pytest.mark.skipif("CALQL_DOOR_HDF5" not in os.environ, reason="CALQL_DOOR_HDF5 names no file")
def test_the_human_door_demonstrations():
    data = load(f"d4rl:{os.environ['CALQL_DOOR_HDF5']}")
    assert (data.num_episodes, data.num_transitions) == (25, 6729 - 25)
    assert all(e.truncated for e in data.episodes)
    assert {e.length for e in data.truncate_at_horizon(200).episodes} == {200}


@pytest.mark.parametrize("name", ["terminals", "timeouts", "successes"])
@pytest.mark.parametrize("value", [-1, 2, 0.5])
def test_flags_are_0_or_1(read, name, value):
    arrays = rows_of([an_episode(5), an_episode(5, seed=1)])
    flags = np.zeros(len(arrays["rewards"]))
    flags[3] = value
    with pytest.raises(InputError, match=rf"'{name}' holds {value} in row 3 \(counted from 0\); write 0 or 1"):
        read(arrays | {name: flags})


def test_what_is_no_file_that_may_be_read_is_named(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    (tmp_path / "log.npz").touch()
    for name, cause in (
        ("pipe.npz", "a device, pipe or socket"), ("loop.npz", "no such file"), ("log.npz/x", "no such file"),
        ("x" * 300, "File name too long; check the path"), (".", "this is a folder"), ("a\0b", "no such file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=cause):
            load(f"npz:{tmp_path}/{name}")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may read everything
    (tmp_path / "log.csv").touch()
    for uri in (f"npz:{tmp_path}/log.npz", f"csv:{tmp_path}/log.csv", f"csv:{tmp_path}", f"awac:{tmp_path}"):
        with pytest.raises(InputError, match="may not be read; grant access"):
            load(uri)
