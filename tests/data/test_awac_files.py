"""The Adroit files of AWAC, written by the test in both of their layouts, and pickles that mean harm."""

import contextlib
import io
import os
import pickle
import subprocess
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import TASK, an_episode, cloned, demonstration, some_episodes, write_awac

from calql.data import load
from calql.data.readers.safe_pickle import load_object_npy, load_pickle
from calql.data.transitions import to_transitions
from calql.types import InputError


@given(some_episodes(), some_episodes())
@settings(deadline=None, max_examples=40)
def test_both_files_are_read_the_official_way(humans, clones):
    clones = [an_episode(2, success=[0], seed=99), *clones]  # at least one success
    with tempfile.TemporaryDirectory() as folder:
        write_awac(folder, "door2_sparse.npy", [demonstration(e) for e in humans])
        write_awac(folder, "door_bc_sparse4.npy", [cloned(e) for e in clones])
        data = load(f"awac:{folder}")
    expected = [e for e in humans + clones if (e.rewards == 0).any()]
    assert data.num_episodes == len(expected)
    for found, episode in zip(data.episodes, expected, strict=True):
        steps = np.flatnonzero(episode.rewards == 0)[-1] + 1
        assert found.length == steps
        assert not found.truncated
        np.testing.assert_array_equal(found.observations, episode.observations[: steps + 1])
        np.testing.assert_array_equal(found.actions, episode.actions[:steps])
        np.testing.assert_array_equal(found.terminations, episode.rewards[:steps] == 0)
    flat = to_transitions(data.episodes, TASK.rewards, 0.9)
    np.testing.assert_array_equal(flat.masks, flat.rewards < 0)
    np.testing.assert_allclose(flat.returns[flat.masks == 0], 5.0)


def test_failures_are_left_out_and_a_missing_file_is_noted(tmp_path):
    write_awac(tmp_path, "pen2_sparse.npy", [demonstration(an_episode(4)), demonstration(an_episode(4, success=[1]))])
    data = load(f"awac:{tmp_path}")
    assert [e.length for e in data.episodes] == [2]
    assert "pen_bc_sparse4.npy is missing" in data.notes[1]


@pytest.mark.parametrize("layout", [demonstration, cloned])
def test_next_observations_of_other_steps_are_refused(tmp_path, layout):
    """The state behind a step is taken from the following row, which must therefore be the recorded one."""
    trajectory = layout(an_episode(4, success=[3]))
    trajectory["next_observations"] = trajectory["next_observations"][::-1]
    write_awac(tmp_path, "pen2_sparse.npy", [trajectory])
    with pytest.raises(InputError, match=r"trajectory 0: the next observation of row 0 is not .* split the trajectory"):
        load(f"awac:{tmp_path}")


