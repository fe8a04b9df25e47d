"""A real sweep that is killed half-way under one engine goes on under another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_slurm
import numpy as np
import pytest
from small_jobs import until
from test_signals import LONG, TASK, saved

from calql.training.run_dir import RunDir

pytest.importorskip("ray")
pytest.importorskip("submitit")


@pytest.mark.slow
def test_a_sweep_goes_on_under_another_engine(tmp_path, monkeypatch):
    steps = np.arange(200)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        observations=rng.normal(size=(200, 1)).astype(np.float32),
        actions=rng.uniform(-1, 1, (200, 1)).astype(np.float32),
        rewards=(steps % 20 == 19).astype(np.float32),
        terminals=steps % 20 == 19,
        timeouts=np.zeros(200, bool),
    )
    (tmp_path / "lines.py").write_text(TASK)
    fake_slurm.install(tmp_path / "bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, filter(None, sys.path))))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Path("runs/lines.task/bc/seed-0")
    what = ["--tasks", "lines:task", "--methods", "bc", "--seeds", "0", "--out", "runs", *LONG]
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
        until(lambda: not (run / ".lock").exists())
        assert "all work is saved" in Path("runs/lines.task/bc/seed-0.log").read_text().splitlines()[-1]
        steps_done.append(saved(run)[-1])
    rows = [int(row["grad_step"]) for row in RunDir(run).read_rows("train.csv")]
    assert rows == sorted(set(rows))
    assert steps_done == sorted(set(steps_done))
    starts = json.loads((run / "config.json").read_text())["starts"]
    assert ["--resume" in start["command"] for start in starts] == [False, True, True]
