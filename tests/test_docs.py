"""Every command and every Python example of README and docs is run, in the order in which a reader would."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pkgutil
import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from installed import FIGURES

from calql.cli import main
from calql.paper.methods import METHODS
from calql.paper.tasks import DEFAULT_TASK
from calql.training import speed
from calql.training.experiment import Experiment
from calql.training.options import SHORTHANDS, experiment, matching

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "methods").glob("*.md")),
]
ROBOT = ROOT / "docs" / "robot.md"
"""A page whose commands and examples go on from each other: it has a test of its own."""
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
QUICK = {"train": ["--scale", "smoke"], "sweep": ["--scale", "smoke"],
         "bench": ["--seconds", "0.1"],
         "theory": ["--runs", "2", "--rounds", "3"],
         "data grade": ["--seeds", "0", "--set", "offline_steps=40", "eval_episodes=1"]}  # fmt: skip
"""What makes a command of a page take seconds, with `FEWER`; nothing else of it is changed."""
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
FEWER = {
    README: {"online_steps=12000": "online_steps=250", "--seeds 0 1 2": "--seeds 0 1",
             "--episodes 100": "--episodes 5"},
    TUTORIAL: {"calql demo": "calql demo --help", "online_steps=8000": "online_steps=250", "cql cql-sac": "cql",
               "--seeds 0 1 2": "--seeds 0", "--episodes 50": "--episodes 5", "--episodes 20": "--episodes 5"},
}  # fmt: skip


def commands(text: str) -> list[list[str]]:
    """Those on lines of their own, and those that fill a cell of a table."""
    lines = [line.split(" #")[0].strip() for line in text.splitlines() if line.startswith("    calql ")]
    lines += re.findall(r"\| `(calql [^`…]+)` \|$", text, re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


def examples(page: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page, each with the file that it is said to be from, or ""."""
    return re.findall(r"(?:<!-- from: (\S+) -->\n)?```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", FEWER, ids=lambda page: page.stem)
def test_commands_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(speed, "BATCH", 8)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    small = dict(actor_hidden=(8,), critic_hidden=(8, 8))  # in place of all networks that `calql bench` measures
    sizes = {name: size._replace(settings=size.settings | small) for name, size in speed.SIZES.items()}
    monkeypatch.setattr(speed, "SIZES", sizes)
    text = page.read_text()
    for much, little in FEWER[page].items():
        assert much in text
        text = text.replace(much, little)
    assert len(commands(text)) > 10
    for line in text.splitlines():
        if module := re.match(r"    python -m (\S+) (.*)", line):
            monkeypatch.setattr(sys, "argv", [module[1], *shlex.split(module[2])])
            runpy.run_module(module[1], run_name="__main__")
        for command in commands(line):
            extra = [] if "--resume" in command else QUICK.get(" ".join(command[:2])) or QUICK.get(command[0], [])
            with pytest.raises(SystemExit) as stop:
                main([*command, *extra])
            assert stop.value.code == 0, command


def test_the_readme_shows_every_command():
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main(["--help"])
    (listed,) = re.findall(r"\{([\w,]+)\}", out.getvalue())
    shown = set(re.findall(r"calql (\w+)", README.read_text()))
    assert set(listed.split(",")) - shown <= {"demo"}  # which is its first command, by make


