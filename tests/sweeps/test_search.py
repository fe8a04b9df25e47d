"""The search of a plan's space: what is asked, what is stored, and that it goes on. The runs are small programs."""

from __future__ import annotations

import csv
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from calql.cli import main
from calql.reports.search import write_search
from calql.sweeps import make_jobs, read_plan
from calql.sweeps import search as searching
from calql.sweeps.plan import Job
from calql.sweeps.search import Search, best_first
from calql.training.run_dir import RunDir
from calql.types import InputError, RunError

RUN = """
import csv, json, os, sys, time
from pathlib import Path
given = sys.argv[1:]
out, seed = Path(given[given.index("--out") + 1]), int(given[given.index("--seed") + 1])
options = dict(text.split("=") for text in given[given.index("--set") + 1 :])
alpha, root = float(options["cql_alpha"]), next(path.parent for path in out.parents if path.name == "trials")
out.mkdir(parents=True, exist_ok=True)
with open(root / "log", "a") as log:
    print("start", os.getpid(), out.relative_to(root), options["cql_alpha"], file=log)
if (root / "bad").exists():
    sys.exit("no such thing")
file = out / "eval.csv"
done = len(file.read_text().splitlines()) - 1 if file.exists() else 0
scores = [1 / (1 + alpha) + 0.1 * seed] * 5
with file.open("a") as eval_csv:
    write = csv.writer(eval_csv)
    if not done:
        write.writerow(["phase", "env_step", "grad_step", "wall_s", "score_mean"])
    for step in range(done, 5):
        write.writerow(["online", 100 * step, 100 * step, step, scores[step]])
        eval_csv.flush()
        while step == 2 and ((root / "hold").exists() or alpha > 10):
            time.sleep(0.02)
(out / "summary.json").write_text(json.dumps({"regret": 1 - scores[0], "score_before": scores[0]}))
(out / "DONE").touch()
with open(root / "log", "a") as log:
    print("end", os.getpid(), out.relative_to(root), file=log)
"""
PLAN = """
tasks = ["pointmaze-medium-narrow"]
seeds = [0, 1]
scale = "smoke"
set = ["online_steps=400", "eval_every_online=100"]
[[runs]]
methods = ["cal-ql"]
[space]
cql_alpha = { low = 0.5, high = 9.0, log = true }
"""


def runs_as(monkeypatch, program):
    """Runs are this small program."""
    monkeypatch.setattr(Job, "command", lambda job: [sys.executable, "-S", "-c", program, *job.arguments()])


@pytest.fixture(autouse=True)
def small_programs(monkeypatch, tmp_path):
    runs_as(monkeypatch, RUN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    return read_plan(tmp_path / "plan.toml")


def searched(plan, out, trials=3, workers=2, queue=(), **how) -> Search:
    """A search to its end; the first trials take the values in the queue."""
    search = Search(plan, out, **how)
    with search.open():
        for alpha in queue:
            search._study.enqueue_trial({"cql_alpha": alpha})
        for _ in search.run(trials, workers, poll_s=0.01):
            pass
    return search


def started(out) -> list[list[str]]:
    return [line.split() for line in (out / "log").read_text().splitlines() if line.startswith("start")]


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_a_trial_is_the_mean_of_its_runs_and_the_best_is_told(plan, tmp_path):
    out = tmp_path / "tuned"
    search = searched(plan, out, 6, pruning=False)
    over = search.over()
    assert [one.state for one in over] == ["complete"] * 6
    for one in over:
        (alpha,) = (float(option.partition("=")[2]) for option in one.options)
        assert 0.5 <= alpha <= 9
        assert one.values == pytest.approx([1 - 1 / (1 + alpha), 0.9 - 1 / (1 + alpha)])
        assert one.value == pytest.approx(np.mean(one.values))
        assert {path.name for path in one.folder.glob("pointmaze-medium-narrow/cal-ql/*")} >= {"seed-0", "seed-1"}
    best = best_first(over, "regret")[0]
    assert best.value == min(one.value for one in over)
    with search.open():
        (command,) = write_search(search, out)
    assert command[command.index("--seed") + 1] == "2"  # one that the search has not used
    assert best.options[0] in command
    page = (out / "tune.html").read_text()
    assert f"Trial {best.number} has the lowest regret" in page
    assert best.options[0] in page
    assert "<td>100%</td>" in page  # importance of the only option
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["regret"]) for row in rows] == [one.value for one in over]
    assert [f"cql_alpha={row['cql_alpha']}" for row in rows] == [one.options[0] for one in over]


