"""Runs of every release can be read for ever; a record says what it does not know, and whose code it needs."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from calql.cli import main
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.training import loop
from calql.training.experiment import decode, differences, encode
from calql.training.options import experiment
from calql.training.record import read_record
from calql.training.run_dir import RunDir
from calql.types import InputError

RELEASES = sorted((Path(__file__).parent / "releases").iterdir())
EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)


def calql(*arguments, code=0):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == code


@pytest.fixture
def own_data(tmp_path_factory, monkeypatch):
    """A place for data sets where no other test builds a smaller one of the same name."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.getbasetemp() / "data-of-releases"))


@pytest.fixture
def run(release, tmp_path, own_data):
    """A copy of a finished run that a release left behind."""
    return shutil.copytree(release, tmp_path / "run")


@EVERY_RELEASE
def test_a_run_of_any_release_is_read_without_today_s_tables(run, monkeypatch):
    for name in list(TASKS):
        monkeypatch.delitem(TASKS, name)
    made = read_record(RunDir(run)).experiment
    assert (made.task.id, made.method, made.title, made.seed) == ("pointmaze-medium-narrow", "cal-ql", "Cal-QL", 7)
    assert made.task.rewards.map(1.0) == 10.0
    assert [type(phase.algorithm).__name__ for phase in made.phases] == ["CalQL", "CalQL"]
    assert (made.pretrain.offline_steps, made.finetune.online_steps, made.finetune.replay_capacity) == (60, 200, 1_000)
    assert made.pretrain.algorithm.actor_hidden == (16, 16)


@EVERY_RELEASE
def test_a_run_of_any_release_is_evaluated_reported_and_continued(run, tmp_path, capsys):
    before = RunDir(run).read_rows("eval.csv")
    calql("eval", run, "--episodes", 2, "--json")
    assert json.loads(capsys.readouterr().out)["grad_step"] == 260
    calql("report", run, "--out", tmp_path / "report")
    assert "Cal-QL" in (tmp_path / "report" / "table.md").read_text()
    calql("train", "--resume", "--out", run, "--set", "online_steps=250")
    after = RunDir(run).read_rows("eval.csv")
    assert [{name: row[name] for name in before[0]} for row in after[: len(before)]] == before
    assert after[-1]["env_step"] == "250"
    config = json.loads((run / "config.json").read_text())
    assert config["format"] == 2
    assert config["starts"][0]["git_commit"] == "822fd1385400b393ea454d5789910cb89e177e2b"
    assert "device" in config["starts"][1]
    assert read_record(RunDir(run)).experiment.finetune.online_steps == 250


def without_defaults(record):
    """A record as of before all options that have a default and stand at it."""
    kept = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            kept[field.name] = without_defaults(value)
        elif field.default is dataclasses.MISSING or value != field.default:
            kept[field.name] = value
    return kept


@pytest.mark.parametrize("method", METHODS)
def test_an_option_that_is_new_breaks_no_record(method):
    """It reads as its default, is written again, and the run is still the same to a sweep."""
    made = experiment("pointmaze-medium-narrow", method)
    whole, record = encode(made), without_defaults(made)
    old = {name: record[name] for name in ("data", "measurement", "seed", "method", "title") if name in record}
    for name in ("pretrain", "finetune"):
        if whole[name]:
            old[name] = record[name] | {"rule": whole[name]["rule"]}
    again = decode({"pretrain": None, "finetune": None, "task": whole["task"]} | old)
    assert encode(again) == whole
    assert differences(again, made) == []


