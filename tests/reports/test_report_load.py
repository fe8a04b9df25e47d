import csv
import dataclasses
import json

import numpy as np
import pytest
from fake_runs import write_run, write_study

from calql.reports.load import _as_read, load_runs, settings
from calql.training import options
from calql.training.experiment import encode
from calql.types import InputError


def load_run(path):
    (run,) = load_runs([path])
    return run


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
    assert run.record.commands == ()


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
    "a later format": (lambda d: edit_config(d, format=3), "config.json: not a run configuration of format 1 or 2"),
    "no experiment": (lambda d: edit_config(d, format=2), "'experiment' must be there and be dict"),
    "no task": (lambda d: edit_config(d, format=2, experiment={"method": "m", "seed": 0}), "'experiment.task' must be"),
    "no task id": (
        lambda d: edit_config(d, format=2, experiment={"task": {}, "method": "m", "seed": 0}),
        "'experiment.task.id' must be there and be str",
    ),
    "starts no list": (
        lambda d: edit_config(d, format=2, experiment={"task": {"id": "t"}, "method": "m", "seed": 0}, starts={}),
        "'starts' must be a list",
    ),
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
    assert ";" in message, "a cause and a fix"


def test_bad_folders_get_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no run"):
        load_runs([tmp_path])
    write_run(tmp_path / "a", "cql", 0)
    edit_eval(write_run(tmp_path / "b", "cql", 0), ",0.0400,", ",0.0500,")
    with pytest.raises(InputError, match="repeats"):
        load_runs([tmp_path])


# -- names -------------------------------------------------------------------------------------------------------------


def test_methods_and_tasks_have_the_titles_that_their_runs_give_them(tmp_path):
    edit_config(write_run(tmp_path, "cql", 0), method="mine:ROW", title="My own", task="lab.arm:TASK", task_title="Arm")
    edit_config(write_run(tmp_path, "iql", 0), title="IQL with my values")
    write_run(tmp_path, "sac", 0, form=2, changes={"title": "My SAC", "task.title": "Maze"})
    said = {run.method: (run.label, run.record.task_title) for run in load_runs([tmp_path])}
    assert said == {"mine:ROW": ("My own", "Arm"), "iql": ("IQL with my values", "toy-maze"), "sac": ("My SAC", "Maze")}


def test_two_methods_of_one_title_are_not_seeds_of_one(tmp_path):
    edit_config(write_run(tmp_path, "cql", 0), method="mine:ROW", title="CQL")
    write_run(tmp_path, "cql", 1)
    assert {run.label for run in load_runs([tmp_path])} == {"CQL (mine:ROW)", "CQL (cql)"}


def test_runs_have_the_shortest_names_that_are_their_own(tmp_path):
    for folder in ("a", "b"):
        edit_eval(write_run(tmp_path / folder / "x", "cql", 0, settings={"note": folder}), ",0.0400,", ",0.0500,")
    write_run(tmp_path / "a" / "y", "cql", 1)
    names = [run.name for run in load_runs([tmp_path / "a", tmp_path / "b"])]
    assert sorted(names) == ["a/x/toy-maze-cql-0", "b/x/toy-maze-cql-0", "y/toy-maze-cql-1"]


# -- format 2 ----------------------------------------------------------------------------------------------------------


def test_format_2_gives_the_record_of_format_1(tmp_path):
    old, new = (load_run(write_run(tmp_path / str(form), "cql", 3, form=form)) for form in (1, 2))
    for name in ("task", "method", "seed", "title", "task_title", "scale", "data", "commands"):
        assert getattr(new.record, name) == getattr(old.record, name), name
    assert new.record.about == {
        name: v for name, v in old.record.about.items() if name not in ("python", "platform")
    } | {"device": ("cpu",)}
    assert new.record.settings["pretrain.algorithm.cql_alpha"] == 5.0
    assert new.record.settings["finetune.utd"] == 1
    assert not {"seed", "method", "task.id"} & new.record.settings.keys()
    assert new.record.differs == {"pretrain.offline_steps": {"paper": 1_000_000, "here": 20_000}}
    np.testing.assert_array_equal(new.curve("online", "score_mean"), old.curve("online", "score_mean"))


