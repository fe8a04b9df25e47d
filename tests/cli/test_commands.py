"""Every command, run as a user would, at smoke scale."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calql.cli import common, main
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.training.options import experiment
from calql.training.record import new_record
from calql.training.run_dir import RunDir

TASK = next(iter(TASKS))


def calql(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 0


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A finished smoke run of the default task and method."""
    out = tmp_path_factory.mktemp("runs") / "run"
    calql("train", "--scale", "smoke", "--out", out)
    return out


@pytest.mark.parametrize(
    "command",
    ["", "demo", "train", "eval", "data", "sweep", "tune", "report", "list", "bench", "doctor", "completions"],
)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "calql" in capsys.readouterr().out


def test_train_leaves_a_complete_run_directory(finished_run):
    assert {p.name for p in finished_run.iterdir()} == {
        "config.json", "eval.csv", "train.csv", "episodes.csv", "summary.json", "checkpoints", "DONE",
    }  # fmt: skip
    config = json.loads((finished_run / "config.json").read_text())
    assert config["data"]["fingerprint"]
    assert config["differs_from_paper"]["pretrain.batch_size"] == {"paper": 256, "here": 16}


def test_resume_of_a_finished_run_says_so(finished_run, capsys):
    calql("train", "--resume", "--out", finished_run)
    assert "already finished" in capsys.readouterr().out


def test_eval(finished_run, capsys):
    calql("eval", finished_run, "--episodes", 3)
    assert "3 episodes" in capsys.readouterr().out


def test_eval_tells_how_episodes_end(finished_run, capsys):
    calql("eval", finished_run, "--episodes", 4, "--endings")
    assert "100% out of time on the way, progress 0." in capsys.readouterr().out
    calql("eval", finished_run, "--episodes", 4, "--endings", "--json")
    alone = json.loads(capsys.readouterr().out)
    ((ended,), score) = alone.pop("endings"), alone.pop("score_mean")
    assert (ended["ending"], ended["share"], score) == ("out of time on the way", 1.0, 0.0)
    calql("eval", finished_run, "--episodes", 4, "--json")
    together = json.loads(capsys.readouterr().out)
    assert together.pop("score_mean") == score
    assert alone == pytest.approx(together)  # the episodes are the same


