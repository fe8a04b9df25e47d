"""The run directory: the only state there is."""

import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys

import pytest

from calql import files
from calql.training.measure import EVAL_COLUMNS
from calql.training.run_dir import RunDir
from calql.types import InputError, RunError


@pytest.fixture
def run_dir(tmp_path):
    made = RunDir(tmp_path / "runs" / "one")
    made.create({"task": "walk", "seed": 3})
    return made


def test_a_new_run_is_made_where_nothing_is(run_dir, tmp_path):
    assert run_dir.read_config() == {"task": "walk", "seed": 3}
    assert run_dir.checkpoints.is_dir()
    assert not run_dir.done
    (tmp_path / "empty").mkdir()
    RunDir(str(tmp_path / "empty")).create({})


def test_a_folder_that_holds_another_run_is_refused_and_left_alone(run_dir):
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        RunDir(run_dir.path).create({"task": "other"})
    assert run_dir.read_config()["task"] == "walk"


@pytest.mark.parametrize("kind", ["file inside", "is a file"])
def test_anything_else_in_the_way_is_refused(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "file inside":
        path.mkdir()
        (path / "thesis.tex").write_text("all of it")
    else:
        path.write_text("all of it")
    with pytest.raises(InputError, match="not an empty folder"):
        RunDir(path).create({})


@pytest.mark.parametrize("text", [None, "", "{", "\x00"])
def test_a_missing_or_damaged_configuration_is_bad_input(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="no run" if text is None else "damaged"):
        RunDir(tmp_path).read_config()


def test_rows_come_back_in_order_with_empty_cells_for_what_was_not_measured(run_dir):
    run_dir.append("eval.csv", {"phase": "offline", "score_mean": 0.5, "score_sem": math.nan}, EVAL_COLUMNS)
    run_dir.append("eval.csv", {"phase": "online", "score_mean": 1 / 3, "q_data_mean": None}, EVAL_COLUMNS)
    text = (run_dir.path / "eval.csv").read_text()
    assert text.splitlines()[0].split(",") == list(EVAL_COLUMNS)
    first, second = run_dir.read_rows("eval.csv")
    assert (first["phase"], first["score_mean"], first["score_sem"], first["q_data_mean"]) == ("offline", "0.5", "", "")
    assert float(second["score_mean"]) == 1 / 3  # nothing is rounded away
    assert second["q_data_mean"] == ""
    assert run_dir.read_rows("train.csv") == []


def test_new_columns_are_added_at_the_end(run_dir):
    run_dir.append("train.csv", {"phase": "offline", "td_loss": 1.0, "cql_gap": 2.0}, ("phase", "env_step"))
    run_dir.append("train.csv", {"phase": "online", "td_loss": 3.0, "entropy": 4.0}, ("phase", "env_step"))
    run_dir.append("train.csv", {"td_loss": 5.0}, ("phase", "env_step"))
    with (run_dir.path / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["phase", "env_step", "td_loss", "cql_gap", "entropy"],
        ["offline", "", "1.0", "2.0", ""],
        ["online", "", "3.0", "", "4.0"],
        ["", "", "5.0", "", ""],
    ]


@pytest.mark.parametrize("keep", [0, 1, 3, 9])
def test_truncation_keeps_the_first_rows_and_the_header(run_dir, keep):
    for i in range(3):
        run_dir.append("train.csv", {"step": i, "loss": i / 7}, ("step",))
    before = run_dir.read_rows("train.csv")
    assert run_dir.truncate("train.csv", keep) == max(keep - 3, 0)  # rows that were counted and are not there
    assert run_dir.read_rows("train.csv") == before[:keep]
    run_dir.append("train.csv", {"step": 99}, ("step",))
    assert [row["step"] for row in run_dir.read_rows("train.csv")] == [*"012"[:keep], "99"]
    assert run_dir.truncate("eval.csv", keep) == keep  # not there: nothing to do
    assert not (run_dir.path / "eval.csv").exists()


def test_a_row_that_was_cut_short_by_a_crash_is_removed_with_the_rest(run_dir):
    run_dir.append("train.csv", {"step": 0, "loss": 0.25}, ("step",))
    path = run_dir.path / "train.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"1,0.1")
    run_dir.truncate("train.csv", 1)
    assert path.read_bytes() == whole


def test_json_is_strict_and_written_at_once(run_dir):
    run_dir.write_json("x.json", {"nan": math.nan, "inf": (-math.inf, 1), "deep": [{"a": math.nan}], 3: None})
    text = (run_dir.path / "x.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "inf": ["-inf", 1],
        "deep": [{"a": None}],
        "3": None,
    }
    with pytest.raises(TypeError):
        run_dir.write_json("x.json", {"x": object()})
    assert (run_dir.path / "x.json").read_text() == text


def test_done_means_that_the_summary_is_there(run_dir):
    run_dir.finish({"regret": 0.25, "dip": math.nan})
    assert run_dir.done
    assert json.loads((run_dir.path / "summary.json").read_text()) == {"regret": 0.25, "dip": None}


def test_a_crash_before_the_configuration_is_written_leaves_a_folder_that_can_be_used(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".config.json.tmp").write_text("{")
    RunDir(path).create({"format": 1})
    assert RunDir(path).read_config() == {"format": 1}


# -- one writer --------------------------------------------------------------------------------------------------------

HOLD = """
import sys
from calql.training.run_dir import RunDir
with RunDir(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(run_dir):
    """Another process that holds the lock of the run."""
    command = [sys.executable, "-c", HOLD, str(run_dir.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_who_the_first_is(run_dir, other):
    for _ in range(2):
        with pytest.raises(InputError, match=rf"is being written by process {other.pid} on .*; wait"), run_dir.lock():
            pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_ends_with_its_process(run_dir, other, number):
    other.send_signal(number)
    other.wait()
    with run_dir.lock():
        assert str(os.getpid()) in (run_dir.path / ".lock").read_text()
    assert not (run_dir.path / ".lock").exists()


def test_a_lock_file_that_was_removed_while_it_was_waited_for_protects_nothing(run_dir, monkeypatch):
    """Between opening and locking, its owner ended: the name may belong to a new file by now."""
    moments = iter([True])

    def flock(file, how):
        if next(moments, False):
            (run_dir.path / ".lock").unlink()

    monkeypatch.setattr("fcntl.flock", flock)
    with run_dir.lock():
        assert (run_dir.path / ".lock").read_text().startswith("process")


def test_a_new_run_is_made_in_a_locked_folder(tmp_path):
    made = RunDir(tmp_path / "deep" / "new")
    with made.lock():
        made.create({"task": "walk"})
    assert made.read_config() == {"task": "walk"}


def test_folders_that_were_made_for_a_run_that_did_not_begin_are_removed(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError), RunDir(tmp_path / "there" / "task" / "method" / "seed-0").lock():
        raise InputError("refused")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with RunDir(tmp_path / "task" / "seed-0").lock():
        (tmp_path / "task" / "seed-1").mkdir()  # by another process
    assert (tmp_path / "task" / "seed-1").exists()


def test_a_file_cannot_be_locked_as_a_run(tmp_path):
    (tmp_path / "file").write_text("all of it")
    with pytest.raises(InputError, match="not an empty folder"), RunDir(tmp_path / "file").lock():
        pass


def test_without_locks_there_is_a_warning(run_dir, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="No locks available"), run_dir.lock():
        run_dir.write_json("x.json", {})


def test_what_was_left_half_written_is_removed_by_the_next_owner_alone(run_dir):
    litter = [run_dir.path / ".config.json.tmp", run_dir.checkpoints / ".writing-000000005" / "state.safetensors"]
    litter += [run_dir.checkpoints / ".copying-step-000000005" / "meta.json"]
    for path in litter:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    run_dir.append("eval.csv", {"phase": "offline"}, ())
    run_dir.read_rows("eval.csv")
    assert all(path.exists() for path in litter)
    with run_dir.lock():
        assert not any(path.exists() for path in litter)
    assert not list(run_dir.checkpoints.iterdir())
    assert len(run_dir.read_rows("eval.csv")) == 1


# -- disks -------------------------------------------------------------------------------------------------------------

WRITES = {
    "eval.csv": lambda run_dir: run_dir.append("eval.csv", {"phase": "x" * 9_000, "new": 1}, EVAL_COLUMNS),
    "train.csv": lambda run_dir: run_dir.append("train.csv", {"phase": "x" * 9_000}, ()),
    "x.json": lambda run_dir: run_dir.write_json("x.json", {"x": "x" * 9_000}),
    "slice.csv": lambda run_dir: run_dir.write_rows("slice.csv", [{"x": "x" * 9_000}]),
    "summary.json": lambda run_dir: run_dir.finish({"x": "x" * 9_000}),
    "config.json": lambda run_dir: RunDir(run_dir.path / "new").create({"x": "x" * 9_000}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_is_one_error_and_no_half_file(run_dir, name):
    run_dir.append("eval.csv", {"phase": "offline"}, ("phase",))
    run_dir.append("train.csv", {"phase": "offline"}, ("phase",))
    code = f"""
import resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_run_dir import WRITES, RunDir
from calql.types import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
try:
    WRITES[{name!r}](RunDir(Path({str(run_dir.path)!r})))
except RunError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("cannot write")
    assert name in said
    assert len(said.splitlines()) == 1
    assert [row["phase"] for row in run_dir.read_rows("eval.csv")] == ["offline"]
    assert [row["phase"] for row in run_dir.read_rows("train.csv")] == ["offline"]
    assert not run_dir.done
    assert not list(run_dir.path.rglob(".*.tmp"))
    assert not (run_dir.path / "x.json").exists()
    assert not (run_dir.path / "new" / "config.json").exists()


@pytest.mark.parametrize("write", ["write_json", "finish", "sync", "truncate"])
def test_what_must_survive_power_loss_is_waited_for(run_dir, monkeypatch, write):
    """A file before it gets its name, the folder after; rows before a summary that counts them."""
    run_dir.append("eval.csv", {"phase": "offline"}, ("phase",))
    order = []
    monkeypatch.setattr(files, "sync", lambda path: order.append(path.name))
    here, rows = run_dir.path.name, ["eval.csv", run_dir.path.name]
    calls = {
        "write_json": (("x.json", {}), [".x.json.tmp", here]),
        "finish": (({},), [*rows, ".summary.json.tmp", here, ".DONE.tmp", here]),
        "sync": ((), rows),
        "truncate": (("eval.csv", 1), [".eval.csv.tmp", here]),
    }
    arguments, expected = calls[write]
    getattr(run_dir, write)(*arguments)
    assert order == expected


def test_a_folder_that_may_not_be_written_is_one_error(tmp_path, monkeypatch):
    def mkdir(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", mkdir)
    with pytest.raises(RunError, match="Permission denied"):
        RunDir(tmp_path / "new").create({})
