"""Real commands that are stopped by signals, or that find another one at work in their run directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from long_runs import LONG, saved, write_files

from calql.cli import child
from calql.training.run_dir import RunDir

CALQL = (sys.executable, "-m", "calql")


@pytest.fixture
def start(tmp_path):
    """Starts a command in a folder that has a task and its data; whatever still runs in the end is killed."""
    write_files(tmp_path)
    started = []
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def begin(*arguments: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([*CALQL, *arguments], cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_training_that_is_stopped_saves_and_says_how_to_go_on(start, tmp_path, number):
    run, out = tmp_path / "run", ("--out", "run")
    first = start("train", "--task", "lines:task", "--method", "bc", *out, *LONG)
    until(lambda: saved(run))
    second = start("train", "--resume", *out)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"run is being written by process {first.pid} on " in said
    first.send_signal(number)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 128 + number
    assert len(said.splitlines()) == 1
    assert "all work is saved" in said
    assert "train --resume --out run" in said
    assert not [path.name for path in run.glob(".*")]
    before = saved(run)[-1]
    third = start("train", "--resume", *out)
    until(lambda: saved(run)[-1] > before)
    third.kill()
    third.wait()
    rows = [int(row["grad_step"]) for row in RunDir(run).read_rows("train.csv")]
    assert rows == sorted(set(rows))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_runs_of_a_sweep_that_is_stopped_save_and_stop(start, tmp_path, number):
    run = tmp_path / "runs" / "lines.task" / "bc" / "seed-0"
    arguments = ("--tasks", "lines:task", "--methods", "bc", "--seeds", "0", "--workers", "1", "--out", "runs")
    sweep = start("sweep", *arguments, *LONG)
    until(lambda: saved(run))
    child = int((run / ".lock").read_text().split()[1])
    sweep.send_signal(number)
    sweep.communicate(timeout=120)
    assert sweep.returncode == (-number if number == signal.SIGKILL else 128 + number)
    log = run.with_name("seed-0.log")
    until(lambda: "all work is saved" in log.read_text())
    until(lambda: not (run / ".lock").exists())
    assert "stopped by SIGTERM" in log.read_text().splitlines()[-1]
    assert child != sweep.pid


HOLDER = """
import sys, time
from calql.training.run_dir import RunDir
with RunDir(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("seconds", "patience", "free"), [(1.5, 30.0, True), (30.0, 0.5, False)])
def test_a_run_that_is_started_again_waits_for_its_last_process(tmp_path, monkeypatch, seconds, patience, free):
    """As long as that one saves, or a file server keeps the lock of a lost machine; not for ever."""
    monkeypatch.setattr(child, "PATIENCE_S", patience)
    run_dir = RunDir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, str(seconds)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        child.wait_for_others(run_dir)
        assert (tmp_path / ".lock").exists() is not free
        holder.kill()


def test_a_lock_file_that_nobody_holds_is_not_waited_for(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on a machine that crashed\n")
    begun = time.monotonic()
    child.wait_for_others(RunDir(tmp_path))
    assert time.monotonic() - begun < 1
