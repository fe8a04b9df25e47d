"""TensorBoard's files and W&B's log have every row of a run's tables once, wherever the run was stopped."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import tiny

from calql.cli import common
from calql.trackers import factories, open_trackers
from calql.training import loop
from calql.training.run import events
from calql.training.run_dir import RunDir
from calql.types import InputError

NAMES = ("tensorboard", "wandb")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


# -- reading what was written ------------------------------------------------------------------------------------------


def scalars(folder) -> Counter:
    """(phase, name, step, float32 value) of every scalar, after purges, as TensorBoard reads the files of a folder."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = Counter()
    for phase in sorted(path.name for path in (folder / "tensorboard").iterdir()):
        kept = []
        for path in sorted((folder / "tensorboard" / phase).iterdir()):
            raw, at = path.read_bytes(), 0
            while at < len(raw):
                (size,) = struct.unpack("<Q", raw[at : at + 8])
                event = Event.FromString(raw[at + 12 : at + 12 + size])
                at += 12 + size + 4
                if event.session_log.status == SessionLog.START:
                    kept = [point for point in kept if point[2] < event.step]
                kept += [(phase, value.tag, event.step, value.simple_value) for value in event.summary.value]
        found.update(kept)
    return found


def records(path):
    """The records of a .wandb file: LevelDB's log format with a header of 7 bytes, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(raw):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", raw[at : at + 7])
        part += raw[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def finished(path) -> list:
    """The records of a file whose run has finished: W&B's own process writes it, a moment after `finish` returns."""
    end = time.monotonic() + 30
    while True:
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < end, "the run has no end"
        time.sleep(0.02)


def logged(folder) -> tuple[set[str], Counter]:
    """(ids of the W&B runs, the rows of their histories without W&B's own columns) in a run directory."""
    ids, rows = set(), Counter()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in finished(path):
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            items = {"/".join([item.key] if item.key else item.nested_key): item for item in record.history.item}
            row = {name: json.loads(item.value_json) for name, item in items.items() if not name.startswith("_")}
            if row:
                rows[tuple(sorted(row.items()))] += 1
    return ids, rows


# -- what must be there ------------------------------------------------------------------------------------------------


def rows_of_tables(folder):
    """(phase, env_step, grad_step or None, {name: number}) of every row of the run's tables, speeds left out."""
    for table, group in (("eval.csv", "eval"), ("train.csv", "train"), ("episodes.csv", "online")):
        for row in RunDir(folder).read_rows(table):
            phase = row.pop("phase", "online")
            env_step, grad_step = int(row.pop("env_step")), row.pop("grad_step", None)
            for name in ("wall_s", "episodes", "episode", "file"):
                row.pop(name, None)
            cells = {name: {"True": 1, "False": 0}.get(cell, cell) for name, cell in row.items() if cell}
            yield phase, env_step, grad_step and int(grad_step), {f"{group}/{k}": float(v) for k, v in cells.items()}


def without_speed(points: Counter) -> Counter:
    return Counter({point: count for point, count in points.items() if not point[1].endswith("steps_per_s")})


def expected_scalars(folder) -> Counter:
    found = Counter()
    for phase, env_step, grad_step, numbers in rows_of_tables(folder):
        step = env_step if phase == "online" else grad_step
        found.update((phase, name, step, float(np.float32(x))) for name, x in numbers.items())
    return found


def expected_history(folder) -> Counter:
    found = Counter()
    for _, env_step, grad_step, numbers in rows_of_tables(folder):
        place = {"env_step": env_step} | ({} if grad_step is None else {"grad_step": grad_step})
        found[tuple(sorted((numbers | place).items()))] += 1
    return found


def history_without_speed(rows: Counter) -> Counter:
    found = Counter()
    for row, count in rows.items():
        found[tuple(cell for cell in row if not cell[0].endswith("steps_per_s"))] += count
    return found


def piece(folder, names=NAMES, stop=None, method="cal-ql"):
    """Begin or go on, and stop after so many events as `kill -9` does: nothing is saved."""
    made = tiny.trainer(folder, method)
    made.restore() if any(made.run_dir.checkpoints.glob("step-*")) or made.run_dir.read_rows("eval.csv") else None
    trackers = open_trackers(names, made.experiment, folder)
    for event in islice(loop.run(made), stop):
        assert list(trackers.tell(event)) == []
    assert trackers.close() == []
    made.close()
    return made


