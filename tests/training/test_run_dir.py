"""The run directory: the only state there is."""

import csv
import json
import math

import pytest

from calql.training.run_dir import EVAL_COLUMNS, RunDir
from calql.types import InputError


@pytest.fixture
def run_dir(tmp_path):
    made = RunDir(tmp_path / "runs" / "one")
    made.create({"task": "walk", "seed": 3})
    return made


def test_a_new_run_is_made_where_nothing_is(run_dir, tmp_path):
    assert run_dir.read_config() == {"task": "walk", "seed": 3}
    assert run_dir.checkpoints.is_dir()
    assert not run_dir.done
    (tmp_path / "empty").mkdir()
    RunDir(str(tmp_path / "empty")).create({})


def test_a_folder_that_holds_another_run_is_refused_and_left_alone(run_dir):
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        RunDir(run_dir.path).create({"task": "other"})
    assert run_dir.read_config()["task"] == "walk"


@pytest.mark.parametrize("kind", ["file inside", "is a file"])
def test_anything_else_in_the_way_is_refused(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "file inside":
        path.mkdir()
        (path / "thesis.tex").write_text("all of it")
    else:
        path.write_text("all of it")
    with pytest.raises(InputError, match="not an empty folder"):
        RunDir(path).create({})


@pytest.mark.parametrize("text", [None, "", "{", "\x00"])
def test_a_missing_or_damaged_configuration_is_bad_input(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="no run" if text is None else "damaged"):
        RunDir(tmp_path).read_config()


def test_rows_come_back_in_order_with_empty_cells_for_what_was_not_measured(run_dir):
    run_dir.append("eval.csv", {"phase": "offline", "score_mean": 0.5, "score_sem": math.nan}, EVAL_COLUMNS)
    run_dir.append("eval.csv", {"phase": "online", "score_mean": 1 / 3, "q_data_mean": None}, EVAL_COLUMNS)
    text = (run_dir.path / "eval.csv").read_text()
    assert text.splitlines()[0].split(",") == list(EVAL_COLUMNS)
    first, second = run_dir.read_rows("eval.csv")
    assert (first["phase"], first["score_mean"], first["score_sem"], first["q_data_mean"]) == ("offline", "0.5", "", "")
    assert float(second["score_mean"]) == 1 / 3  # nothing is rounded away
    assert second["q_data_mean"] == ""
    assert run_dir.read_rows("train.csv") == []


def test_new_columns_are_added_at_the_end(run_dir):
    run_dir.append("train.csv", {"phase": "offline", "td_loss": 1.0, "cql_gap": 2.0}, ("phase", "env_step"))
    run_dir.append("train.csv", {"phase": "online", "td_loss": 3.0, "entropy": 4.0}, ("phase", "env_step"))
    run_dir.append("train.csv", {"td_loss": 5.0}, ("phase", "env_step"))
    with (run_dir.path / "train.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["phase", "env_step", "td_loss", "cql_gap", "entropy"],
        ["offline", "", "1.0", "2.0", ""],
        ["online", "", "3.0", "", "4.0"],
        ["", "", "5.0", "", ""],
    ]


@pytest.mark.parametrize("keep", [0, 1, 3, 9])
def test_truncation_keeps_the_first_rows_and_the_header(run_dir, keep):
    for i in range(3):
        run_dir.append("train.csv", {"step": i, "loss": i / 7}, ("step",))
    before = run_dir.read_rows("train.csv")
    run_dir.truncate("train.csv", keep)
    assert run_dir.read_rows("train.csv") == before[:keep]
    run_dir.append("train.csv", {"step": 99}, ("step",))
    assert [row["step"] for row in run_dir.read_rows("train.csv")] == [*"012"[:keep], "99"]
    run_dir.truncate("eval.csv", keep)  # not there: nothing to do
    assert not (run_dir.path / "eval.csv").exists()


def test_a_row_that_was_cut_short_by_a_crash_is_removed_with_the_rest(run_dir):
    run_dir.append("train.csv", {"step": 0, "loss": 0.25}, ("step",))
    path = run_dir.path / "train.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"1,0.1")
    run_dir.truncate("train.csv", 1)
    assert path.read_bytes() == whole


def test_json_is_strict_and_written_at_once(run_dir):
    run_dir.write_json("x.json", {"nan": math.nan, "inf": (-math.inf, 1), "deep": [{"a": math.nan}], 3: None})
    text = (run_dir.path / "x.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse) == {
        "nan": None,
        "inf": ["-inf", 1],
        "deep": [{"a": None}],
        "3": None,
    }
    with pytest.raises(TypeError):
        run_dir.write_json("x.json", {"x": object()})
    assert (run_dir.path / "x.json").read_text() == text


def test_done_means_that_the_summary_is_there(run_dir):
    run_dir.finish({"regret": 0.25, "dip": math.nan})
    assert run_dir.done
    assert json.loads((run_dir.path / "summary.json").read_text()) == {"regret": 0.25, "dip": None}


def test_a_crash_before_the_configuration_is_written_leaves_a_folder_that_can_be_used(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".config.json.tmp").write_text("{")
    RunDir(path).create({"format": 1})
    assert RunDir(path).read_config() == {"format": 1}
