"""Every kind of bad input gets one clear line that names cause and fix, exit code 2, and no traceback."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from calql.cli import main
from calql.cli.common import load_data
from calql.data.episodes import Episodes
from calql.paper.tasks import TASKS
from calql.training import checkpoint
from calql.training.options import experiment
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.types import Episode

TASK = next(iter(TASKS))

ROWS = 40
SOME = Episodes((Episode(np.zeros((3, 4)), np.zeros((2, 2)), np.zeros(2), np.zeros(2, bool), True),))
"""Data of the shape of the default task's."""


@pytest.fixture
def complain(capfd):
    """Run a command that must be refused; returns its one line."""

    def run(*arguments: object, code: int = 2) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        said = capfd.readouterr().err.strip()
        assert stop.value.code == code, said
        assert "Traceback" not in said
        assert said.startswith("calql: ")
        assert len(said.splitlines()) == 1
        return said

    return run


@pytest.fixture
def write(tmp_path):
    """Write a D4RL file that fits the default task, but for what the test spoils; returns its data URI."""

    def make(drop: tuple[str, ...] = (), **spoiled: np.ndarray) -> str:
        rng = np.random.default_rng(0)
        arrays = {
            "observations": rng.normal(size=(ROWS, 4)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
            "rewards": np.zeros(ROWS, np.float32),
            "terminals": np.zeros(ROWS, bool),
            "timeouts": np.arange(1, ROWS + 1) % 10 == 0,
        } | spoiled
        path = tmp_path / "data.hdf5"
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                if name not in drop:
                    file[name] = array
        return f"d4rl:{path}"

    return make


def train(*extra: object) -> list[object]:
    return ["train", "--scale", "smoke", *extra]


@pytest.mark.parametrize(
    ("arguments", "cause", "fix"),
    [
        (["--task", "pointmaze-medum-narrow"], "unknown task", "pointmaze-medium-narrow"),
        (["--method", "calql"], "unknown method", "cal-ql"),
        (["--set", "cql_alhpa=3"], "unknown option", "cql_alpha"),
        (["--set", "cql_alpha=large"], "cannot be 'large'", "float"),
        (["--set", "cql_alpha"], "NAME=VALUE", "cql_alpha"),
        (["--set", "mixing=1.5"], "mixing is 1.5", "[0, 1] or be -1"),
        (["--set", "utd=0"], "utd' cannot be '0'", "int >= 1"),
        (["--set", "variant=offical"], "unknown variant", "official"),
        (["--task", "no_such_package:env"], "cannot import", "package.module:name"),
        (["--data", "rosbag:file"], "neither a data URI nor a reader", "minari:ID"),
        (["--data", "d4rl:nowhere.hdf5"], "nowhere.hdf5", ""),
        (["--data", "local:no-such-task"], "no-such-task", "calql data build"),
        (["--resume"], "--resume", "--out"),
    ],
)
def test_wrong_options(complain, tmp_path, monkeypatch, arguments, cause, fix):
    monkeypatch.chdir(tmp_path)
    said = complain(*train(*arguments))
    assert cause in said
    assert fix in said


def test_an_unknown_scale(complain):
    assert "unknown scale 'laptpo'; did you mean laptop?" in complain("train", "--scale", "laptpo")


def test_data_of_another_shape(complain, write, tmp_path):
    said = complain(*train("--out", tmp_path / "run", "--data", write(observations=np.zeros((ROWS, 5), np.float32))))
    assert "(5,)" in said
    assert "(4,)" in said


def test_actions_of_another_shape(complain, write, tmp_path):
    said = complain(*train("--out", tmp_path / "run", "--data", write(actions=np.zeros((ROWS, 3), np.float32))))
    assert "(3,)" in said
    assert "(2,)" in said


def test_actions_in_another_unit(complain, write, tmp_path):
    actions = np.full((ROWS, 2), 90.0, np.float32)
    assert "outside the bounds [−1, 1]" in complain(*train("--out", tmp_path / "run", "--data", write(actions=actions)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_numbers_that_are_not_finite(complain, write, tmp_path, name, value):
    shape = {"observations": (ROWS, 4), "actions": (ROWS, 2), "rewards": (ROWS,)}[name]
    array = np.zeros(shape, np.float32)
    array[25] = value
    said = complain(*train("--out", tmp_path / "run", "--data", write(**{name: array})))
    assert "episode 2" in said
    assert name in said


@pytest.mark.parametrize("name", ["rewards", "actions", "observations", "terminals"])
def test_missing_arrays(complain, write, tmp_path, name):
    assert name in complain(*train("--out", tmp_path / "run", "--data", write(drop=(name,))))


def test_a_file_of_another_format(complain, tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("not HDF5 at all")
    assert "data.hdf5" in complain(*train("--data", f"d4rl:{path}", "--out", tmp_path / "run"))


def test_a_truncated_file(complain, write, tmp_path):
    reference = write()
    path = tmp_path / "data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "data.hdf5" in complain(*train("--data", reference, "--out", tmp_path / "run"))


def test_a_folder_that_holds_another_run(complain, write, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text("{}")
    assert "--resume" in complain(*train("--out", out, "--data", write()))


def test_a_folder_that_holds_something_else(complain, write, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    assert "not an empty folder" in complain(*train("--out", tmp_path / "run", "--data", write()))


def test_a_sweep_into_a_folder_of_another(complain, write, tmp_path):
    sweep = ["sweep", "--tasks", TASK, "--methods", "bc", "--seeds", 0, "--scale", "smoke", "--out", tmp_path, "--set"]
    out = tmp_path / TASK / "bc" / "seed-0"
    RunDir(out).create(new_record(experiment(TASK, "bc", "smoke", options={"batch_size": 7}), SOME, {}))
    assert f"{out} holds another run (pretrain.batch_size)" in complain(*sweep, "batch_size=8")


def test_pretraining_that_is_not_the_same(complain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "config.json" in complain(*train("--out", "run", "--pretrained", "nowhere"))
    assert "config.json" in complain(*train("--resume", "--out", "run", "--init-from", "nowhere"))
    episodes = load_data(experiment(TASK, "cal-ql", "smoke"))
    RunDir("donor").create(new_record(experiment(TASK, "cal-ql", "smoke"), episodes, {}))
    assert "differs (seed)" in complain(*train("--seed", 1, "--out", "run", "--pretrained", "donor"))
    assert "not finished its pre-training" in complain(*train("--out", "run", "--pretrained", "donor"))
    assert not Path("run").exists()


def test_resume_of_a_folder_that_holds_something_else(complain, write, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    assert "not an empty folder" in complain(*train("--resume", "--out", tmp_path / "run", "--data", write()))


def test_eval_of_a_folder_without_a_run(complain, tmp_path):
    assert "config.json" in complain("eval", tmp_path)


def test_report_of_a_folder_without_runs(complain, tmp_path):
    assert str(tmp_path) in complain("report", tmp_path, "--out", tmp_path / "report")


def test_check_needs_to_know_the_task(complain, write):
    assert "--task" in complain("data", "check", write())


@pytest.mark.parametrize(
    "unused",
    [
        ("list", "--workers", 2),
        ("build", TASK, "--task", TASK),
        ("list", "--set", "spread=1"),
        ("info", TASK, "--transitions", 5),
        ("grade", TASK, "--seed", 3),
    ],
)
def test_data_refuses_options_that_its_action_does_not_use(complain, unused):
    said = complain("data", *unused)
    assert unused[-2] in said
    assert "leave it out" in said


def test_a_grade_of_methods_that_do_not_pretrain(complain, tmp_path):
    assert "sac: no pre-training" in complain("data", "grade", TASK, "--methods", "bc", "sac", "--out", tmp_path)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"state": {"x": np.arange(3.0) + step}}, {})
    (tmp_path / "step-000000002" / "state.safetensors").write_bytes(b"torn")
    found, complaints = checkpoint.newest(tmp_path)
    assert found.name == "step-000000001"
    assert "step-000000002 is damaged" in complaints[0]
