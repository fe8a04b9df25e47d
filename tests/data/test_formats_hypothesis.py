"""Generated logs in every format: equal to a reading by NumPy alone, or one line; whatever is not used is named."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from logs import (
    logs,
    marked,
    write_csv,
    write_hdf5,
    write_lerobot,
    write_npz,
    write_parquet,
    write_robomimic,
)

from calql.data import load
from calql.data.arrays import named_leaves
from calql.types import InputError

LOGS = int(os.environ.get("CALQL_LOGS", "40"))
"""Number of logs for each test and format; 200 make 2,000 in all."""
QUICK = settings(deadline=None, max_examples=LOGS, suppress_health_check=[*HealthCheck])
ROWS = {"npz": write_npz, "d4rl": write_hdf5, "csv": write_csv, "parquet": write_parquet}
EPISODES = {"robomimic": write_robomimic, "lerobot": write_lerobot}


def read(write, *arguments):
    """The data of a log in a file, or the error that refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        uri = write(Path(folder), *arguments)
        try:
            return load(uri)
        except InputError as error:
            return str(error)


def same(data, log):
    """The episodes, and a note with the names of all arrays that are not used."""
    expected = log.expected()
    if not expected:
        assert "there is no complete episode" in data
        return
    assert not isinstance(data, str), data
    assert len(data.episodes) == len(expected)
    for episode, wanted in zip(data.episodes, expected, strict=True):
        states = dict(named_leaves("observations", episode.observations))
        assert states.keys() == wanted.observations.keys()
        for name, path in wanted.observations.items():
            assert states[name].dtype == path.dtype
            np.testing.assert_array_equal(states[name], path, err_msg=name)
        for name in ("actions", "rewards", "terminations", "truncated", "successes"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(wanted, name), err_msg=name)
    idle = " ".join(note for note in data.notes if note.startswith("not used: "))
    assert all(name in idle for name in log.extra)
    given_rows, kept = sum(log.lengths), data.num_transitions
    assert kept == given_rows or any("gave only the last observation" in note for note in data.notes)


@pytest.mark.parametrize("scheme", ROWS)
@given(data=st.data())
@QUICK
def test_rows_are_read_as_numpy_reads_them(scheme, data):
    log = data.draw(logs(images=scheme != "csv"))
    arrays = marked(log, data.draw) | log.extra
    same(read(ROWS[scheme], dict(data.draw(st.permutations(list(arrays.items()))))), log)


@pytest.mark.parametrize("scheme", EPISODES)
@given(data=st.data())
@QUICK
def test_episodes_are_read_as_numpy_reads_them(scheme, data):
    log = data.draw(logs())
    if scheme == "robomimic":
        log.arrays.pop("successes", None)  # it has none
    if set(log.arrays) & {"observations"} and scheme == "robomimic":
        log.arrays = {name.replace("observations", "observations/state"): a for name, a in log.arrays.items()}
    same(read(EPISODES[scheme], log), log)


DAMAGE = ["nan", "short", "missing", "text", "twice", "scattered", "inside"]


@pytest.mark.parametrize("scheme", ROWS)
@given(data=st.data(), damage=st.sampled_from(DAMAGE))
@QUICK
def test_unsound_rows_are_refused_in_one_line(scheme, data, damage):
    log = data.draw(logs(images=scheme != "csv", inner=False))
    assume(log.expected() and "next" not in log.arrays)
    terminals, ends = log.arrays["terminals"], np.isin(np.arange(sum(log.lengths)), log.ends)
    arrays = {name: a for name, a in log.arrays.items() if name.split("/")[0] != "next"}
    number = np.repeat(np.arange(len(log.lengths)), log.lengths)
    if damage == "nan":
        name = data.draw(st.sampled_from(["rewards", "actions", "terminals"]))
        arrays[name] = arrays[name].astype("f8")
        arrays[name][:] = np.nan  # one in a row that is no step does no harm
        arrays["timeouts"] = ends
    elif damage == "short":
        assume(scheme in ("npz", "d4rl"))
        name = data.draw(st.sampled_from(sorted(arrays)))
        arrays[name] = arrays[name][:-1]
        assume(len(terminals) > 1)
        arrays["timeouts"] = ends
    elif damage == "missing":
        gone = data.draw(st.sampled_from(["observations", "actions", "rewards", "terminals"]))
        arrays = {name: a for name, a in arrays.items() if name.split("/")[0] != gone}
        if gone == "rewards":
            arrays.pop("successes", None)
        arrays["timeouts"] = ends
    elif damage == "text":
        arrays["rewards"] = np.array(["much"] * len(terminals), "S4" if scheme == "d4rl" else "U4")
        arrays["timeouts"] = ends
    elif damage == "twice":
        arrays["terminated"] = ~terminals
    elif damage == "scattered":
        assume(len(log.lengths) > 1)
        arrays["episode"] = np.where(np.arange(len(number)) == len(number) - 1, number[0], number)
        assume(number[0] != number[-1] and (log.lengths[-1] > 1 or len(log.lengths) > 2))
    else:
        assume(max(log.lengths) > 1)
        arrays |= {"episode": number, "truncated": ~ends}
    refused = read(ROWS[scheme], arrays)
    assert isinstance(refused, str), refused.notes
    assert len(refused.splitlines()) == 1
