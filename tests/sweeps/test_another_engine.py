"""A real sweep that is killed half-way under one engine goes on under another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_slurm
import pytest
from long_runs import LONG, saved, write_files
from small_jobs import until

from calql.training.run_dir import RunDir

pytest.importorskip("ray")
pytest.importorskip("submitit")


@pytest.mark.slow
def test_a_sweep_goes_on_under_another_engine(tmp_path, monkeypatch):
    write_files(tmp_path)
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, sys.path))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Path("runs/lines.task/bc/seed-0")
    what = ["--tasks", "lines:task", "--methods", "bc", "--seeds", "0", "--out", "runs", *LONG]
    log = run.with_name("seed-0.log")
    steps_done = []
    for engine, end in (("slurm", signal.SIGKILL), ("ray", signal.SIGTERM), ("local", signal.SIGINT)):
        before = saved(run)[-1:]
        with subprocess.Popen([sys.executable, "-m", "calql", "sweep", *what, "--engine", engine]) as sweep:
            try:
                until(lambda before=before: saved(run)[-1:] > before, 120)
            finally:
                sweep.send_signal(end)
                sweep.wait(120)
        if engine == "slurm":  # the job outlives the sweep
            subprocess.run(["scancel", "1"], check=True)
        until(lambda: log.read_text().count("all work is saved") == len(steps_done) + 1)
        steps_done.append(saved(run)[-1])
    rows = [int(row["grad_step"]) for row in RunDir(run).read_rows("train.csv")]
    assert rows == sorted(set(rows))
    assert steps_done == sorted(set(steps_done))
    starts = json.loads((run / "config.json").read_text())["starts"]
    assert ["--resume" in start["command"] for start in starts] == [False, True, True]