def test_every_row_is_there_once_wherever_the_run_was_killed(tmp_path):
    folder = tmp_path / "run"
    for stop in (3, 9, 12, 20, 26):
        piece(folder, stop=stop)
    made = piece(folder)
    assert made.run_dir.done
    assert without_speed(scalars(folder)) == expected_scalars(folder)
    ids, rows = logged(folder)
    assert ids == {json.loads((folder / "wandb.json").read_text())["id"]}
    assert history_without_speed(rows) == expected_history(folder)
    assert len(list(folder.glob("wandb/offline-run-*"))) >= 2


def test_a_run_that_is_left_between_two_events_is_whole(tmp_path):
    """Left as Ctrl-C leaves it, at every event in turn."""
    folder, more = tmp_path / "run", True
    while more:
        run = events(tiny.made(), folder, tiny.DATA, resume=True)
        trackers = open_trackers(["tensorboard"], tiny.made(), folder)
        seen = list(islice(run, 4))  # told late: the tables are ahead
        for event in seen:
            assert list(trackers.tell(event)) == []
        run.close()
        trackers.close()
        more = len(seen) == 4
    assert without_speed(scalars(folder)) == expected_scalars(folder)


def test_a_tracker_that_comes_later_gets_all_rows(tmp_path):
    folder = tmp_path / "run"
    piece(folder, (), 25)
    piece(folder)
    assert without_speed(scalars(folder)) == expected_scalars(folder)
    assert history_without_speed(logged(folder)[1]) == expected_history(folder)


def test_what_is_followed_and_on_which_axis(tmp_path):
    folder = tmp_path / "run"
    piece(folder)
    points = scalars(folder)
    names = {(phase, name) for phase, name, _, _ in points}
    for phase in ("offline", "online"):
        assert {(phase, name) for name in ("train/critic_loss", "train/q_data", "eval/score_mean")} <= names
        assert (phase, "train/steps_per_s") in names
    for name in ("return", "success", "score", "length", "steps_per_s"):
        assert ("online", f"online/{name}") in names
    assert {name.partition("/")[0] for _, name in names} == {"train", "eval", "online"}
    last = {phase: max(step for p, _, step, _ in points if p == phase) for phase in ("offline", "online")}
    assert last["offline"] == tiny.SETTINGS["offline_steps"]
    assert tiny.SETTINGS["online_steps"] <= last["online"] < tiny.SETTINGS["online_steps"] + tiny.HORIZON
    assert all(value > 0 for _, name, _, value in points if name.endswith("steps_per_s"))
    returns = [point for point in points.elements() if point[1] == "online/return"]
    assert len(returns) == len(RunDir(folder).read_rows("episodes.csv"))


def test_wandb_has_the_configuration_and_the_summary(tmp_path):
    folder = tmp_path / "run"
    piece(folder)
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = finished(path)
    (run,) = [record.run for record in found if record.WhichOneof("record_type") == "run"][:1]
    assert (run.project, run.display_name, run.run_group) == ("calql", "slope cal-ql seed 5", "slope cal-ql")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["finetune"]["online_steps"] == tiny.SETTINGS["online_steps"]
    updates = [item for record in found for item in record.summary.update]
    summary = {"/".join([item.key] if item.key else item.nested_key): item.value_json for item in updates}
    assert json.loads(summary["regret"]) == json.loads((folder / "summary.json").read_text())["regret"]
    axes = {record.metric.glob_name: record.metric.step_metric for record in found if record.metric.glob_name}
    assert axes == {"train/*": "grad_step", "eval/*": "grad_step", "online/*": "env_step"}


# -- faults ------------------------------------------------------------------------------------------------------------


class Broken:
    """A tracker whose disk is full after so many events; `closed` counts its ends."""

    closed = 0

    def __init__(self, experiment, run_dir, after=3):
        self.left = after

    def __call__(self, event):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")

    def close(self):
        Broken.closed += 1


SEEN = []


def witness(experiment, run_dir):
    SEEN.clear()
    return SEEN.append