def test_a_run_that_was_started_twice_has_both_starts(tmp_path):
    run_dir = write_run(tmp_path, "cql", 0, form=2)
    config = json.loads((run_dir / "config.json").read_text())
    again = config["starts"][0] | {"command": "calql train --resume", "git_commit": "4567def", "device": "gpu"}
    edit_config(run_dir, starts=[*config["starts"], again])
    record = load_run(run_dir).record
    assert record.commands[1] == "calql train --resume"
    assert record.about["git commit"] == ("0123abc", "4567def")
    assert record.about["device"] == ("cpu", "gpu")
    assert record.about["jax"] == ("0.10.0",)


ALPHA, ALPHA_ONLINE = "pretrain.algorithm.cql_alpha", "finetune.algorithm.cql_alpha"
VARIANTS = {
    "both phases": ({ALPHA: 10.0, ALPHA_ONLINE: 10.0}, ["CQL (cql_alpha=5)", "CQL (cql_alpha=10)"]),
    "one of them": ({ALPHA: 20.0}, ["CQL (pretrain.cql_alpha=5)", "CQL (pretrain.cql_alpha=20)"]),
    "each its own": (
        {ALPHA: 20.0, ALPHA_ONLINE: 10.0},
        ["CQL (finetune.cql_alpha=5, pretrain.cql_alpha=5)", "CQL (finetune.cql_alpha=10, pretrain.cql_alpha=20)"],
    ),
    "a name of its own": ({"finetune.utd": 5}, ["CQL (utd=1)", "CQL (utd=5)"]),
    "a phase left out": ({"finetune": None}, ["CQL", "CQL (finetune=none)"]),
    "the reward": ({"task.rewards.scale": 1.0}, ["CQL (task.scale=1)", "CQL (task.scale=11)"]),
    "the data": ({"data.uri": "minari:x"}, ["CQL (uri=local:toy-maze)", "CQL (uri=minari:x)"]),
    "nothing": ({}, ["CQL"]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_format_2_are_named_by_what_differs(tmp_path, name):
    changes, labels = VARIANTS[name]
    write_run(tmp_path / "a", "cql", 0, form=2)
    write_run(tmp_path / "b", "cql", 1, form=2, changes=changes)
    assert sorted({run.label for run in load_runs([tmp_path])}, key=_as_read) == labels


LATER = {"finetune.algorithm.critic_precision": "float32", "measurement.eval_untrained": True}
"""Options and their defaults, which are what runs did before there were such options."""


def rewritten(run_dir, seed, change):
    """The run with the settings of a real one, changed."""
    record = encode(dataclasses.replace(options.experiment("pointmaze-medium-narrow", "cql", "smoke"), seed=seed))
    change(record)
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps(config | {"experiment": record}))


def without_later(record):
    for path in LATER:
        *above, name = path.split(".")
        part = record
        for step in above:
            part = part[step]
        assert part.pop(name) == LATER[path]


def set_one(record):
    record["finetune"]["algorithm"]["critic_precision"] = "bfloat16"


def test_a_run_that_is_older_than_an_option_is_a_seed_of_the_same_curve(tmp_path):
    for seed, change in enumerate((without_later, lambda record: None, set_one)):
        rewritten(write_run(tmp_path, "cql", seed, form=2), seed, change)
    labels = ["CQL (finetune.critic_precision=bfloat16)", *2 * ["CQL (finetune.critic_precision=float32)"]]
    assert [run.label for run in load_runs([tmp_path])] == labels


def test_reports_import_no_rule_of_the_users_own(tmp_path):
    def foreign(record):
        without_later(record)
        record["finetune"]["rule"] = "no_such_package.rules:Mine"

    rewritten(write_run(tmp_path, "cql", 0, form=2), 0, foreign)
    assert load_run(tmp_path).record.settings["finetune.rule"] == "no_such_package.rules:Mine"


def test_one_method_in_two_formats_is_two_variants(tmp_path):
    write_run(tmp_path / "a", "cql", 0)
    write_run(tmp_path / "b", "cql", 1, form=2)
    assert [run.label for run in load_runs([tmp_path])] == ["CQL (format 1)", "CQL (format 2)"]
