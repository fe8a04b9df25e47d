"""An export acts as the policy does, says what it takes and gives, and is refused where it would not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arm import HIGH, LOW
from exported_arm import recorded, saved_run

import calql
from calql.algorithms import ODT
from calql.cli import main
from calql.data.arrays import state_at
from calql.export import load, time_per_action
from calql.export import write as writing
from calql.export.policy import blank
from calql.training.export import export_run
from calql.types import InputError

FORMS = pytest.mark.parametrize("form", ["npz", "onnx"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {kind: saved_run(folder / kind, kind=kind) for kind in ("states", "images")}


@FORMS
@pytest.mark.parametrize("kind", ["states", "images"])
def test_it_acts_as_the_policy_of_the_run_in_the_environment_s_unit(runs, kind, form, tmp_path):
    export_run(runs[kind], tmp_path / f"policy.{form}")
    exported, policy = load(tmp_path / f"policy.{form}"), calql.load_policy(runs[kind])
    actions = []
    for episode in recorded(kind):
        for step in range(episode.length):
            observation = state_at(episode, step)
            actions.append(exported.act(observation))
            policy.reset()
            np.testing.assert_allclose(actions[-1], policy.act(observation), atol=2e-5)
    assert actions[0].dtype == np.float32
    assert (np.min(actions, axis=0) >= LOW).all()
    assert (np.max(actions, axis=0) <= HIGH).all()
    assert np.ptp(actions, axis=0).min() > 0.05  # they depend on the observation


@FORMS
def test_the_contract_is_inside_and_says_what_the_run_knows(runs, form, tmp_path):
    written, notes = export_run(runs["images"], tmp_path / f"policy.{form}")
    contract = load(tmp_path / f"policy.{form}").contract
    assert contract == written == json.loads(json.dumps(written))
    assert notes == []
    assert [array["name"] for array in contract["observations"]["arrays"]] == [
        "observation/camera",
        "observation/state",
    ]
    assert [array["dtype"] for array in contract["observations"]["arrays"]] == ["uint8", "float32"]
    assert [array["shape"] for array in contract["observations"]["arrays"]] == [[8, 8, 3], [3]]
    assert contract["observations"]["scaling"] is None
    actions = contract["actions"]
    assert (actions["low"], actions["high"], actions["names"]) == ([-2.0, 0.0], [2.0, 10.0], ["torque", "force"])
    assert contract["rate_hz"] == 50.0
    assert contract["task"]["env"] == "arm:keyed"
    origin = contract["provenance"]
    assert (origin["method"], origin["step"], origin["data"]) == ("cal-ql", 0, "exported_arm:recorded#images")
    assert origin["calql"] == calql.__version__
    assert len(origin["data_fingerprint"]) == len(origin["checkpoint_sha256"]) == 64
    check = contract["check"]
    assert (check["states"], check["from"]) == (48, "the data exported_arm:recorded#images")
    assert 0 <= check["worst_error"] < 1e-4


def test_a_rate_can_be_stated_and_the_same_export_is_the_same_file(runs, tmp_path):
    for name in ("one", "two"):
        export_run(runs["states"], tmp_path / f"{name}.npz", rate=20)
    assert load(tmp_path / "one.npz").contract["rate_hz"] == 20.0
    assert load(tmp_path / "one.npz").contract == load(tmp_path / "two.npz").contract
    with pytest.raises(InputError, match="rate is -1 Hz; it must be a positive number"):
        export_run(runs["states"], tmp_path / "one.npz", rate=-1)


def test_without_its_data_it_is_checked_on_random_observations(tmp_path):
    run = saved_run(tmp_path / "run", uri=f"npz:{tmp_path}/gone.npz")
    contract, notes = export_run(run, tmp_path / "policy.npz")
    assert contract["check"]["from"] == "random observations"
    assert contract["check"]["states"] == 256
    assert "gone.npz" in notes[0]


def test_changed_data_are_told(tmp_path, monkeypatch):
    run = saved_run(tmp_path / "run")
    monkeypatch.setattr("exported_arm.recorded", lambda kind: recorded(kind)[:2])
    _, notes = export_run(run, tmp_path / "policy.npz")
    assert notes == ["the data at exported_arm:recorded#states have changed since the run began"]


def test_an_export_that_acts_differently_is_not_written(runs, tmp_path, monkeypatch):
    right = writing.environment_program

    def wrong(*arguments):
        program = right(*arguments)
        constants = {name: x + np.float32(0.01) if x.ndim == 2 else x for name, x in program.constants.items()}
        return program._replace(constants=constants)

    monkeypatch.setattr(writing, "environment_program", wrong)
    (tmp_path / "policy.npz").write_bytes(b"older")
    with pytest.raises(InputError, match="differs from the policy by"):
        export_run(runs["states"], tmp_path / "policy.npz")
    assert (tmp_path / "policy.npz").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["policy.npz"]


def test_a_policy_with_a_memory_is_refused(tmp_path):
    with pytest.raises(InputError, match="ODT acts from a memory of the episode"):
        writing.write_policy(tmp_path / "policy.npz", ODT(), None, None, {}, [], "")
    assert not (tmp_path / "policy.npz").exists()


def test_another_form_and_no_checkpoint_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match=r"names no form of an export; end it in .npz or .onnx"):
        export_run(runs["states"], tmp_path / "policy.pt")
    with pytest.raises(InputError, match="has no checkpoint '7'"):
        export_run(runs["states"], tmp_path / "policy.npz", step="7")


@FORMS
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"camera": np.zeros((8, 8, 3), np.uint8)}, "the observation has no 'observation/state'"),
        (np.zeros(3), "the observation has no 'observation/camera'"),
        (
            {"camera": np.zeros((8, 8, 3)), "state": np.zeros(3)},
            r"'observation/camera' is float64\[8, 8, 3\]; give uint8",
        ),
        (
            {"camera": np.zeros((8, 8, 3), np.uint8), "state": np.zeros((1, 3))},
            r"'observation/state' is float64\[1, 3\]",
        ),
        ({"camera": np.zeros((8, 8, 3), np.uint8), "state": {"x": 1.0}}, "'observation/state' holds x; give an array"),
        ({"camera": np.zeros((8, 8, 3), np.uint8), "state": [0, np.nan, 0]}, "the action is not finite"),
    ],
)
def test_an_observation_of_another_kind_is_refused(runs, form, wrong, message, tmp_path):
    export_run(runs["images"], tmp_path / f"policy.{form}")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / f"policy.{form}").act(wrong)


@FORMS
def test_files_that_are_no_export_are_refused(runs, form, tmp_path):
    path = tmp_path / f"policy.{form}"
    with pytest.raises(InputError, match="there is no file"):
        load(path)
    path.write_bytes(b"not an export")
    with pytest.raises(InputError, match="is damaged, or no"):
        load(path)
    export_run(runs["states"], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged, or no"):
        load(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="is damaged, or no"):
        load(tmp_path / "other.npz")


def test_a_file_of_a_later_version_is_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("calql.export.contract.FORMAT", 2)
    with pytest.raises(InputError, match="is of format 2, and this calql reads 1"):
        export_run(runs["states"], tmp_path / "policy.npz")


def test_time_per_action_is_measured(runs, tmp_path):
    export_run(runs["images"], tmp_path / "policy.npz")
    policy = load(tmp_path / "policy.npz")
    seconds = time_per_action(policy, 20)
    assert 0 < seconds.median <= seconds.p99 < 1
    assert {name: x.shape for name, x in blank(policy.contract).items()} == {"camera": (8, 8, 3), "state": (3,)}


# -- the command -------------------------------------------------------------------------------------------------------


def command(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    return stop.value.code


def test_the_command_writes_the_reader_beside_an_npz_which_needs_numpy_only(runs, tmp_path, capsys):
    assert command(runs["states"], "--out", tmp_path / "arm.npz", "--step", "newest") == 0
    said = capsys.readouterr().out
    assert "worst error" in said
    assert "µs per action" in said
    code = (
        "import sys; import arm, numpy; p = arm.NumpyPolicy('arm.npz'); print(*p.act([0.1, 0.2, 0.3]));"
        "print(*{'jax', 'calql', 'gymnasium', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    numbers, others = done.stdout.split("\n")[:2]
    np.testing.assert_allclose(
        [float(x) for x in numbers.split()], load(tmp_path / "arm.npz").act(np.array([0.1, 0.2, 0.3])), rtol=1e-6
    )
    assert others == ""
    assert command(runs["states"], "--out", tmp_path / "arm.npz", "--json") == 0  # again, over both files
    assert json.loads(capsys.readouterr().out)["task"]["id"] == "arm"


def test_the_command_does_not_touch_a_file_of_the_user_s(runs, tmp_path, capsys):
    (tmp_path / "arm.py").write_text("mine = 1\n")
    assert command(runs["states"], "--out", tmp_path / "arm.npz") == 2
    assert "arm.py exists and is not calql's" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["arm.py"]


def test_reading_an_export_and_acting_with_it_import_no_jax(runs, tmp_path):
    export_run(runs["images"], tmp_path / "policy.npz")
    export_run(runs["images"], tmp_path / "policy.onnx")
    code = """
import sys
from pathlib import Path
import calql.export
from calql.export.actor import act
for name in ("policy.npz", "policy.onnx"):
    policy = calql.export.load(name)
    policy.act(calql.export.policy.blank(policy.contract))
    act(Path(name), Path("episodes"), rate=2000, episodes=1)
print(*{"jax", "flax", "optax", "scipy", "safetensors", "onnx"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
    assert len([*(tmp_path / "episodes").glob("*.npz")]) == 2
