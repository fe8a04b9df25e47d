"""How runs begin, go on, are extended, and start from the networks of others."""

import dataclasses
import json
import shutil
from itertools import islice

import jax
import numpy as np
import pytest
import tiny

from calql.training import checkpoint, loop, store
from calql.training.options import changed, experiment
from calql.training.record import read_record
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError


def steps(*arguments, **how):
    return [(event.kind, event.phase, event.step) for event in events(*arguments, **how)]


def test_train_returns_the_summary_and_calls_the_trackers_with_every_event(tmp_path):
    seen = []
    summary = train(tiny.made(), tmp_path / "run", tiny.DATA, trackers=[seen.append])
    assert {"score_before", "score_after", "regret"} <= summary.keys()
    assert {event.kind for event in seen} == {"evaluation", "update", "episode"}
    assert RunDir(tmp_path / "run").done


def test_a_run_that_is_left_at_any_event_has_saved_and_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = steps(tiny.made(), tmp_path / "whole", tiny.DATA)
    for stop in (1, 7, 20, len(whole) - 1):
        folder = tmp_path / str(stop)
        first = events(tiny.made(), folder, tiny.DATA)
        before = [(event.kind, event.phase, event.step) for event in islice(first, stop)]
        first.close()
        assert before + steps(tiny.made(), folder, tiny.DATA, resume=True) == whole
        for name in ("eval.csv", "train.csv"):
            rows = [RunDir(path).read_rows(name) for path in (folder, tmp_path / "whole")]
            assert [{k: v for k, v in row.items() if k != "wall_s"} for row in rows[0]] == [
                {k: v for k, v in row.items() if k != "wall_s"} for row in rows[1]
            ]


def test_resume_starts_a_run_that_is_not_there(tmp_path):
    assert train(tiny.made(), tmp_path / "run", tiny.DATA, resume=True)["score_after"] is not None


def test_a_folder_with_a_run_is_refused_before_the_data_are_read(tmp_path):
    train(tiny.made("bc"), tmp_path / "run", tiny.DATA)
    with pytest.raises(InputError, match="already holds a run"):
        next(events(experiment(tiny.TASK, "bc", "smoke", data="npz:missing.npz"), tmp_path / "run"))


@pytest.mark.parametrize("method", ["cal-ql", "hybrid", "bc"])
def test_an_extended_run_learns_what_a_longer_one_would_have(tmp_path, method):
    name = "offline_steps" if method == "bc" else "online_steps"
    short, long = tiny.made(method), tiny.made(method, **{name: 44})
    train(short, tmp_path / "run", tiny.DATA)
    train(long, tmp_path / "run", tiny.DATA, resume=True)
    train(long, tmp_path / "whole", tiny.DATA)
    states = [checkpoint.load(store.find_checkpoint(RunDir(tmp_path / run), long), "state") for run in ("run", "whole")]
    assert states[0].keys() == states[1].keys()
    for leaf in states[0]:
        np.testing.assert_array_equal(states[0][leaf], states[1][leaf])
    assert read_record(RunDir(tmp_path / "run")).experiment == read_record(RunDir(tmp_path / "whole")).experiment
    assert RunDir(tmp_path / "run").done


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"utd": 3}, r"finetune\.utd.*--init-from"),
        ({"online_steps": 10}, "can only be extended"),
        ({"offline_steps": 20}, "past its pre-training"),
        ({"eval_episodes": 9}, "eval_episodes"),
    ],
)
def test_a_resumed_run_cannot_become_another_one(tmp_path, options, said):
    train(tiny.made(), tmp_path / "run", tiny.DATA)
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(InputError, match=said):
        train(changed(tiny.made(), options), tmp_path / "run", tiny.DATA, resume=True)
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert RunDir(tmp_path / "run").done


def test_a_resumed_run_needs_its_own_data(tmp_path):
    next(first := events(tiny.made(), tmp_path / "run", tiny.DATA))
    first.close()
    other = type(tiny.DATA)(tiny.DATA.episodes[:-1])
    with pytest.raises(InputError, match="have changed"):
        train(tiny.made(), tmp_path / "run", other, resume=True)


# -- networks of another run -------------------------------------------------------------------------------------------


@pytest.fixture
def donor(tmp_path):
    train(tiny.made("cql"), tmp_path / "donor", tiny.DATA)
    return tmp_path / "donor"


def begun(made, folder, init_from):
    """(events up to the first evaluation, the run's first checkpoint) of a run that starts from another's networks."""
    run = events(made, folder, tiny.DATA, init_from=init_from)
    seen = [next(run)]
    while seen[-1].kind != "evaluation":
        seen.append(next(run))
    run.close()
    return seen, checkpoint.load(checkpoint.at(folder / "checkpoints", 0), "state")


@pytest.mark.parametrize("step", ["", "@newest", "@pretrained", "@14"])
def test_a_run_starts_from_the_networks_of_another_with_any_settings(tmp_path, donor, step):
    made = tiny.made("cal-ql", offline_steps=0, seed=9, utd=3, critic_lr=1e-4)
    seen, state = begun(made, tmp_path / "run", f"{donor}{step}")
    number = 14 if step in ("@pretrained", "@14") else 14 + 30 * 2
    there = checkpoint.load(checkpoint.at(donor / "checkpoints", number), "state")
    assert state.keys() == there.keys()
    for leaf in state:
        np.testing.assert_array_equal(state[leaf], there[leaf])
    assert "took actor, critic" in seen[0].info["text"]
    assert str(number) in seen[0].info["text"]
    record = json.loads((tmp_path / "run" / "config.json").read_text())["experiment"]["init_from"]
    assert (record["run"], record["step"]) == (str(donor), number)
    list(events(read_record(RunDir(tmp_path / "run")).experiment, tmp_path / "run", tiny.DATA, resume=True))
    assert RunDir(tmp_path / "run").done