def test_eval_films_an_episode(finished_run, tmp_path):
    calql("eval", finished_run, "--episodes", 1, "--video", tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size > 1_000


def test_a_missing_gl_library_names_the_mend(finished_run, tmp_path, monkeypatch, capfd):
    from calql.paper.envs import pointmaze

    make = pointmaze.make

    def without_gl(render_mode=None):
        if render_mode is not None:
            raise ImportError("Cannot initialize a EGL device display")
        return make()

    monkeypatch.setattr(pointmaze, "make", without_gl)
    with pytest.raises(SystemExit) as stop:
        main(["eval", str(finished_run), "--episodes", "1", "--video", str(tmp_path / "film.mp4")])
    said = capfd.readouterr().err.strip()
    assert stop.value.code == 2
    assert "EGL" in said
    assert "MUJOCO_GL" in said
    assert len(said.splitlines()) == 1


def test_report(finished_run, tmp_path):
    calql("report", finished_run, "--out", tmp_path / "report")
    assert "Cal-QL" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize("flag", ["--print-config", "--dry-run"])
def test_a_look_without_a_run(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    calql("train", "--scale", "smoke", flag)
    calql("sweep", "--tasks", TASK, "--methods", *METHODS, "--seeds", 0, "--scale", "smoke", flag)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out


def test_a_dry_run_tells_the_time_of_what_is_left(finished_run, tmp_path, capsys):
    def said(*more):
        calql("train", *more, "--dry-run")
        return " ".join(capsys.readouterr().out.split())

    longer = said("--resume", "--out", finished_run, "--set", "online_steps=250")
    assert "goes on at online step 200 of 250" in longer
    shared = said("--pretrained", finished_run, "--out", tmp_path / "new")
    assert "goes on at offline step 60 of 60" in shared
    with pytest.raises(SystemExit):
        main(["train", "--init-from", f"{finished_run}@7", "--out", str(tmp_path / "new"), "--dry-run"])
    assert "no checkpoint '7'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_print_config_is_json_that_names_every_difference_from_the_paper(capsys):
    calql("train", "--scale", "paper", "--print-config")
    config = json.loads(capsys.readouterr().out)
    assert config["differs_from_paper"] == {}
    assert config["experiment"]["pretrain"]["algorithm"]["num_random_actions"] == 10


def test_data(capsys):
    calql("data", "build", TASK, "--transitions", 300)
    tenths = [int(line.split()[0]) for line in capsys.readouterr().out.splitlines() if "/ 300" in line]
    assert len(tenths) >= 4  # without a terminal
    assert tenths == sorted(set(tenths))
    assert tenths[-1] == 300
    calql("data", "list")
    calql("data", "info", TASK)
    calql("data", "check", f"local:{TASK}")
    said = capsys.readouterr().out
    for word in ("fingerprint", "success", "returns", "narrow", "expect", "failing"):
        assert word in said


def test_missing_local_data_are_built_whosever_they_are(tmp_path, monkeypatch):
    """The task's own as its options have made it, another's as in the table, and nothing else."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    built = []
    monkeypatch.setattr(common, "build", built.append)
    own, other = (task for task in list(TASKS.values())[:2])
    changed = dataclasses.replace(own, horizon=7)
    before = next(iter(other.earlier))
    for uri in (own.data, other.data, before, f"npz:{own.id}", "local:nobody", own.id, None):
        common.build_missing(uri, changed)
    assert built == [changed, other, other.building(before)]


def test_a_grade_trains_says_how_episodes_end_and_continues(tmp_path, capsys):
    few = ("offline_steps=40", "eval_every_offline=10", "eval_episodes=1", "actor_hidden=8")
    command = ["data", "grade", TASK, "--methods", "bc", "iql", "--seeds", 0, 1, "--out", tmp_path, "--set", *few]
    calql(*command)
    said = capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "grade.csv").read_text().splitlines()))
    assert [(row["method"], row["seeds"], row["updates"]) for row in rows] == [("BC", "2", "40"), ("IQL", "2", "40")]
    ends = list(csv.DictReader((tmp_path / "endings.csv").read_text().splitlines()))
    assert sum(float(row["share"]) for row in ends) == pytest.approx(2.0)  # of two methods
    assert f"BC: {float(ends[0]['share']):.0%} {ends[0]['ending']}" in said
    assert (tmp_path / "paths.png").stat().st_size > 1000
    finished = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("DONE"))]
    calql(*command)
    assert finished == [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("DONE"))]
    assert len(finished) == 4


def test_data_of_an_earlier_version_can_be_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    recipes = []
    for name in ("antmaze-medium-play", "local:antmaze-medium-play"):
        calql("data", "build", name, "--transitions", 30, "--workers", 1, "--set", "horizon=20")
        version = "v0" if ":" in name else "v1"
        noted = json.loads((tmp_path / f"calql/antmaze-medium-play-{version}/data/metadata.json").read_text())
        recipes.append(noted["calql"]["recipe"])
    assert [recipe["spread"] for recipe in recipes] == [1.3, 0.0]
    assert recipes[0] | {"spread": 0.0} == recipes[1]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """(command, folder) of a sweep that is done."""
    out = tmp_path_factory.mktemp("sweep")
    what = ["--tasks", TASK, "--methods", "cql", "cql-sac", "--seeds", 0, "--scale", "smoke"]
    command = ["sweep", *what, "--out", out, "--workers", 2]  # the second waits for the first
    calql(*command)
    return command, out


def test_sweep_runs_processes_and_skips_what_is_done(sweep):
    command, out = sweep
    runs = sorted(path.parent for path in out.rglob("DONE"))
    assert len(runs) == 2
    before = [(run / "eval.csv").stat().st_mtime_ns for run in runs]
    calql(*command)
    assert before == [(run / "eval.csv").stat().st_mtime_ns for run in runs]


def test_sweep_pretrains_once_for_all_that_fine_tune_it(sweep):
    _, out = sweep
    cql, sac = (out / TASK / method / "seed-0" for method in ("cql", "cql-sac"))
    assert json.loads((sac / "config.json").read_text())["pretrained"] == str(cql)
    before = [RunDir(run).read_rows("eval.csv")[:3] for run in (cql, sac)]
    assert before[0] == before[1]


@pytest.mark.parametrize("source", [("--init-from", "donor@pretrained"), ("--pretrained", "donor")], ids=str)
def test_what_is_not_named_is_that_of_the_run_whose_networks_are_taken(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    episodes = common.load_data(experiment(TASK, "iql", "smoke"))
    RunDir("donor").create(new_record(experiment("pen-binary", "iql", "smoke", seed=4), episodes, {}))

    def made(*named):
        capsys.readouterr()
        calql("train", *source, *named, "--print-config")
        made = json.loads(capsys.readouterr().out)["experiment"]
        return made["task"]["id"], made["method"], made["scale"], made["seed"]

    assert made() == ("pen-binary", "iql", "smoke", 4)
    assert made("--method", "cql", "--seed", 0) == ("pen-binary", "cql", "smoke", 0)
    assert made("--task", "door-binary", "--scale", "desk") == ("door-binary", "iql", "desk", 4)


def test_sweep_follows_a_plan_and_shares_pretraining_between_its_variants(tmp_path, capfd):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'''tasks = ["{TASK}"]\nseeds = [3]\nscale = "smoke"\nset = ["eval_episodes=1"]\n'''
        """[[runs]]\nmethods = ["cql"]\n"""
        """[[runs]]\nmethods = ["cql"]\nset = ["utd=2", "finetune.cql_alpha=0"]\n"""
        """[[figures]]\ntitle = "One alone"\ndraws = ["score"]\nruns = ["cql"]\n"""
    )
    calql("sweep", "--plan", plan, "--out", tmp_path / "runs", "--set", "online_steps=30")
    plain, varied = (tmp_path / "runs" / TASK / name / "seed-3" for name in ("cql", "cql,utd=2,finetune.cql_alpha=0"))
    saved = [json.loads((run / "config.json").read_text()) for run in (plain, varied)]
    assert [config["options"].get("utd") for config in saved] == [None, "2"]
    for config in saved:
        assert config["experiment"]["measurement"]["eval_episodes"] == 1
        assert config["experiment"]["finetune"]["online_steps"] == 30
    assert saved[1]["pretrained"] == str(plain)
    shutil.copytree(plain, tmp_path / "runs" / TASK / "another" / "seed-3")  # a repetition, were it read
    calql("report", tmp_path / "runs", "--plan", plan, "--out", tmp_path / "report")
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| CQL (finetune.cql_alpha=5, utd=1) |" in table
    assert "| CQL (finetune.cql_alpha=0, utd=2) |" in table
    drawn = {path.stem for path in (tmp_path / "report" / "figures").iterdir()}
    assert drawn == {f"{TASK}-overview", f"{TASK}-One-alone-score"}
    plan.write_text(plan.read_text().replace('"score"', '"scores"'))
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "runs"), "--plan", str(plan), "--out", str(tmp_path / "report")])
    assert "unknown drawing 'scores'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([], {(t, m) for t in ("kitchen-mixed", TASK) for m in ("cql", "cql,utd=2", "iql")}),
        (["--tasks", TASK], {(TASK, "cql"), (TASK, "cql,utd=2"), (TASK, "iql")}),
        (["--methods", "cql"], {(t, m) for t in ("kitchen-mixed", TASK) for m in ("cql", "cql,utd=2")}),
        (["--methods", "cql,utd=2", "--methods", "iql", "--tasks", TASK], {(TASK, "cql,utd=2"), (TASK, "iql")}),
        (["--methods", "iqll"], "unknown method of the plan 'iqll'; did you mean iql"),
        (["--tasks", "kitchen-complete"], "unknown task of the plan 'kitchen-complete'"),
    ],
)
def test_a_part_of_a_plan(tmp_path, capfd, named, expected):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        f'tasks = ["kitchen-mixed", "{TASK}"]\nmethods = ["cql", "iql"]\n[[runs]]\nmethods = ["cql"]\nset = ["utd=2"]\n'
    )
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--plan", str(plan), *named, "--seeds", "0", "--out", str(tmp_path / "o"), "--dry-run"])
    out, err = capfd.readouterr()
    if isinstance(expected, str):
        assert (stop.value.code, expected in err) == (2, True)
    else:
        words = [shlex.split(line) for line in out.splitlines() if line.startswith("to do")]
        places = [Path(line[line.index("--out") + 1]) for line in words]
        assert {(place.parts[-3], place.parts[-2]) for place in places} == expected


PLAN = 'tasks = ["t"]\n[[runs]]\nmethods = ["cql"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks = [", "cannot be read as a plan"),
        ('tasks = ["t"]', "names no methods; add methods = [...]"),
        ('tasks = ["t"]\nmethods = []', "'methods': Expected `array` of length >= 1"),
        ('tasks = ["t"]\nmethods = ["cql"]\n[[runs]]\nmethods = ["cql"]', "there twice"),
        ('tasks = "t"\n[[runs]]\nmethods = ["cql"]', "'tasks': Expected `array`, got `str`"),
        (
            'tasks = ["t"]\nseed = 1\n[[runs]]\nmethods = ["cql"]',
            "`seed`; valid names here: data, figures, methods, runs, scale, seeds, set, space, tasks, trackers",
        ),
        ('tasks = ["t"]\n[[runs]]\nmethods = ["cql"]\nset = ["utd=2", 3]', "'runs[0].set[1]': Expected `str`"),
        ('tasks = ["t"]\nscale = 3\n[[runs]]\nmethods = ["cql"]', "'scale': Expected `str`"),
        ('tasks = ["t"]\nseeds = [true]\n[[runs]]\nmethods = ["cql"]', "'seeds[0]': Expected `int`, got `bool`"),
        ('tasks = ["t"]\n[[runs]]\nmethods = ["cql", "cql"]', "twice with the same options"),
        (
            'tasks = ["t"]\nset = ["utd=1"]\n[[runs]]\nmethods = ["cql"]\nset = ["utd=2"]',
            "'utd' is set both for all runs",
        ),
        (
            'tasks = ["t"]\n[[runs]]\nmethod = ["cql"]',
            "'runs[0]': Object contains unknown field `method`",
        ),
        ('tasks = ["t"]\nseeds = [-1]\n[[runs]]\nmethods = ["cql"]', "'seeds[0]': Expected `int` >= 0"),
        ('tasks = []\n[[runs]]\nmethods = ["cql"]', "'tasks': Expected `array` of length >= 1"),
        (f'figures = "score"\n{PLAN}', "'figures': Expected `array`"),
        (
            f'{PLAN}[[figures]]\ndraws = ["score"]\nruns = ["cql"]',
            "'figures[0]': Object missing required field `title`",
        ),
        (f'{PLAN}[[figures]]\ntitle = "t"\nruns = ["cql"]', "'figures[0]': Object missing required field `draws`"),
        (f'{PLAN}[[figures]]\ntitle = "t"\ndraws = ["score"]\nruns = ["sql"]', "unknown run of the plan 'sql'"),
    ],
)
def test_what_is_not_a_plan(tmp_path, capfd, text, said):
    plan = tmp_path / "plan.toml"
    plan.write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--plan", str(plan), "--out", str(tmp_path / "runs")])
    assert stop.value.code == 2
    assert said in "".join(capfd.readouterr()).replace("\n", " ")


@pytest.mark.parametrize("times", ["once", "each", "mixed"])
def test_options_given_twice_add_up(times, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    values = {"--tasks": [TASK], "--methods": ["cql", "sac"], "--seeds": [0, 1, 7], "--set": ["tau=0.1", "utd=2"]}
    arguments = []
    for name, several in values.items():
        cut = {"once": [several], "each": [[value] for value in several], "mixed": [several[:1], several[1:]]}[times]
        arguments += [word for some in cut if some for word in (name, *some)]
    calql("sweep", *arguments, "--scale", "smoke", "--dry-run")
    said = [line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("to do")]
    found = {(line[line.index("--method") + 1], line[line.index("--seed") + 1]) for line in said}
    assert found == {(method, str(seed)) for method in values["--methods"] for seed in values["--seeds"]}
    for line in said:
        assert line[line.index("--set") + 1 :] == values["--set"]


def test_set_given_twice_to_train_adds_up(capfd):
    calql("train", "--scale", "smoke", "--set", "tau=0.1", "--set", "utd=2", "discount=0.9", "--print-config")
    made = json.loads(capfd.readouterr().out)["experiment"]
    assert (made["finetune"]["utd"], made["pretrain"]["algorithm"]["tau"]) == (2, 0.1)
    assert made["finetune"]["algorithm"]["discount"] == 0.9


def test_sweep_names_the_run_that_failed(tmp_path, capfd):
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "--tasks", TASK, "--methods", "bc", "--seeds", "0", "--out", str(tmp_path), "--data", "npz:no"])
    assert stop.value.code == 1
    said = capfd.readouterr().err
    assert "1 of 1 runs failed" in said
    assert "bc seed 0" in said
    assert "seed-0.log" in said


def test_demo(tmp_path, capfd):
    calql("demo", "--scale", "smoke", "--seeds", 0, "--out", tmp_path / "demo")
    assert (tmp_path / "demo" / "report" / "report.html").exists()
    *_, look, other = capfd.readouterr().out.splitlines()
    assert look.startswith("next: ")
    assert look.endswith(f"-m webbrowser {tmp_path / 'demo' / 'report' / 'report.html'}")
    assert other.startswith("or:   ")
    assert " sweep --tasks " in other


def test_the_demo_is_the_sweep_that_the_results_show(tmp_path, monkeypatch, capfd):
    asked = []
    monkeypatch.setattr("calql.cli.sweep.run_jobs", lambda jobs, engine: asked.extend(jobs))
    monkeypatch.setattr("calql.reports.report.write_report", lambda paths, out: out / "report.html")
    calql("demo", "--out", tmp_path)
    text = (Path(__file__).parents[2] / "results" / "README.md").read_text()
    shown = next(line for line in text.splitlines() if line.startswith("    calql sweep") and "runs/demo" in line)
    calql(*shlex.split(shown.replace("runs/demo", str(tmp_path)))[1:])
    demo, sweep = asked[:6], asked[6:]
    assert [job.experiment for job in demo] == [job.experiment for job in sweep if job.experiment.seed < 3]
    assert {job.experiment.seed for job in sweep} == set(range(5))
    assert " --set " in capfd.readouterr().out  # of the next command


def test_python_dash_m():
    said = subprocess.run([sys.executable, "-m", "calql", "--help"], capture_output=True, text=True, check=True).stdout
    assert "demo" in said


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes as POSIX has them")
@pytest.mark.parametrize("arguments", [["--help"], ["data", "list"]])
def test_a_reader_that_has_had_enough(arguments):
    """`calql --help | head -1`: no traceback."""
    command = [sys.executable, "-m", "calql", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 1
