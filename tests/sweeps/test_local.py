"""The local engine: who runs where, how many at a time, and that nothing outlives it. The runs are small programs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from small_jobs import RUN, Job, lives, until

from calql import machine
from calql.sweeps import local, process


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OMP_NUM_THREADS", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def jobs(tmp_path):
    return [Job(tmp_path / name) for name in ("a", "b", "c", "d")]


def engine(jobs, workers=None):
    return closing(local.Local(workers, poll_s=0.01).run(jobs))


def test_all_jobs_run_and_their_ends_are_told(tmp_path, jobs):
    (tmp_path / "go").touch()
    bad = Job(tmp_path / "bad")
    with engine([*jobs, bad, Job(tmp_path / "old", done=True)], 2) as runs:
        *_, last = ((status.running, status.ended) for status in runs)
    assert last[0] == []
    assert {job.out.name: code for job, code in last[1].items()} == dict(a=0, b=0, c=0, d=0, bad=3, old=0)
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("gpu", "workers", "expected", "settings"),
    [
        (False, None, machine.threads(), "1 unset"),
        (False, 3, 3, "1 unset"),
        (True, None, 1, "unset unset"),
        (True, 2, 2, "unset false"),
    ],
)
def test_as_many_run_as_the_machine_is_for(monkeypatch, jobs, gpu, workers, expected, settings):
    monkeypatch.setattr(local, "has_accelerator", lambda: gpu)
    with engine(jobs, workers) as runs:
        running = list(islice(runs, 3))[-1].running
        assert len(running) == min(expected, len(jobs))
        for job in running:
            assert job.wait()[1] == settings


def test_the_users_own_setting_of_memory_wins(monkeypatch, jobs):
    monkeypatch.setattr(local, "has_accelerator", lambda: True)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    with engine(jobs, 2) as runs:
        next(runs)
        assert jobs[0].wait()[1] == "unset true"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or machine.threads() < 2, reason="needs two cores to choose")
def test_two_sweeps_at_once_take_different_cores_and_share_when_all_are_taken(jobs):
    free = machine.cores()[:2]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, free)
    try:
        with engine(jobs[:1], 1) as one, engine(jobs[1:2], 1) as two, engine(jobs[2:3], 1) as three:
            for runs in (one, two, three):
                next(runs)
            assert [job.wait()[2] for job in jobs[:3]] == [free[:1], free[1:], free]
        with engine(jobs[3:], 1) as again:
            next(again)
            assert jobs[3].wait()[2] == free[:1]  # given back
    finally:
        os.sched_setaffinity(0, before)


def test_a_system_that_cannot_pin_runs_all_the_same(monkeypatch, tmp_path, jobs):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    (tmp_path / "go").touch()
    with engine(jobs[:1]) as runs:
        *_, last = runs
    assert list(last.ended.values()) == [0]


def test_closing_the_engine_stops_what_runs(jobs):
    with engine(jobs, 2) as runs:
        next(runs)
        processes = [job.wait()[0] for job in jobs[:2]]
        assert all(map(lives, processes))
    assert not any(map(lives, processes))
    assert not jobs[2].out.exists()


def test_a_run_that_does_not_stop_is_ended(monkeypatch, jobs):
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{RUN}"
    job = dataclasses.replace(jobs[0], program=deaf)
    with engine([job]) as runs:
        next(runs)
        number = job.wait()[0]
    assert not lives(number)


SWEEP = """
import sys
from pathlib import Path
from small_jobs import Job
from calql.cli.signals import terminating
from calql.sweeps.local import Local
with terminating():
    for _ in Local(1).run([Job(Path(sys.argv[2]), program=sys.argv[1])]):
        pass
"""
CHILD = """
import sys, threading
from calql.cli import child
threading.Thread(target=child.stop_with_parent, daemon=True).start()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_a_sweep_however_it_ends(jobs, number):
    code = [sys.executable, "-c", SWEEP, CHILD + RUN, str(jobs[0].out)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(code, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE) as sweep:
        process = jobs[0].wait()[0]
        sweep.send_signal(number)
        sweep.wait(30)
        sweep.stderr.read()
    until(lambda: not lives(process))
    if number in (signal.SIGTERM, signal.SIGHUP):
        assert sweep.returncode == 128 + number