@each_page
def test_python_examples_run(page, tmp_path, monkeypatch):
    """In one namespace, as a reader would type them; files of the repository are not run but must say the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    if examples(page) and "pointmaze-medium-narrow" in page.read_text():
        with pytest.raises(SystemExit):
            main(["data", "build", "pointmaze-medium-narrow", "--transitions", "300"])
    names: dict = {}
    for source, example in examples(page):
        if source:
            assert example in (page.parent / source).read_text()
        elif page != ROBOT:
            exec(compile(example, page.name, "exec"), names)


@each_page
def test_commands_are_understood(page, monkeypatch, capsys):
    """Every command of every page has the options that it names, and trains with settings that exist."""
    monkeypatch.chdir(ROOT)
    for name in (
        "cli.data.data",
        "cli.evaluate.evaluate",
        "cli.report.report",
        "cli.bench.bench",
        "cli.theory.theory",
        "cli.demo.demo",
        "cli.export.export",
        "export.actor.act",
    ):
        function = pkgutil.resolve_name(f"calql.{name}")
        monkeypatch.setattr(f"calql.{name}", functools.wraps(function)(lambda *args, **options: 0))
    monkeypatch.setattr("calql.cli.train._begun", lambda run: {})  # of commands that are not run here
    look = {"train": "--print-config", "sweep": "--print-config", "tune": "--dry-run"}
    for command in commands(page.read_text()):
        with pytest.raises(SystemExit) as stop:
            main([*command, *({look[command[0]]} - {*command} if command[0] in look else ())])
        assert stop.value.code == 0, (command, capsys.readouterr().err)


def test_from_my_log_to_my_robot(tmp_path, monkeypatch, capfd):
    """The page's commands and example, in order; the actor runs beside the learner, at 400 Hz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, "policy", raising=False)
    monkeypatch.setattr("calql.machine.after_others", lambda: None)  # it would last for all tests after this one
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *filter(None, sys.path))))}
    text, said = ROBOT.read_text(), {}

    def program(*arguments):
        return subprocess.Popen([sys.executable, *arguments], env=environment)

    def calql(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        out, err = capfd.readouterr()
        assert stop.value.code == 0, (arguments, err)
        return out

    listed = commands(text)
    logger = re.search(r"^    python (-m examples.*)$", text, re.MULTILINE)[1]
    assert program(*shlex.split(logger)).wait() == 0
    actors = []
    for command, following in zip(listed, [*listed[1:], []], strict=True):
        if "runs/apart/policy.npz" in command:
            continue
        if "--episodes-from" in command:  # the next command moves the arm as soon as it has the policy

            def act(arguments, policy=Path("runs/apart/policy.npz")):
                while not policy.exists():
                    time.sleep(0.1)
                actors.append(program("-m", "calql", *arguments))
                if actors[0].wait() != 128 + 15:
                    os.kill(os.getpid(), signal.SIGINT)  # or the learner would wait for ever

            assert following[0] == "act"
            threading.Thread(target=act, args=(["400" if x == "50" else x for x in following],), daemon=True).start()
            command = [*command, "--set", "online_steps=300"]
        said.setdefault(" ".join(command[:2]), calql(*command))
    for actor in actors:
        actor.terminate()
        assert actor.wait() == 128 + 15
    for line in re.search(r"```text\n(.*?)```", text, re.DOTALL)[1].splitlines():
        assert line in said["data check"].splitlines()
    assert "score not measured" in said["train --task"]
    assert float(re.search(r"score (\S+)", said["eval runs/arm"])[1]) > 0.5
    assert "have changed" not in said["export runs/apart"]
    assert float(re.search(r"worst error (\S+)", said["export runs/apart"])[1]) < 1e-5
    files = [path.name for path in sorted(Path("episodes").glob("*.npz"))]
    taken = Path("runs/apart/episodes.csv").read_text()
    assert all(name in taken for name in files[:3])
    assert len(list(Path("episodes/final").glob("*.npz"))) == 3
    (example,) = [example for source, example in examples(ROBOT) if not source]
    exec(compile(example, ROBOT.name, "exec"), {})
    assert "success: " in capfd.readouterr().out


def test_every_public_name_is_documented():
    import calql

    shown = (ROOT / "docs" / "library.md").read_text()
    assert len(calql.__all__) <= 25
    assert [name for name in calql.__all__ if not re.search(rf"`{name}[(`]", shown)] == []


def test_every_page_is_in_the_index():
    shown = (ROOT / "docs" / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in shown] == []


@functools.cache
def is_option(name: str) -> bool:
    """Of some method, on states or on images."""
    return name in SHORTHANDS or any(matching(made, name) for made in every_experiment())


@functools.cache
def every_experiment() -> list[Experiment]:
    return [experiment(task, method) for method in METHODS for task in (DEFAULT_TASK, "visual-ball-in-bowl")]


@each_page
def test_every_documented_option_exists(page):
    for name in set(re.findall(r"`([a-z][\w.]*)=", page.read_text())):
        assert is_option(name), name


def test_every_method_has_a_page_with_its_command():
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages.keys() - {"README"} == METHODS.keys()
    for name in METHODS:
        assert f"--method {name} " in pages[name]
        for heading in ("## Use", "## Code", "## Measured", "## What differs elsewhere"):
            assert heading in pages[name]


def test_lines_that_links_lead_to_and_the_table_of_methods_are_those_of_the_code():
    done = subprocess.run([sys.executable, ROOT / "docs" / "keep.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if FIGURES or not re.search(r"results/.*\.png$", target):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("plan", sorted((ROOT / "results" / "plans").glob("*.toml")), ids=lambda plan: plan.name)
def test_plans_of_the_results_can_be_run(plan, tmp_path):
    from calql.sweeps import make_jobs, read_plan

    jobs = make_jobs(read_plan(plan), tmp_path)
    assert len(jobs) >= 6
    assert len({job.out for job in jobs}) == len(jobs)


@pytest.mark.parametrize("name", ["sweep", "tune"])
def test_the_plan_of_a_page_is_the_one_in_examples(name):
    from calql.sweeps import read_plan

    path = ROOT / "examples" / f"{name}.toml"
    assert read_plan(path).variants
    shown = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), re.DOTALL)[1]
    assert path.read_text().partition("\n")[2] == shown


def test_the_rooms_in_contributing_are_those_of_the_code():
    from test_architecture import TIERS

    text = (ROOT / "CONTRIBUTING.md").read_text()
    shown = re.search(r"\n    (commit.*?)\n\n", text, re.DOTALL)[1]
    assert [set(re.split(r"\W+", tier.strip())) for tier in shown.split("→")] == TIERS
