"""`calql data convert`: what is written reads back equal, never over something else, and never in part."""

import dataclasses
import importlib
import os
import resource

import gymnasium
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import logs, marked, write_hdf5
from recordings import an_episode, some_episodes

from calql import files
from calql.cli import common, main
from calql.data import Episodes, load
from calql.data.actions import in_unit
from calql.data.arrays import part
from calql.data.convert import convert
from calql.tasks import Task
from calql.training.options import experiment
from calql.types import Episode, InputError, RunError
from calql.units import ActionBounds


class Flat(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def calql(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.parametrize("scheme", ["minari", "npz"])
@given(episodes=some_episodes(inner_terminals=True), keys=st.booleans(), record=st.booleans())
@settings(deadline=None, max_examples=15, suppress_health_check=[*HealthCheck])
def test_what_is_written_reads_back_equal(tmp_path_factory, scheme, episodes, keys, record):
    if keys:
        episodes = [an_episode(e.length, terminated=not e.truncated, seed=e.length, keys=True) for e in episodes]
    data = Episodes(tuple(e if record else e._replace(successes=None) for e in episodes))
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("target")
        patch.setenv("MINARI_DATASETS_PATH", str(folder))
        to = "minari:my/log-v0" if scheme == "minari" else f"npz:{folder}/log.npz"
        convert(data, to)
        assert load(to).fingerprint() == data.fingerprint()


def test_what_the_recording_states_of_the_machine_is_kept(root):
    episodes = [an_episode(4, terminated=True, seed=1)]
    count = episodes[0].actions.shape[1]
    bounds, names = ActionBounds(np.full(count, -2.0), np.full(count, 3.0)), tuple(f"joint {i}" for i in range(count))
    convert(Episodes(tuple(episodes), "log", bounds=bounds, rate=12.5, action_names=names), "minari:my/log-v0")
    assert calql("data", "convert", "minari:my/log-v0", "--to", f"npz:{root}/log.npz") == 0
    for uri in ("minari:my/log-v0", f"npz:{root}/log.npz"):
        data = load(uri)
        assert (data.bounds, data.rate, data.action_names) == (bounds, 12.5, names)


def test_actions_that_were_mapped_are_stored_as_unit_actions(root):
    bounds = ActionBounds([-2.0], [3.0])
    logged = Episodes((an_episode(4, terminated=True, dims=(2, 1)),), "log", bounds=bounds)
    convert(in_unit(logged, bounds), f"npz:{root}/log.npz")
    assert load(f"npz:{root}/log.npz").bounds == ActionBounds.unit(1)


@given(data=st.data())
@settings(deadline=None, max_examples=15, suppress_health_check=[*HealthCheck])
def test_logs_of_any_layout_can_be_converted(tmp_path_factory, data):
    folder, log = tmp_path_factory.mktemp("log"), data.draw(logs())
    if log.expected():
        source = load(write_hdf5(folder, marked(log, data.draw)))
        convert(source, f"npz:{folder}/log.npz")
        assert load(f"npz:{folder}/log.npz").fingerprint() == source.fingerprint()


def test_the_command_prints_the_notes_and_the_next_step(root, capsys):
    rows = {"obs": np.zeros((4, 1)), "action": np.zeros((4, 1)), "reward": np.zeros(4), "terminated": [0, 0, 0, 1]}
    np.savez(root / "log.npz", **rows, torque=np.zeros(4))
    assert calql("data", "convert", f"npz:{root}/log.npz", "--to", "minari:my/log-v0") == 0
    said = capsys.readouterr().out
    assert "not used: torque" in said
    assert "wrote 1 episodes, 4 transitions to" in said
    assert "--data minari:my/log-v0" in said
    assert load("minari:my/log-v0").fingerprint() == load(f"npz:{root}/log.npz").fingerprint()


def test_train_prints_the_notes_too(root, capsys):
    rows = {"obs": np.zeros((4, 2)), "action": np.zeros((4, 1)), "reward": np.zeros(4), "terminated": [0, 0, 0, 1]}
    np.savez(root / "log.npz", **rows, torque=np.zeros(4))
    common.load_data(experiment(Task("flat", Flat, horizon=9), "bc", "smoke", data=f"npz:{root}/log.npz"))
    said = " ".join(capsys.readouterr().out.split())
    assert "note not used: torque" in said
    assert "note there is no array 'timeouts'" in said


@pytest.mark.parametrize("to", ["npz:{}/log.npz", "minari:my/log-v0"])
def test_nothing_is_overwritten(root, to):
    to, data = to.format(root), Episodes((an_episode(3),))
    convert(data, to)
    with pytest.raises(InputError, match="exists; choose another name, or delete it"):
        convert(Episodes((an_episode(4),)), to)
    assert load(to).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("to", ["npz:{}/log.npz", "minari:my/log-v0"])
def test_what_does_not_read_back_equal_is_removed(root, to, monkeypatch):
    module, to = importlib.import_module("calql.data.convert"), to.format(root)
    other = Episodes((an_episode(4),))
    monkeypatch.setattr(module, "read_npz", lambda _: other)
    monkeypatch.setattr(module, "read_minari", lambda _: other)
    with pytest.raises(RunError, match="does not read back equal to memory, so it was removed"):
        convert(Episodes((an_episode(3),)), to)
    assert not [name for _, _, files in os.walk(root) for name in files]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("csv:log.csv", "cannot write 'csv:log.csv'; use minari:ID or npz:FILE.npz"),
        ("npz:", "cannot write 'npz:'"),
        ("npz:/dev/null/log.npz", r"cannot write /dev/null/log.npz \(Not a directory\); choose another place"),
        ("minari:no version", "minari:no version: .*; name it like cart/pushed-v0"),
    ],
)
def test_places_that_cannot_be_written(to, message):
    with pytest.raises(InputError, match=message) as caught:
        convert(Episodes((an_episode(3),)), to)
    assert len(str(caught.value).splitlines()) == 1


