"""The examples of a user's own task, update rule, reader and tracker run as their docstrings say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from calql.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOOR, CART = "examples.adroit_door:task", "examples.cart:task"
NARROW = "pointmaze-medium-narrow"


@pytest.fixture
def calql(monkeypatch, capsys):
    """Runs commands in the root of the checkout; returns what the last one printed."""
    monkeypatch.chdir(ROOT)

    def run(*commands: list) -> str:
        for arguments in commands:
            capsys.readouterr()
            with pytest.raises(SystemExit) as stop:
                main([str(argument) for argument in arguments])
            said = capsys.readouterr()
            assert stop.value.code == 0, said.err
        return said.out

    return run


@pytest.fixture(scope="module")
def demonstrations():
    from examples.cart import demonstrations

    return demonstrations(episodes=10)


@pytest.fixture
def cart(demonstrations, tmp_path) -> str:
    from calql.data.readers.npz import save_npz

    save_npz(demonstrations, tmp_path / "cart.npz")
    return f"npz:{tmp_path / 'cart.npz'}"


def test_every_example_is_tested_and_says_how_it_is_run():
    tested = Path(__file__).read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"examples.{path.stem}" in tested
        assert "calql " in path.read_text().split('"""')[1]
        assert len(path.read_text().splitlines()) <= 70


def test_adroit_door_from_a_recording_to_a_report(tmp_path, calql):
    rng, rows = np.random.default_rng(0), 240
    with h5py.File(tmp_path / "door.hdf5", "w") as file:
        file["observations"] = rng.normal(size=(rows, 39)).astype(np.float32)
        file["actions"] = rng.normal(0, 0.3, (rows, 28)).clip(-1, 1).astype(np.float32)
        file["rewards"] = np.where(np.arange(rows) == 100, 0.0, -1.0).astype(np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(1, rows + 1) % 120 == 0
    data, out = f"d4rl:{tmp_path / 'door.hdf5'}", tmp_path / "run"
    calql(
        ["data", "check", data, "--task", DOOR],
        ["train", "--scale", "smoke", "--task", DOOR, "--data", data, "--out", out],
        ["train", "--resume", "--out", out],
        ["report", out, "--out", tmp_path / "report"],
    )
    config = json.loads((out / "config.json").read_text())
    assert config["experiment"]["task"]["id"] == DOOR
    assert config["data"]["transitions"] == 101 + 119  # cut at the success; the cut end gives no transition
    assert (tmp_path / "report" / "report.html").exists()


def test_a_method_of_thirty_lines_trains_resumes_and_is_reported(tmp_path, calql):
    assert len((ROOT / "examples" / "sac_bc.py").read_text().splitlines()) <= 30
    out, method = tmp_path / "run", "examples.sac_bc:METHOD"
    few = ["--set", "bc_weight=2", "online_steps=30"]
    calql(
        ["train", "--scale", "smoke", "--method", method, "--out", out, *few],
        ["train", "--resume", "--out", out],
        ["sweep", "--tasks", NARROW, "--methods", method, "--seeds", 1, "--scale", "smoke", "--out", tmp_path],
        ["report", out, "--out", tmp_path / "report"],
    )
    made = json.loads((out / "config.json").read_text())["experiment"]
    assert made["method"] == method
    assert [made[phase]["algorithm"]["bc_weight"] for phase in ("pretrain", "finetune")] == [2.0, 2.0]
    assert len(list(tmp_path.rglob("DONE"))) == 2


def test_a_rule_without_a_base_class_learns_one_s_own_task_and_is_measured(tmp_path, cart, calql):
    out, method = tmp_path / "run", "examples.linear_bc:METHOD"
    said = calql(
        ["data", "check", cart, "--task", CART],
        ["train", "--scale", "smoke", "--task", CART, "--data", cart, "--method", method, "--out", out,
         "--set", "learning_rate=0.5", "pretrain.offline_steps=300", "eval_episodes=10"],
        ["eval", out, "--episodes", 10, "--step", "pretrained", "--json"],
    )  # fmt: skip
    assert json.loads(said)["score_mean"] > 0.5  # the controller is linear, too
    with (out / "train.csv").open() as file:
        losses = [float(row["actor_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_a_reader_of_csv_files_reads_what_the_archive_holds(tmp_path, demonstrations, cart, calql):
    from calql import load
    from examples.csv_log import COLUMNS

    path = tmp_path / "cart.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, episode in enumerate(demonstrations.episodes):
            steps = [*zip(episode.actions[:, 0], episode.rewards, episode.terminations.astype(int), strict=True)]
            for state, step in zip(episode.observations, [*steps, (0, 0, 0)], strict=True):
                writer.writerow([number, *state, *step])
    uri = f"examples.csv_log:read#{path}"
    assert load(uri).fingerprint() == without_signal(load(cart)).fingerprint()
    assert f"{len(demonstrations.episodes)} episodes" in calql(["data", "check", uri, "--task", CART])
    path.write_text("position,velocity\n0,0\n")
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", uri, "--task", CART])
    assert stop.value.code == 2


def without_signal(data):
    from calql import Episodes

    return Episodes(tuple(episode._replace(successes=None) for episode in data.episodes))


def test_the_arm_s_log_is_what_a_logger_writes(tmp_path, calql):
    """The whole way from this log, with `examples.arm:make`, is the page docs/robot.md (tests/test_docs.py)."""
    from calql import load
    from examples.arm import Arm, record

    record(tmp_path / "log.csv", 4)
    data = load(f"csv:{tmp_path / 'log.csv'}")
    assert data.num_episodes == 4
    space = Arm.observation_space
    for episode in data.episodes:
        for step in range(episode.length):
            seen = {name: episode.observations[name][step].astype(space[name].dtype) for name in space}
            assert space.contains(seen)
    assert "not used: motor_temperature" in data.notes
    said = calql(["data", "check", f"csv:{tmp_path / 'log.csv'}", "--task", "examples.arm:make", "--no-clone"])
    assert "[−2, 2]" in said


def test_a_tracker_sees_every_event(tmp_path, cart, calql):
    out = tmp_path / "run"
    few = ["--method", "examples.linear_bc:METHOD", "--scale", "smoke"]
    calql(["train", "--task", CART, "--data", cart, *few, "--trackers", "examples.event_log:EventLog", "--out", out])
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    with (out / "eval.csv").open() as file:
        scores = [float(row["score_mean"]) for row in csv.DictReader(file)]
    assert [event["info"]["score_mean"] for event in events if event["kind"] == "evaluation"] == scores
    assert {"update", "episode", "evaluation"} <= {event["kind"] for event in events}


@pytest.mark.parametrize(
    ("name", "said"), [("examples.sac_bc:SACBC", "must be a calql.methods.Method"), ("examples.no:M", "cannot import")]
)
def test_what_is_not_a_method(name, said, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method", name, "--dry-run"])
    assert stop.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
