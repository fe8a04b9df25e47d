"""Readers under random recordings and random damage: every row counts once, and only InputError is ever raised."""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import cells, write_csv
from recordings import (
    FLAT,
    an_episode,
    cloned,
    demonstration,
    rows_of,
    some_episodes,
    store,
    write_awac,
    write_hdf5,
)

from calql.data import load
from calql.data.readers.npz import read_npz, save_npz
from calql.data.readers.rows import episodes_from_rows
from calql.data.success import split_at_terminations
from calql.types import InputError

QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def flat_rows(draw, max_rows=25):
    """N rows whose observation and action are the row's number; the optional arrays are there or not."""
    count = draw(st.integers(1, max_rows))

    def flags():
        return np.array(draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=count, max_size=count)), bool)

    number = np.arange(count, dtype=np.float32)
    rows = {"observations": number[:, None], "actions": number[:, None], "rewards": number, "terminals": flags()}
    if draw(st.booleans()):
        rows["timeouts"] = flags()
    if draw(st.booleans()):
        rows["successes"] = flags()
    if draw(st.booleans()):
        rows["next_observations"] = number[:, None] + 1
    return rows


def read(rows, **options):
    """The episodes, or nothing where the rows hold not one whole step."""
    with contextlib.suppress(InputError):
        return episodes_from_rows(rows, "rows", **options).episodes
    return ()


@given(flat_rows(), st.booleans())
@QUICK
def test_every_row_is_a_step_once_and_in_order(rows, drop_unfinished):
    episodes = read(rows, drop_unfinished=drop_unfinished)
    taken = np.concatenate([e.rewards for e in episodes] or [[]]).astype(int)
    assert (np.diff(taken) > 0).all()
    terminals, timeouts = rows["terminals"], rows.get("timeouts", np.zeros_like(rows["terminals"]))
    count, ends = len(terminals), terminals | timeouts
    whole = "next_observations" in rows

    ended = np.flatnonzero(ends)[-1] + 1 if ends.any() else 0
    unfinished = np.arange(count) >= ended
    left_out = unfinished & ("timeouts" in rows and not whole and drop_unfinished)
    if not whole:  # the last row of a cut episode is only the state that the step before led to
        left_out |= timeouts & ~terminals
        left_out[-1] |= not terminals[-1]
    assert taken.tolist() == np.flatnonzero(~left_out).tolist()

    for episode in episodes:
        own = episode.rewards.astype(int)
        assert (np.diff(own) == 1).all()
        assert not ends[own[:-1]].any()  # no episode goes on behind an end
        np.testing.assert_array_equal(episode.actions[:, 0], own)
        np.testing.assert_array_equal(episode.observations[:-1, 0], own)
        np.testing.assert_array_equal(episode.terminations, terminals[own])
        assert episode.truncated or terminals[own[-1]]
        if "successes" in rows:
            np.testing.assert_array_equal(episode.successes, rows["successes"][own])
        if whole or not terminals[own[-1]]:
            assert episode.observations[-1, 0] == own[-1] + 1


@given(flat_rows())
@QUICK
def test_what_was_read_can_be_written_and_read_again(rows):
    with contextlib.suppress(InputError), tempfile.TemporaryDirectory() as folder:
        data = episodes_from_rows(rows, "rows")
        save_npz(data, Path(folder) / "data.npz")
        found = read_npz(Path(folder) / "data.npz")
        assert found.fingerprint() == data.fingerprint()


@given(some_episodes(inner_terminals=True))
@QUICK
def test_splitting_loses_nothing(episodes):
    for episode in episodes:
        parts = split_at_terminations(episode)
        np.testing.assert_array_equal(np.concatenate([p.actions for p in parts]), episode.actions)
        np.testing.assert_array_equal(np.concatenate([p.observations[:-1] for p in parts]), episode.observations[:-1])
        assert [p.terminations.tolist() for p in parts] == [[False] * (p.length - 1) + [True] for p in parts[:-1]] + [
            parts[-1].terminations.tolist()
        ]
        assert not parts[-1].terminations[:-1].any()
        assert [p.truncated for p in parts] == [False] * (len(parts) - 1) + [episode.truncated]


# -- AWAC --------------------------------------------------------------------------------------------------------------