def no_tracker(experiment, run_dir):
    return "text"


def failing(experiment, run_dir):
    raise RuntimeError("no network\nand a second line")


HERE = __name__


def test_a_tracker_that_fails_is_left_out_with_a_sentence_and_the_run_goes_on(tmp_path, capsys):
    before = Broken.closed
    run = events(tiny.made(), tmp_path / "run", tiny.DATA)
    common.show(tiny.made(), tmp_path / "run", run, [f"{HERE}:Broken", f"{HERE}:witness"])
    said = [line for line in capsys.readouterr().out.splitlines() if "note" in line]
    assert len(said) == 1
    assert f"'{HERE}:Broken' failed (OSError: [Errno 28] No space left on device, test_trackers.py line" in said[0]
    assert "left out from here on; the run goes on" in said[0]
    assert Broken.closed == before + 1
    assert RunDir(tmp_path / "run").done
    assert len(SEEN) > 20  # the other one saw all of it


def test_wandb_without_network_does_not_end_a_run(tmp_path, monkeypatch):
    import wandb

    def unreachable(**_):
        raise wandb.errors.CommError("Run initialization has timed out after 90.0 sec.")

    monkeypatch.setattr(wandb, "init", unreachable)
    made = tiny.trainer(tmp_path / "run", online_steps=8)
    trackers = open_trackers(["wandb"], made.experiment, tmp_path / "run")
    said = [text for event in loop.run(made) for text in trackers.tell(event)]
    assert len(said) == 1
    assert "CommError: Run initialization has timed out" in said[0]
    assert made.run_dir.done
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    longer = tiny.trainer(tmp_path / "run", online_steps=16)
    longer.restore()
    trackers = open_trackers(["wandb"], longer.experiment, tmp_path / "run")
    for event in loop.run(longer):
        assert list(trackers.tell(event)) == []
    trackers.close()
    assert history_without_speed(logged(tmp_path / "run")[1]) == expected_history(tmp_path / "run")


def test_tensorboard_on_a_full_disk_does_not_hold_up_the_run(tmp_path, monkeypatch):
    from tensorboardX.record_writer import RecordWriter

    made = tiny.trainer(tmp_path / "run", online_steps=8)
    trackers = open_trackers(["tensorboard"], made.experiment, tmp_path / "run")

    def full(self, data):
        raise OSError(28, "No space left on device")

    said = []
    for number, event in enumerate(loop.run(made)):
        if number == 5:
            monkeypatch.setattr(RecordWriter, "write", full)
        said += trackers.tell(event)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert made.run_dir.done


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "unknown tracker 'tensorbord'; did you mean tensorboard?"),
        ("mlflow", "or name your own as package.module:factory"),
        ("nowhere:tracker", "cannot import 'nowhere:tracker'"),
        (f"{HERE}:no_tracker", "made a str; it must be callable with an event"),
        (f"{HERE}:failing", "cannot be made (RuntimeError: no network, test_trackers.py line"),
    ],
)
def test_what_is_not_a_tracker(tmp_path, name, said):
    with pytest.raises(InputError) as error:
        open_trackers([name], tiny.made(), tmp_path / "run")
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_names_the_extra(monkeypatch, name):
    package = {"tensorboard": "tensorboardX"}.get(name, name)
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"the tracker '{name}' needs {package}; pip install 'calql\[tracking\]'"):
        factories([name])


def test_wandb_that_nobody_can_log_in_to_is_refused_before_the_run(tmp_path, monkeypatch):
    import wandb

    def login():
        raise wandb.errors.UsageError("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "login", login)
    monkeypatch.setattr(wandb.setup().settings, "mode", "online")
    with pytest.raises(InputError, match=r"UsageError: No API key configured"):
        open_trackers(["wandb"], tiny.made(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_line_below_the_bars_tells_loss_return_and_success(tmp_path, capsys):
    common.show(tiny.made(), tmp_path / "run", events(tiny.made(), tmp_path / "run", tiny.DATA))
    said = capsys.readouterr().out.splitlines()
    last = [line for line in said if line.startswith("online")][-1]
    for word in ("score", "critic_loss", "actor_loss", "q_data", "return", "success", "(last 6)"):
        assert word in last