def test_successes_in_some_episodes_only_are_refused():
    mixed = Episodes((an_episode(3), dataclasses.replace(Episodes((an_episode(2, record=False),))).episodes[0]))
    with pytest.raises(InputError, match="only some episodes have successes"):
        convert(mixed, "npz:log.npz")


def test_the_command_without_a_target(capsys):
    assert calql("data", "convert", "npz:log.npz") == 2
    assert "needs a place to write to: --to minari:ID or npz:FILE.npz" in capsys.readouterr().err
    assert calql("data", "info", "npz:log.npz", "--to", "npz:x.npz") == 2
    assert "does not use --to" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["npz", "minari"])
def test_whose_action_it_was_is_kept(tmp_path, scheme):
    acted = np.array([False, True, True])
    one = Episode(
        np.zeros((4, 2), np.float32), np.zeros((3, 1), np.float32), np.zeros(3, np.float32), np.zeros(3, bool), True,
        interventions=acted,
    )  # fmt: skip
    made = Episodes((one, one))
    to = f"npz:{tmp_path / 'log.npz'}" if scheme == "npz" else "minari:arm/taken-v0"
    convert(made, to)
    back = load(to)
    assert [episode.interventions.tolist() for episode in back.episodes] == [acted.tolist()] * 2
    assert back.fingerprint() == made.fingerprint()
    assert not any("intervention" in note for note in back.notes)
    assert part(one, 1, 3).interventions.tolist() == [True, True]
    with pytest.raises(InputError, match="only some episodes have interventions"):
        convert(Episodes((one, one._replace(interventions=None))), f"npz:{tmp_path / 'other.npz'}")


@pytest.mark.parametrize("name", ["interventions", "intervention", "is_intervention"])
def test_interventions_are_known_under_these_names(tmp_path, name):
    rows = dict(observations=np.zeros((3, 1)), actions=np.zeros((3, 1)), rewards=np.zeros(3), terminals=[0, 0, 1])
    np.savez(tmp_path / "log.npz", **rows, **{name: [0, 1, 0]})
    (episode,) = load(f"npz:{tmp_path / 'log.npz'}").episodes
    assert episode.interventions.tolist() == [False, True, False]


@pytest.mark.parametrize("limit", [0, 1_000, 100_000, 5_000_000, 5_500_000, 6_500_000])
def test_a_disk_that_is_full_at_any_time_is_one_error_and_leaves_nothing(root, limit):
    """HDF5 does not survive a failed write (it crashes the process), so none may reach it. The set has 7 MB."""
    rng = np.random.default_rng(0)
    episodes = [an_episode(10, terminated=True, seed=k) for k in range(2)]
    width = (11, 20_000)
    episodes = [e._replace(observations=rng.normal(size=width).astype("f4")) for e in (*episodes, *episodes)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*my-v0 \(File too large\); choose another place"):
            convert(Episodes(tuple(episodes)), "minari:my-v0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*(root / "minari").iterdir()]


def test_a_full_disk_is_found_where_space_cannot_be_taken_without_writing(tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate")
    files.reserve(tmp_path / "file", 1)
    with pytest.raises(OSError, match="No space left"):
        files.reserve(tmp_path / "file", 1 << 60)
