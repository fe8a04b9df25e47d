import csv
import json

import numpy as np
import pytest
from fake_runs import write_run, write_study

from calql.reports.load import load_run, load_runs, settings
from calql.types import InputError


@pytest.fixture
def run_dir(tmp_path):
    return write_run(tmp_path, "cal-ql", 0)


def test_a_run_is_read_as_it_was_written(run_dir):
    run = load_run(run_dir)
    with (run_dir / "eval.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "online"]
    steps, scores = run.curve("online", "score_mean")
    np.testing.assert_allclose(steps, [float(row["env_step"]) for row in rows])
    np.testing.assert_allclose(scores, [float(row["score_mean"]) for row in rows])
    assert run.done
    assert run.curve("offline", "q_data_mean")[0].tolist() == list(range(0, 20_001, 2000)), (
        "offline counts gradient steps"
    )
    assert (run.task, run.method, run.seed) == ("toy-maze", "cal-ql", 0)


def test_empty_cells_are_gaps_and_extra_columns_are_welcome(run_dir):
    table = (run_dir / "eval.csv").read_text().splitlines()
    (run_dir / "eval.csv").write_text("\n".join([table[0] + ",note", *(line + ",fine" for line in table[1:])]) + "\n")
    assert len(load_run(run_dir).rows) == len(table) - 1
    assert len(load_run(write_run(run_dir.parent, "bc", 0)).curve("offline", "q_data_mean")[0]) == 0


def test_runs_are_found_below_a_folder_once_and_in_order(tmp_path):
    dirs = write_study(tmp_path / "a" / "b", ["sac", "cql", "cal-ql"], range(2))
    (dirs[0] / "checkpoints").mkdir()
    (dirs[0] / "checkpoints" / "config.json").write_text("{}")
    runs = load_runs([tmp_path, dirs[0]])
    assert [(run.label, run.seed) for run in runs] == [(m, s) for m in ("Cal-QL", "CQL", "SAC") for s in (0, 1)]


def test_runs_that_differ_in_a_setting_are_variants_not_seeds(tmp_path):
    for alpha in (1.0, 5.0, 20.0):
        for seed in (0, 1):
            write_run(tmp_path / str(alpha), "cql", seed, settings={"cql_alpha": alpha})
    write_run(tmp_path, "cal-ql", 0)
    labels = list(dict.fromkeys(run.label for run in load_runs([tmp_path])))
    assert labels == ["Cal-QL", "CQL (cql_alpha=1)", "CQL (cql_alpha=5)", "CQL (cql_alpha=20)"]


def test_settings_are_flat_and_leave_the_seed_out(run_dir):
    flat = settings(load_run(run_dir))
    assert flat["offline.gradient_steps"] == 20_000
    assert flat["cql_alpha"] == 5.0
    assert "seed" not in flat


def test_optional_keys_may_be_missing(run_dir):
    (run_dir / "config.json").write_text(
        json.dumps({"task": "t", "method": "my-method", "seed": 3, "git_commit": None})
    )
    (run,) = load_runs([run_dir])
    assert run.label == "my-method"
    assert settings(run) == {}


def test_an_unfinished_run_may_have_half_a_line_or_nothing(tmp_path):
    run_dir = write_run(tmp_path, "cql", 0, done=False)
    complete = load_run(run_dir)
    assert not complete.done
    with (run_dir / "eval.csv").open("a") as file:
        file.write("online,9999,")
    assert load_run(run_dir).rows[-1] == pytest.approx(complete.rows[-1], nan_ok=True)
    (run_dir / "eval.csv").unlink()
    assert load_run(run_dir).rows == []


def test_a_finished_run_needs_no_final_newline(run_dir):
    rows = load_run(run_dir).rows
    (run_dir / "eval.csv").write_text((run_dir / "eval.csv").read_text().rstrip("\n"))
    assert len(load_run(run_dir).rows) == len(rows)


def edit_config(run_dir, **changes):
    config = json.loads((run_dir / "config.json").read_text()) | changes
    (run_dir / "config.json").write_text(json.dumps(config))


def edit_eval(run_dir, old, new):
    text = (run_dir / "eval.csv").read_text()
    assert old in text
    (run_dir / "eval.csv").write_text(text.replace(old, new, 1))


BROKEN = {
    "no JSON": (lambda d: (d / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
    "a list": (lambda d: (d / "config.json").write_text("[]"), "config.json: not a run configuration"),
    "a later format": (lambda d: edit_config(d, format=2), "config.json: not a run configuration of format 1"),
    "no seed": (lambda d: edit_config(d, seed=None), "'seed' must be there and be int"),
    "settings no object": (lambda d: edit_config(d, settings=[1]), "'settings' must be an object"),
    "phases no list": (lambda d: edit_config(d, phases={"name": "offline"}), "'phases' must be a list"),
    "no eval.csv": (lambda d: (d / "eval.csv").unlink(), "eval.csv: cannot be read"),
    "empty eval.csv": (lambda d: (d / "eval.csv").write_text(""), "eval.csv: lacks the column"),
    "binary eval.csv": (lambda d: (d / "eval.csv").write_bytes(b"\xff\xfe\x00"), "eval.csv: cannot be read"),
    "header only": (lambda d: edit_eval(d, (d / "eval.csv").read_text().split("\n", 1)[1], ""), "holds no evaluation"),
    "column missing": (lambda d: edit_eval(d, "score_mean", "reward"), "lacks the column.s. score_mean"),
    "unknown phase": (lambda d: edit_eval(d, "offline", "warm-up"), "line 2: phase is 'warm-up'"),
    "text for a number": (lambda d: edit_eval(d, ",0.0400,", ",many,"), "line 2: score_sem is 'many'"),
    "cells missing": (lambda d: edit_eval(d, ",0.0400,1.0,", ","), "line 2: has more or fewer cells"),
    "score in percent": (lambda d: (d / "eval.csv").write_text(PERCENT), "score_mean is 80, outside"),
    "no step": (
        lambda d: (d / "eval.csv").write_text(PERCENT.replace("online,0", "online,")),
        "env_step and grad_step",
    ),
    "no step 0": (lambda d: (d / "eval.csv").write_text(LATE), "must start at 0"),
    "slice without q": (
        lambda d: (d / "slice.csv").write_text("action,return_mean,return_sem,return_deterministic\n0,1,1,1\n"),
        "slice.csv",
    ),
    "text in the slice": (lambda d: (d / "slice.csv").write_text(SLICE + "0,high,1,1,1\n"), "slice.csv"),
    "steps out of order": (lambda d: (d / "eval.csv").write_text(LATE.replace("online,5", "online,0")), "increase"),
}
SLICE = "action,q,return_mean,return_sem,return_deterministic\n"
PERCENT = "phase,env_step,grad_step,score_mean\nonline,0,0,80\n"
LATE = "phase,env_step,grad_step,score_mean\nonline,5,0,0.5\nonline,9,0,0.5\nonline,7,0,0.5\n"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_gets_one_clear_line(run_dir, name):
    spoil, cause = BROKEN[name]
    load_run(run_dir)
    spoil(run_dir)
    with pytest.raises(InputError, match=cause) as error:
        load_run(run_dir)
    message = str(error.value)
    assert "\n" not in message
    assert str(run_dir) in message
    assert ";" in message, "a cause and a mend"


def test_bad_folders_get_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no run"):
        load_runs([tmp_path])
    write_run(tmp_path / "a", "cql", 0)
    write_run(tmp_path / "b", "cql", 0)
    with pytest.raises(InputError, match="repeats"):
        load_runs([tmp_path])
