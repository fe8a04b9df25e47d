"""Every command and every Python example of README and docs is run, in the order in which a reader would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from calql.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = {"train": ["--scale", "smoke"], "sweep": ["--scale", "smoke"], "bench": ["--seconds", "0.1"]}
"""What makes a command of the README take seconds; nothing else of it is changed."""


def commands(page: Path) -> list[list[str]]:
    lines = [line.split("#")[0].strip() for line in page.read_text().splitlines() if line.startswith("    calql ")]
    return [shlex.split(line)[1:] for line in lines]


def test_readme_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = commands(ROOT / "README.md")
    assert {"data", "train", "eval", "sweep", "report", "bench", "doctor"} <= {command[0] for command in listed}
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


def test_every_documented_option_exists():
    from calql.training.config import options

    named = re.findall(r"`(\w+)=", (ROOT / "docs" / "fidelity.md").read_text())
    assert named
    assert set(named) <= set(options())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