def test_several_fine_tuning_seeds_from_one_pre_training_differ(tmp_path, donor):
    ends = []
    for seed in (1, 2):
        train(
            tiny.made("cql", offline_steps=0, seed=seed),
            tmp_path / str(seed),
            tiny.DATA,
            init_from=f"{donor}@pretrained",
        )
        ends.append(checkpoint.load(store.find_checkpoint(RunDir(tmp_path / str(seed)), tiny.made("cql")), "state"))
    assert any((ends[0][leaf] != ends[1][leaf]).any() for leaf in ends[0])


def test_what_does_not_fit_is_left_fresh_and_said_unless_it_is_the_policy(tmp_path, donor):
    seen, _ = begun(tiny.made("cql", critic_hidden=(5,)), tmp_path / "a", str(donor))
    assert "newly initialised: critic" in seen[0].info["text"]
    assert seen[0].info["text"].index("actor") < seen[0].info["text"].index("newly initialised")
    with pytest.raises(InputError, match="policy of that run does not fit"):
        begun(tiny.made("cql", actor_hidden=(5,)), tmp_path / "b", str(donor))
    assert not (tmp_path / "b" / "config.json").exists()


def test_a_run_killed_before_its_first_checkpoint_takes_the_networks_again(tmp_path, donor):
    made = tiny.made("cql", seed=3)
    _, state = begun(made, tmp_path / "run", str(donor))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    saved = read_record(RunDir(tmp_path / "run")).experiment
    next(run := events(saved, tmp_path / "run", tiny.DATA, resume=True))
    run.close()
    again = checkpoint.load(checkpoint.at(tmp_path / "run" / "checkpoints", 0), "state")
    for leaf in state:
        np.testing.assert_array_equal(state[leaf], again[leaf])


@pytest.mark.parametrize("how", [{"init_from": "@pretrained"}, {"pretrained": ""}], ids=str)
def test_a_job_that_may_be_preempted_is_one_command(tmp_path, donor, how):
    """Begun from another run where there is none yet, and continued afterwards, even where that other run has gone."""
    ((name, step),) = how.items()
    made, source = tiny.made("cql", utd=1), {name: f"{donor}{step}"}
    train(made, tmp_path / "whole", tiny.DATA, **source)
    for count in (6, None):
        run = events(made, tmp_path / "run", tiny.DATA, resume=True, **source)
        for _ in islice(run, count):
            pass
        run.close()
        shutil.rmtree(donor, ignore_errors=True)
    assert [row["grad_step"] for row in RunDir(tmp_path / "run").read_rows("eval.csv")] == [
        row["grad_step"] for row in RunDir(tmp_path / "whole").read_rows("eval.csv")
    ]
    ends = [checkpoint.load(store.find_checkpoint(RunDir(tmp_path / run), made), "state") for run in ("run", "whole")]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    with pytest.raises(InputError, match="was not begun from another"):
        train(made, tmp_path / "run", tiny.DATA, resume=True, **{name: f"another{step}"})


@pytest.mark.parametrize("step", ["@99", "@soon", "@best"])
def test_checkpoints_that_are_not_there_are_bad_input(tmp_path, donor, step):
    if step == "@best":
        (donor / "eval.csv").unlink()
    with pytest.raises(InputError, match=r"no checkpoint|no measured score"):
        begun(tiny.made("cql"), tmp_path / "run", f"{donor}{step}")


def test_the_best_checkpoint_is_the_one_of_the_highest_score(donor):
    run_dir = RunDir(donor)
    rows = run_dir.read_rows("eval.csv")
    for row in rows:
        row["score_mean"] = "0.75" if row["grad_step"] == "14" else "0.5"
    run_dir.write_rows("eval.csv", rows)
    assert checkpoint.step_of(store.find_checkpoint(run_dir, tiny.made("cql"), "best")) == 14


def test_a_taken_over_pretraining_is_bit_for_bit_one_s_own(tmp_path, donor):
    train(tiny.made("cql-sac"), tmp_path / "whole", tiny.DATA)
    train(tiny.made("cql-sac"), tmp_path / "taken", tiny.DATA, pretrained=donor)
    ends = [
        checkpoint.load(store.find_checkpoint(RunDir(tmp_path / run), tiny.made("cql-sac")), "state")
        for run in ("whole", "taken")
    ]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_environments_are_opened_when_they_are_needed(tmp_path):
    opened = []

    def make(render_mode=None):
        opened.append(1)
        return tiny.Slope()

    for method, options, wanted in (
        ("cal-ql", {}, 1 + 3),
        ("cal-ql", {"eval_envs": 1}, 1),
        ("bc", {}, 3),
        ("bc", {"eval_envs": 2}, 2),
    ):
        opened.clear()
        made = dataclasses.replace(tiny.made(method, **options), task=dataclasses.replace(tiny.TASK, env=make))
        training = tiny.Training(made, tiny.DATA, RunDir(tmp_path / f"{method}-{len(options)}-{wanted}"))
        assert not opened
        training.run_dir.create({})
        list(loop.run(training))
        training.close()
        assert len(opened) == wanted
