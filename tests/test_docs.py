"""Every command and every Python example of README and docs is run, in the order in which a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from calql.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "methods").glob("*.md"))]
QUICK = {"train": ["--scale", "smoke"], "sweep": ["--scale", "smoke"], "bench": ["--seconds", "0.1"],
         "theory": ["--runs", "2", "--rounds", "3"]}  # fmt: skip
"""What makes a command of the README take seconds; nothing else of it is changed."""


def commands(page: Path) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for line in page.read_text().splitlines() if line.startswith("    calql ")]
    return [shlex.split(line)[1:] for line in lines]


def test_readme_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = commands(ROOT / "README.md")
    assert {"data", "train", "eval", "sweep", "report", "bench", "theory", "doctor"} <= {
        command[0] for command in listed
    }
    for command in listed:
        extra = [] if "--resume" in command else QUICK.get(command[0], [])
        with pytest.raises(SystemExit) as stop:
            main([*command, *extra])
        assert stop.value.code == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "local:" in page.read_text():
        with pytest.raises(SystemExit):
            main(["data", "build", "pointmaze-medium-narrow", "--transitions", "300"])
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(example, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_option_exists(page):
    from calql.paper.methods import METHODS
    from calql.paper.tasks import DEFAULT_TASK
    from calql.training.options import SHORTHANDS, experiment, matching

    made = [experiment(task, method) for method in METHODS for task in (DEFAULT_TASK, "visual-ball-in-bowl")]
    for name in set(re.findall(r"`([\w.]+)=", page.read_text())):
        assert name in SHORTHANDS or any(matching(one, name) for one in made), name


def test_every_method_has_a_page_with_its_command():
    from calql.paper.methods import METHODS

    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md")}
    assert pages.keys() - {"README"} == METHODS.keys()
    for name in METHODS:
        assert f"--method {name} " in pages[name]
        for heading in ("## Use", "## Where it is", "## Measured", "## What differs elsewhere"):
            assert heading in pages[name]


def test_lines_that_links_lead_to_and_the_table_of_methods_are_those_of_the_code():
    done = subprocess.run([sys.executable, ROOT / "docs" / "keep.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("plan", sorted((ROOT / "results" / "plans").glob("*.toml")), ids=lambda plan: plan.name)
def test_plans_of_the_results_can_be_run(plan, tmp_path):
    from calql.sweeps import make_jobs, read_plan

    jobs = make_jobs(read_plan(plan), tmp_path)
    assert len(jobs) >= 6
    assert len({job.out for job in jobs}) == len(jobs)