def test_another_objective_is_maximised(plan, tmp_path):
    search = searched(plan, tmp_path / "tuned", 4, queue=(5.0, 0.5, 8.0), objective="score_before")
    assert best_first(search.over(), "score_before")[0].number == 1


def test_a_trial_that_is_worse_than_the_median_is_stopped(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(searching, "UNCOMPARED", 3)
    runs_as(monkeypatch, RUN.replace("alpha > 10", "alpha > 6"))
    out = tmp_path / "tuned"
    search = searched(plan, out, 4, queue=(1.0, 2.0, 3.0, 8.0))  # the last would never end
    assert [one.state for one in search.over()] == ["complete"] * 3 + ["pruned"]
    worst = search.over()[-1]
    assert worst.value == pytest.approx(1 - 1 / 9 - 0.05)
    assert not list(worst.folder.rglob("DONE"))
    with search.open():
        write_search(search, out)
    assert "pruned" in (out / "tune.html").read_text()


def test_no_more_runs_than_workers_at_a_time_and_no_idle_ones(plan, tmp_path, monkeypatch):
    slow = RUN.replace("eval_csv.flush()", "eval_csv.flush(); time.sleep(0.2)")
    runs_as(monkeypatch, slow)
    out = tmp_path / "tuned"
    searched(plan, out, 4, workers=3)  # the third works on the next trial
    most, now, together = 0, set(), set()
    for line in (out / "log").read_text().splitlines():
        what, _, path, *_ = line.split()
        now = now | {path} if what == "start" else now - {path}
        most = max(most, len(now))
        together.add(len({name.split("/")[1] for name in now}))
    assert most == 3
    assert 2 in together


# -- interruptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_an_interrupted_search_goes_on(plan, tmp_path, clean):
    out = tmp_path / "tuned"
    out.mkdir()
    (out / searching.STUDY).touch()
    (out / "hold").touch()
    search = Search(plan, out)
    with search.open():
        polls = search.run(3, 2, poll_s=0.01)
        end = time.monotonic() + 30
        while len(list(out.glob("trials/0000/*/*/*/eval.csv"))) < 2:
            next(polls)
            assert time.monotonic() < end
        before = search._trials()[0].params
        if clean:
            polls.close()
        else:  # Optuna is told nothing more, and what was being written is cut
            for one in polls.gi_frame.f_locals["running"]:
                one.engine.close()
            with (out / searching.STUDY).open("a") as file:
                file.write('{"op_code": 8, "wor')
            polls = None
    (out / "hold").unlink()
    again = searched(plan, out, 3)
    over = again.over()
    assert [one.state for one in over] == ["complete"] * 3
    assert over[0].options == (f"cql_alpha={before['cql_alpha']}",)
    assert len({one.options for one in over}) == 3  # the sampler does not begin again
    starts = [start[2:] for start in started(out)]
    assert starts.count(starts[0]) == 2
    count = len(started(out))
    assert len(searched(plan, out, 3).over()) == 3  # nothing is left to do
    assert len(started(out)) == count
    assert len(searched(plan, out, 5).over()) == 5


def test_a_finished_pre_training_is_taken_from_an_earlier_trial(plan, tmp_path):
    import dataclasses

    from calql.sweeps.space import read_space

    online = dataclasses.replace(plan, space=read_space({"finetune.utd": {"choices": [1, 2, 3]}}))
    search = Search(online, tmp_path / "tuned")
    first, second = (search._with_donors(search.jobs([f"finetune.utd={utd}"], tmp_path / str(utd))) for utd in (1, 2))
    assert [job.siblings for job in first] == [(), ()]
    assert [job.siblings for job in second] == [(job.out,) for job in first]
    third = search._with_donors(search.jobs(["finetune.utd=1", "cql_alpha=3"], tmp_path / "3"))
    assert [job.siblings for job in third] == [(), ()]


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_trial_whose_run_fails_is_told_and_the_search_goes_on(plan, tmp_path):
    out = tmp_path / "tuned"
    out.mkdir()
    (out / searching.STUDY).touch()
    search = Search(plan, out)
    (out / "bad").touch()
    with search.open():
        for poll in search.run(3, 2, poll_s=0.01):
            if poll.over:
                (out / "bad").unlink(missing_ok=True)
    states = [one.state for one in search.over()]
    assert states[0] == "failed"
    assert states[-1] == "complete"
    assert re.search(r"cal-ql seed \d: no such thing \(log: .*seed-\d\.log\)", search.over()[0].why)


def test_a_search_that_only_fails_ends(plan, tmp_path):
    out = tmp_path / "tuned"
    out.mkdir()
    (out / searching.STUDY).touch()
    (out / "bad").touch()
    with pytest.raises(RunError, match=r"the first 3 trials have failed; the last: cal-ql seed \d: no such thing"):
        searched(plan, out, 10)


def test_options_that_do_not_fit_each_other_are_a_failed_trial(tmp_path):
    text = PLAN.replace("cql_alpha = { low = 0.5, high = 9.0, log = true }", "")
    space = "cql_alpha = { choices = [1.0, 2.0] }\ncql_every_nth_state = { choices = [2, 3] }\n"
    space += "batch_size = { choices = [12, 16] }\n"
    (tmp_path / "plan.toml").write_text(text + space)
    search = Search(read_plan(tmp_path / "plan.toml"), tmp_path / "tuned")
    with search.open():
        for every, batch in ((2, 16), (3, 16)):
            search._study.enqueue_trial(
                {"cql_alpha": "1.0", "cql_every_nth_state": str(every), "batch_size": str(batch)}
            )
        for _ in search.run(2, 2, poll_s=0.01):
            pass
    assert [one.state for one in search.over()] == ["complete", "failed"]
    assert "batch_size 16 is no multiple of 3" in search.over()[1].why


def test_a_folder_holds_one_search(plan, tmp_path):
    import dataclasses

    searched(plan, tmp_path / "tuned", 1)
    for other, said in (
        (dataclasses.replace(plan, seeds=(0, 1, 2)), "another seeds"),
        (dataclasses.replace(plan, options=(*plan.options, "tau=0.1")), "another runs"),
    ):
        with pytest.raises(InputError, match=said), Search(other, tmp_path / "tuned").open():
            pass
    one, two = Search(plan, tmp_path / "tuned"), Search(plan, tmp_path / "tuned")
    with one.open(), pytest.raises(InputError, match="is being written by"), two.open():
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds no search"), Search(plan, tmp_path / "other").open():
        pass


def test_a_sweep_of_a_search_is_refused(plan, tmp_path):
    with pytest.raises(InputError, match="calql tune --plan"):
        make_jobs(plan, tmp_path / "runs")


ALPHA = "cql_alpha = { low = 0.5, high = 9.0, log = true }"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ALPHA, "", "there is nothing to search"),
        (ALPHA, "cql_alfa = { low = 1.0, high = 2.0 }", "[space] cql_alfa: unknown option 'cql_alfa'; did you mean"),
        (ALPHA, "iql_temperature = { low = 1.0, high = 2.0 }", "a run of CalQL reads no option of that name"),
        (ALPHA, "cql_alpha = 3", "[space] cql_alpha is 3; write { low"),
        (ALPHA, "cql_alpha = { }", "missing required field `low`"),
        (ALPHA, "cql_alpha = { low = 1.0 }", "missing required field `high`"),
        (ALPHA, "cql_alpha = { low = 2.0, high = 1.0 }", "low must be below high"),
        (ALPHA, "cql_alpha = { low = 0.0, high = inf }", "both finite"),
        (ALPHA, "cql_alpha = { low = 0.0, high = 1.0, log = true }", "low must be above 0"),
        (ALPHA, "cql_alpha = { low = 0.0, high = 1.0, step = 1 }", "unknown field `step`"),
        (ALPHA, "cql_alpha = { choices = [] }", "length >= 2"),
        (ALPHA, "cql_alpha = { choices = [1.0] }", "length >= 2"),
        (ALPHA, "cql_alpha = { choices = [1.0, 1.0] }", "has a choice twice"),
        (ALPHA, 'cql_alpha = { choices = [1.0, "much"] }', "cannot be 'much'"),
        (ALPHA, "cql_alpha = { choices = [1.0, -1.0] }", "cannot be '-1.0'"),
        (ALPHA, "utd = { low = 1.0, high = 2.5 }", "option 'finetune.utd' cannot be '2.5'"),
        (ALPHA, "score = { low = 1, high = 2 }", "[space] score"),
        (ALPHA, f'{ALPHA}\neval_from = {{ choices = ["env", "nothing"] }}\nonline_steps = {{ low = 1, high = 2 }}',
         "'online_steps' is both set and in [space]"),
        ('"online_steps=400"', '"online_steps=400", "eval_from=nothing"', "no regret is measured"),
        ('"online_steps=400"', '"online_steps=0"', "no fine-tuning here, so no regret"),
        ('methods = ["cal-ql"]', 'methods = ["cal-ql", "cql"]', "a search is of one method"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_anything_runs(tmp_path, capsys, monkeypatch, old, new, said):
    monkeypatch.chdir(tmp_path)
    assert old in PLAN
    Path("plan.toml").write_text(PLAN.replace(old, new))
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--plan", "plan.toml", "--out", "tuned"])
    found = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert len(found.splitlines()) == 1
    assert said in found
    assert not Path("tuned").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --plan FILE.toml"),
        (["--plan", "plan.toml", "--trials", "0"], "trials is 0"),
        (["--plan", "plan.toml", "--objective", "regrets"], "did you mean regret"),
        (["--plan", "plan.toml", "--workers", "0"], "workers is 0"),
    ],
)
def test_odd_arguments(plan, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["tune", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_missing_optuna_names_the_extra(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with (
        pytest.raises(InputError, match=r"a search needs Optuna; pip install 'calql\[tune\]'"),
        Search(plan, tmp_path / "tuned").open(),
    ):
        pass


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_searched(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["tune", "--plan", "plan.toml", "--dry-run"])
    said = capsys.readouterr().out
    assert "cql_alpha: 0.5 to 9.0, logarithmic" in said
    assert "20 trials of 2 runs, 5 evaluations per run, by regret" in said
    assert not Path("tuned").exists()


def test_the_command_tells_each_trial_and_the_next_command(plan, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("calql.cli.common.build_missing", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--plan", "plan.toml", "--trials", "2", "--workers", "2"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for number in (0, 1):
        assert re.search(rf"trial {number} complete   regret \S+   cql_alpha=", said)
    (command,) = re.findall(r"next: .*(train --task pointmaze-medium-narrow .*)", said)
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--print-config"])
    assert stop.value.code == 0


@pytest.mark.slow
def test_a_search_of_real_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    few = ["offline_steps=4", "online_steps=60", "eval_every_online=30", "eval_episodes=1", "actor_hidden=8"]
    text = PLAN.replace('"online_steps=400", "eval_every_online=100"', ", ".join(f'"{one}"' for one in few))
    Path("plan.toml").write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    with pytest.raises(SystemExit) as stop:
        main(["tune", "--plan", "plan.toml", "--trials", "2"])
    assert stop.value.code == 0, capsys.readouterr().err
    runs = sorted(Path("tuned/trials").rglob("DONE"))
    assert len(runs) == 2
    with Path("tuned/trials.csv").open() as file:
        for row, run in zip(csv.DictReader(file), runs, strict=True):
            rows = RunDir(run.parent).read_rows("eval.csv")
            assert row["state"] == "complete"
            assert float(row["regret"]) == pytest.approx(1 - np.mean([float(r["score_mean"]) for r in rows[-3:]]))
    with pytest.raises(SystemExit) as stop:
        main(["report", "tuned", "--out", "report"])
    assert stop.value.code == 0
