"""The example of a user's own task runs as its docstring says, on a recording of the right shape."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from calql.cli import main

ROOT = Path(__file__).resolve().parents[1]
TASK = "examples.adroit_door:task"


def test_adroit_door_from_a_recording_to_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    rng, rows = np.random.default_rng(0), 240
    with h5py.File(tmp_path / "door.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(rows, 39)).astype(np.float32)
        file["actions"] = rng.normal(0, 0.3, (rows, 28)).astype(np.float32)
        file["rewards"] = np.where(np.arange(rows) == 100, 0.0, -1.0).astype(np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(1, rows + 1) % 120 == 0
    data, out = f"d4rl:{tmp_path / 'door.hdf5'}", tmp_path / "run"
    for arguments in (
        ["data", "check", data, "--task", TASK],
        ["train", "--scale", "smoke", "--task", TASK, "--data", data, "--out", str(out)],
        ["train", "--resume", "--out", str(out)],
        ["report", str(out), "--out", str(tmp_path / "report")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0, capsys.readouterr().err
    config = json.loads((out / "config.json").read_text())
    assert config["task"] == TASK
    assert config["data"]["transitions"] == 101 + 119  # cut at the success; the cut end gives no transition
    assert (tmp_path / "report" / "report.html").exists()