def test_online_settings_of_format_1_are_those_of_fine_tuning(tmp_path):
    """Options that stood beside the others then belong to the phase that they changed."""
    shutil.copytree(RELEASES[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["settings"] |= {"cql_alpha_online": 0.25, "utd": 4, "actor_once_per_step": True, "reward_scale": 2.0}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    made = read_record(RunDir(tmp_path / "run")).experiment
    assert [phase.algorithm.cql_alpha for phase in made.phases] == [5.0, 0.25]
    assert [phase.algorithm.actor_every for phase in made.phases] == [1, 4]
    assert made.task.rewards.scale == 2.0


@pytest.mark.parametrize("missing", ["settings", "phases", "data"])
def test_a_record_of_format_1_that_is_not_whole_is_bad_input(missing, tmp_path):
    shutil.copytree(RELEASES[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config[missing]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="format 1"):
        read_record(RunDir(tmp_path / "run"))


def write(folder, change):
    """A new run's record, changed; returns its folder."""
    made = tiny.trainer(folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return made.run_dir


def test_a_record_of_a_newer_calql_names_what_is_not_known(tmp_path):
    run_dir = write(tmp_path / "run", lambda config: config["experiment"]["finetune"].update(warm_up=3))
    (note,) = [note for note in read_record(run_dir).notes if "warm_up" in note]
    assert "finetune.warm_up" in note
    run_dir = write(tmp_path / "other", lambda config: config.update(format=9))
    with pytest.raises(InputError, match="format 9"):
        read_record(run_dir)


OWN = """
import dataclasses
from calql.algorithms import CalQL
from calql.methods import Method

@dataclasses.dataclass(frozen=True)
class Mine(CalQL):
    softness: float = 0.5

ROW = Method("mine", "My method", Mine, Mine)
"""


def test_the_user_s_own_code_is_recorded_and_a_changed_one_is_told(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_rules", raising=False)
    made = experiment(tiny.TASK, "my_rules:ROW", "smoke", options={"softness": 0.25})
    assert encode(made)["pretrain"]["rule"] == "my_rules:Mine"
    monkeypatch.setattr(tiny, "made", lambda *_, **__: made)
    run_dir = tiny.trainer(tmp_path / "run").run_dir
    read = read_record(run_dir)
    assert read.experiment.pretrain.algorithm.softness == 0.25
    assert (read.experiment.title, read.experiment.method) == ("My method", "my_rules:ROW")
    assert not [note for note in read.notes if "my_rules" in note]
    (tmp_path / "my_rules.py").write_text(OWN + "\n# changed\n")
    assert [note for note in read_record(run_dir).notes if "my_rules has changed" in note]


UNNAMED = """
import dataclasses
import functools
import tiny

class Maker:
    def __call__(self, render_mode=None):
        return tiny.Slope()

def task():
    return dataclasses.replace(tiny.TASK, env=FACTORY)
"""


@pytest.mark.parametrize("factory", ["lambda render_mode=None: tiny.Slope()", "functools.partial(Maker())", "Maker()"])
def test_an_environment_that_only_the_task_s_own_function_can_find(factory, tmp_path, monkeypatch):
    """A lambda has no name to import: the record names the function that makes the task."""
    (tmp_path / "my_task.py").write_text(UNNAMED.replace("FACTORY", factory))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    made = experiment("my_task:task", "bc", "smoke")
    record = encode(made)
    assert record["task"]["env"] == "my_task:task().env"
    assert isinstance(decode(record).task.factory()(), tiny.Slope)


def test_every_start_of_a_run_is_recorded(tmp_path):
    from calql.training.run import events

    made = tiny.made()
    for resume in (False, True):
        steps = events(made, tmp_path / "run", tiny.DATA, resume=resume)
        next(steps)
        steps.close()
    starts = json.loads((tmp_path / "run" / "config.json").read_text())["starts"]
    assert len(starts) == 2
    assert {"time", "command", "git_commit", "packages", "device", "cpu"} <= set(starts[1])


def test_counters_of_format_1_are_those_of_today(tmp_path, own_data):
    shutil.copytree(RELEASES[0], tmp_path / "run")
    from calql.data.load import load
    from calql.training.start import open_for
    from calql.training.state import Training

    saved = read_record(RunDir(tmp_path / "run"))
    data, _ = open_for(saved.experiment, with_env=False)
    assert data.fingerprint() == saved.fingerprint == load("local:pointmaze-medium-narrow").fingerprint()
    made = Training(saved.experiment, data, RunDir(tmp_path / "run"))
    assert made.restore() == []
    assert (made.counters.total_grad_step, made.counters.env_step, int(made.replay.cursor)) == (260, 204, 204)
    assert made.schedule.wants(made.counters) == "end"
    assert np.isfinite(np.asarray(made.state.log_alpha))
    assert list(loop.run(made)) == []