@given(some_episodes(max_size=4), some_episodes(max_size=4))
@QUICK
def test_awac_steps_are_kept_up_to_the_last_success(humans, clones):
    with tempfile.TemporaryDirectory() as folder:
        write_awac(folder, "pen2_sparse.npy", [demonstration(e) for e in humans])
        write_awac(folder, "pen_bc_sparse4.npy", [cloned(e) for e in clones])
        wanted = []
        for episode in humans + clones:
            wins = np.flatnonzero(episode.rewards == 0.0)
            if wins.size:
                wanted.append(episode.actions[: wins[-1] + 1])
        if not wanted:
            with pytest.raises(InputError, match="no episode has a success"):
                load(f"awac:{folder}")
            return
        data = load(f"awac:{folder}")
    assert [e.length for e in data.episodes] == [len(actions) for actions in wanted]
    np.testing.assert_array_equal(np.concatenate([e.actions for e in data.episodes]), np.concatenate(wanted))
    for episode in data.episodes:
        np.testing.assert_array_equal(episode.terminations, episode.rewards == 0.0)
        assert episode.truncated == (not episode.terminations[-1])


# -- damage ------------------------------------------------------------------------------------------------------------


NAMES = {
    "d4rl": "data.hdf5", "npz": "data.npz", "awac": "pen2_sparse.npy", "csv": "data.csv", "parquet": "data.parquet",
    "robomimic": "demo.hdf5",
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a sound recording in each format."""
    folder = tmp_path_factory.mktemp("sound")
    rows = rows_of([an_episode(12, terminated=True, success=[3]), an_episode(9, seed=1)])
    write_hdf5(folder / NAMES["d4rl"], rows)
    np.savez_compressed(folder / NAMES["npz"], **rows)
    write_awac(folder, NAMES["awac"], [demonstration(an_episode(8, success=[5]))])
    os.rename(write_csv(folder, rows).removeprefix("csv:"), folder / NAMES["csv"])
    pq.write_table(pa.table({name: cells(array) for name, array in rows.items()}), folder / NAMES["parquet"])
    write_hdf5(folder / NAMES["robomimic"], {f"data/demo_0/{name}": array for name, array in rows.items()})
    return folder


def refusal(scheme, content):
    """Why the reader refuses such a file; None where it reads it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAMES[scheme]).write_bytes(content)
        try:
            load(f"{scheme}:{folder}" if scheme == "awac" else f"{scheme}:{folder}/{NAMES[scheme]}")
        except InputError as error:
            return str(error)
    return None


@pytest.mark.parametrize("scheme", NAMES)
@given(content=st.binary(max_size=200))
@QUICK
def test_noise_is_refused(scheme, content):
    assert len(refusal(scheme, content).splitlines()) == 1


@pytest.mark.parametrize("scheme", NAMES)
@given(share=st.floats(0.0, 1.0, exclude_max=True))
@QUICK
def test_truncated_files_are_refused(sound, scheme, share):
    whole = (sound / NAMES[scheme]).read_bytes()
    assert refusal(scheme, whole) is None
    said = refusal(scheme, whole[: int(share * len(whole))])
    if scheme == "csv":  # text has no mark of its end: a file that is cut behind a row is a shorter log
        assert said is None or len(said.splitlines()) == 1
    else:
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize("scheme", NAMES)
@given(changes=st.lists(st.tuples(st.floats(0.0, 1.0, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
@settings(QUICK, derandomize=True)  # always the same damage: what HDF5's C code makes of all others is not ours to test
def test_changed_bytes_are_read_or_refused(sound, scheme, changes):
    content = bytearray((sound / NAMES[scheme]).read_bytes())
    for share, value in changes:
        content[int(share * len(content))] = value
    said = refusal(scheme, bytes(content))
    assert said is None or len(said.splitlines()) == 1


@given(
    share=st.floats(0.0, 1.0, exclude_max=True),
    which=st.sampled_from(["main_data.hdf5", "metadata.json"]),
    noise=st.binary(max_size=40),
)
@settings(QUICK, max_examples=20)
def test_damaged_minari_sets_are_read_or_refused(tmp_path_factory, share, which, noise):
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("minari")
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        store("toy-v0", [an_episode(12, success=[3])], FLAT)
        path = root / "toy-v0" / "data" / which
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))] + noise)
        with contextlib.suppress(InputError):
            load("minari:toy-v0")