def test_the_folder_must_hold_one_known_task(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        load(f"awac:{tmp_path}/nothing")
    with pytest.raises(InputError, match="holds none of pen2_sparse"):
        load(f"awac:{tmp_path}")
    write_awac(tmp_path, "pen2_sparse.npy", [demonstration(an_episode(success=[1]))])
    write_awac(tmp_path, "door2_sparse.npy", [demonstration(an_episode(success=[1]))])
    with pytest.raises(InputError, match=r"holds pen, door; name one, as in awac:.*#pen"):
        load(f"awac:{tmp_path}")
    with pytest.raises(InputError, match="holds none of relocate2_sparse"):
        load(f"awac:{tmp_path}#relocate")
    with pytest.raises(InputError, match="no task 'hammer'; choose one of pen, door, relocate"):
        load(f"awac:{tmp_path}#hammer")
    assert load(f"awac:{tmp_path}#door").num_episodes == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, "trajectory 0 is not a dict with observations"),
        ({"rewards": np.zeros(9)}, "has 9 rewards for 3 actions"),
        ({"actions": np.zeros((2, 1))}, "'observations' has shape"),
        ({"observations": [{"image": 1}] * 3}, "without 'state_observation'"),
        ({"observations": 3}, "'observations' has shape"),
        ({"next_observations": "abc"}, "does not hold numbers"),
        ({"rewards": np.array([0.0, np.nan, 0.0, 0.0])}, "'rewards' holds NaN"),
    ],
)
def test_unsound_trajectories_are_refused(tmp_path, changes, message):
    trajectory = demonstration(an_episode(success=[1])) | changes
    write_awac(tmp_path, "door2_sparse.npy", [{name: x for name, x in trajectory.items() if x is not None}])
    with pytest.raises(InputError, match=message) as caught:
        load(f"awac:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_data_without_success_is_refused(tmp_path):
    write_awac(tmp_path, "door2_sparse.npy", [demonstration(an_episode())])
    with pytest.raises(InputError, match="no episode has a success"):
        load(f"awac:{tmp_path}")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "door2_sparse.npy"
    write_awac(tmp_path, path.name, [demonstration(an_episode(50, success=[3]))])
    whole = path.read_bytes()
    for content, message in [
        (whole[: len(whole) // 2], "truncated or damaged"),
        (whole[:20], "not a .npy file"),
        (b"", "not a .npy file"),
        (pickle.dumps([1]), "not a .npy file"),
        (whole.replace(b"(1,)", b"(2,)"), "do not fit its header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"cannot read door2_sparse.npy: it.*{message}") as caught:
            load(f"awac:{tmp_path}")
        assert "\n" not in str(caught.value)
    np.save(path, np.zeros(3))
    with pytest.raises(InputError, match="a plain array of float64"):
        load(f"awac:{tmp_path}")


# -- pickles -----------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.sampled_from(
        [np.arange(6).astype(dtype).reshape(2, 3) for dtype in ("<f4", ">f8", "i8", "u1", ">i2", "?", "<f8")]
        + [np.array(["ab", "c"]), np.array([b"ab", b"c"]), np.asfortranarray(np.ones((2, 3))), np.zeros((0, 3))]
        + [np.float32(1.5), np.int64(-3), np.bool_(True), 1, 2.5, "text", b"bytes", None, True, frozenset({1}), {2}]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, np.ndarray):
        assert np.asarray(found).dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@given(VALUES, st.integers(0, 5))
@settings(deadline=None)
def test_arrays_and_containers_come_back(value, protocol):
    same(load_pickle(pickle.dumps(value, protocol=protocol)), value)


def test_old_module_names_and_python_2_bytes():
    content = pickle.dumps(np.arange(3.0), protocol=2).replace(b"numpy._core", b"numpy.core")
    np.testing.assert_array_equal(load_pickle(content), np.arange(3.0))


def test_object_arrays_come_back():
    value = np.array([{"a": np.arange(2)}, [1, 2]], dtype=object)
    found = load_pickle(pickle.dumps(value))
    np.testing.assert_array_equal(found[0]["a"], [0, 1])
    assert found[1] == [1, 2]


class Harm:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, subprocess.call, getattr, open, pickle.loads, __import__])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_names_are_refused_and_nothing_runs(tmp_path, function, protocol):
    mark = tmp_path / "harm"
    content = pickle.dumps([np.zeros(2), Harm(function, f"touch {mark}")], protocol=protocol)
    with pytest.raises(InputError, match=r"asks for '.*', which is no array type") as caught:
        load_pickle(content)
    assert "\n" not in str(caught.value)
    assert function.__name__ in str(caught.value)
    assert not mark.exists()


def test_harm_in_a_trajectory_names_the_file(tmp_path):
    mark = tmp_path / "harm"
    write_awac(
        tmp_path, "door2_sparse.npy", [demonstration(an_episode()) | {"env_infos": Harm(os.system, f"touch {mark}")}]
    )
    with pytest.raises(InputError, match=r"cannot read door2_sparse.npy: it asks for '(posix|nt).system'"):
        load(f"awac:{tmp_path}")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["numpy.load", "numpy.lib.npyio.load", "numpy.ndarray.tofile", "builtins.eval"])
def test_neighbours_of_allowed_names_are_refused(name):
    module, _, attribute = name.rpartition(".")
    with pytest.raises(InputError, match="no array type"):
        load_pickle(f"c{module}\n{attribute}\n.".encode())
    content = (
        pickle.PROTO
        + b"\x04"
        + b"".join(pickle.SHORT_BINUNICODE + bytes([len(part)]) + part.encode() for part in ("numpy", "ndarray.tofile"))
    )
    with pytest.raises(InputError, match="no array type"):
        load_pickle(content + pickle.STACK_GLOBAL + pickle.STOP)


def reduce_to(dtype_state, data, shape=(2,), code="f8"):
    """A pickle of an array with a forged dtype state and contents."""

    class Forged:
        def __reduce__(self):
            state = (1, shape, ForgedDtype(), False, data)
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    class ForgedDtype:
        def __reduce__(self):
            return np.dtype, (code, False, True), dtype_state

    return pickle.dumps(Forged())


def test_forged_dtypes_do_no_harm():
    plain = (3, "<", None, None, None, -1, -1, 0)
    np.testing.assert_array_equal(load_pickle(reduce_to(plain, np.ones(2).tobytes())), [1.0, 1.0])
    flags = (3, "<", None, None, None, -1, -1, 0x3F)  # "holds Python objects": pointers made of foreign bytes
    np.testing.assert_array_equal(load_pickle(reduce_to(flags, np.ones(2).tobytes())), [1.0, 1.0])
    for content in [
        reduce_to(plain, b"short"),
        reduce_to(plain, np.ones(2).tobytes(), shape=(10**6,)),
        reduce_to(plain, np.ones(2).tobytes(), shape=(-1, -2)),
        reduce_to(plain, [1, 2]),
        reduce_to(plain, np.ones(2).tobytes(), code="O"),
        reduce_to(plain, [1], code="O"),
        reduce_to(plain, np.ones(2).tobytes(), code="V8"),
        reduce_to(plain, np.ones(2).tobytes(), code="f8,O"),
    ]:
        with pytest.raises(InputError) as caught:
            load_pickle(content)
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_noise_is_refused_or_plain(noise):
    with contextlib.suppress(InputError):
        load_pickle(noise)


def test_headers_of_both_versions(tmp_path):
    array = np.empty(1, object)
    array[0] = [1, 2]
    for version in [(1, 0), (2, 0)]:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, version=version)
        (tmp_path / "x.npy").write_bytes(buffer.getvalue())
        assert load_object_npy(tmp_path / "x.npy")[0] == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        pickle.NONE + pickle.LONG_BINPUT + (2**31).to_bytes(4, "little") + pickle.STOP,
        pickle.NONE + pickle.PUT + b"2000000000\n" + pickle.STOP,
        b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR.",
        b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.",
    ],
)
def test_a_few_bytes_do_not_ask_for_gigabytes(content):
    with pytest.raises(InputError, match="damaged"):
        load_pickle(content)


def test_what_a_file_says_reaches_the_terminal_as_one_line():
    with pytest.raises(InputError) as refused:
        load_pickle(b"c\x1b[2Jevil\rname\nx\n.")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("header", [b"{'descr': '''", b"{'shape': (", b"\x00\xff", b"(" * 300])
def test_a_damaged_header_is_refused(header, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match=r"not a \.npy file"):
        load_object_npy(str(path))
