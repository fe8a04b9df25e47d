"""From a data URI to data that can be trained on: the table of formats, a reader of one's own, and `open_data`."""

import dataclasses
import importlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from recordings import TASK, an_episode

from calql.data import Episodes, load, open_data
from calql.data.load import missing_from
from calql.data.readers import FORMS, OWN_FORM, READERS
from calql.data.readers.npz import save_npz
from calql.types import InputError

MODULE = """
from calql.data import Episodes
from recordings import an_episode

def some(argument=None):
    return [an_episode(2), an_episode(int(argument or 3))]

def whole(argument):
    return Episodes((an_episode(4),), "elsewhere", ("as it was",))

def broken(argument):
    raise KeyError(argument)

def nothing(argument):
    return "text"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_format.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


class Flat(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


TINY = dataclasses.replace(TASK, env=Flat)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_format_is_documented_and_named_in_messages():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for scheme, row in READERS.items():
        assert row.form.startswith(f"{scheme}:")
        assert f"| `{row.form}`" in page
    assert f"| `{OWN_FORM}`" in page
    with pytest.raises(InputError) as caught:
        load("nothing")
    assert str(caught.value).endswith(f"use one of {FORMS}")


def test_a_reader_of_one_s_own(own):
    assert [e.length for e in load("own_format:some").episodes] == [2, 3]
    data = load("own_format:some#5")
    assert [e.length for e in data.episodes] == [2, 5]
    assert data.uri == "own_format:some#5"
    data = load("own_format:whole#x")
    assert (data.uri, data.notes) == ("own_format:whole#x", ("as it was",))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("own_format:broken#x", r"own_format:broken#x: the reader failed \(KeyError: 'x'\); fix it"),
        ("own_format:nothing#x", "returned a str; it must return calql.data.Episodes"),
        ("own_format:absent", "is neither a data URI nor a reader .*no attribute 'absent'.*; use one of local:TASK"),
        ("no_such_module:read", "is neither a data URI nor a reader .*no_such_module"),
    ],
)
def test_readers_that_do_not_read(own, uri, message):
    with pytest.raises(InputError, match=message) as caught:
        load(uri)
    assert "\n" not in str(caught.value)


# -- open_data ---------------------------------------------------------------------------------------------------------


def test_data_are_opened_and_checked(tmp_path, capsys):
    save_npz(Episodes((an_episode(25, success=[3]),)), tmp_path / "log.npz")
    episodes, report = open_data(TINY, f"npz:{tmp_path}/log.npz", discount=0.9)
    assert (episodes.num_transitions, report.facts["discount"], report.errors) == (25, 0.9, ())
    assert "longer than the task's horizon" in report.warnings[0]
    cut, report = open_data(TINY, f"npz:{tmp_path}/log.npz", cut_at_horizon=True)
    assert cut.num_transitions == TINY.horizon
    assert "were cut" in cut.notes[0]
    assert capsys.readouterr().out == ""


def test_errors_are_raised_or_reported(tmp_path):
    save_npz(Episodes((an_episode(dims=(3, 1)),)), tmp_path / "log.npz")
    with pytest.raises(InputError, match=r"the data's observations are \(3,\), the environment's are \(2,\)"):
        open_data(TINY, f"npz:{tmp_path}/log.npz")
    _, report = open_data(TINY, f"npz:{tmp_path}/log.npz", strict=False)
    assert len(report.errors) == 1
    _, report = open_data(TINY, f"npz:{tmp_path}/log.npz", with_env=False)
    assert not report.errors


def test_a_task_without_data_says_so():
    with pytest.raises(InputError, match="task 'toy' has no data of its own; name some with --data"):
        open_data(TINY)


def test_local_data_are_missing_until_they_are_built(monkeypatch):
    module = importlib.import_module("calql.data.load")  # the attribute of that name is the function
    task = dataclasses.replace(TINY, data="local:toy-v1", builder="nowhere:build", recipe={"noise": 1, "size": 2})
    task = dataclasses.replace(task, earlier={"local:toy": {"noise": 0}})
    assert missing_from(task) == missing_from(task, "local:toy-v1") == task
    old = missing_from(task, "local:toy")
    assert old is not None
    assert (old.data, old.recipe) == ("local:toy", {"noise": 0, "size": 2})
    assert missing_from(task, "local:toy-v0") == old
    assert missing_from(task, "npz:other.npz") is None
    assert missing_from(task, "local:toy-v2") is None
    assert missing_from(dataclasses.replace(task, builder=None), "local:toy") is None
    monkeypatch.setattr(module, "is_built", lambda name: name == "toy-v1")
    assert missing_from(task) is None
    assert missing_from(task, "local:toy") is not None
