"""The examples of a user's own task and method run as their docstrings say."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from calql.cli import main

ROOT = Path(__file__).resolve().parents[1]
TASK = "examples.adroit_door:task"
NARROW = "pointmaze-medium-narrow"


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


def test_a_method_of_thirty_lines_trains_resumes_and_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert len((ROOT / "examples" / "sac_bc.py").read_text().splitlines()) <= 30
    out, method = tmp_path / "run", "examples.sac_bc:METHOD"
    few = ["--set", "bc_weight=2", "online_steps=30"]
    for arguments in (
        ["train", "--scale", "smoke", "--method", method, "--out", str(out), *few],
        ["train", "--resume", "--out", str(out)],
        ["sweep", "--tasks", NARROW, "--methods", method, "--seeds", "1", "--scale", "smoke", "--out", str(tmp_path)],
        ["report", str(out), "--out", str(tmp_path / "report")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0, capsys.readouterr().err
    config = json.loads((out / "config.json").read_text())
    assert (config["method"], config["overrides"]["bc_weight"]) == (method, 2.0)
    assert len(list(tmp_path.rglob("DONE"))) == 2


@pytest.mark.parametrize(
    ("name", "said"), [("examples.sac_bc:SACBC", "must be a calql.methods.Method"), ("examples.no:M", "cannot import")]
)
def test_what_is_not_a_method(name, said, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method", name, "--dry-run"])
    assert stop.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
