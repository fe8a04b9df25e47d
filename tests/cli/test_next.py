"""The last lines of every command are the next command, as it must be typed; and what lists and completes."""

from __future__ import annotations

import functools
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from calql.cli import listing, main
from calql.cli.completions import ZSH
from calql.paper.tasks import DEFAULT_TASK
from calql.training import speed

FEW = ("offline_steps=4", "eval_every_offline=2", "eval_episodes=1", "actor_hidden=8")
TRAIN = ("train", "--method", "bc", "--scale", "smoke", "--set", *FEW)
SWEEP = ("sweep", "--tasks", DEFAULT_TASK, "--methods", "bc", "--seeds", "0", "--scale", "smoke", "--set", *FEW)
COMMANDS = {
    ("data", "list"): "data check",
    ("data", "build", DEFAULT_TASK, "--transitions", "300"): "data check",
    ("data", "info", DEFAULT_TASK, "--task", DEFAULT_TASK): "data check",
    ("data", "check", DEFAULT_TASK, "--no-clone", "--set", "discount=0.9"): "train --task",
    ("data", "convert", DEFAULT_TASK, "--to", "npz:all.npz"): "data check",
    ("data", "grade", DEFAULT_TASK, "--methods", "bc", "--seeds", "0", "--set", *FEW): "report runs/grade",
    (*TRAIN, "--dry-run"): "train --method",
    (*TRAIN, "--out", "a run"): "report 'a run'",
    ("train", "--resume", "--out", "a run"): "report 'a run'",
    ("eval", "a run", "--episodes", "1"): "export 'a run'",
    ("export", "a run", "--out", "policy.npz"): "act policy.npz",
    ("act", "policy.npz", "--rate", "1000", "--episodes", "1", "--horizon", "3", "--out", "episodes"): "data info",
    (*SWEEP, "--dry-run"): "sweep --tasks",
    SWEEP: "report runs",
    ("report", "runs", "--out", "report"): "webbrowser report/report.html",
    ("list",): "report runs",
    ("list", "data"): "data check",
    ("list", "runs", "nowhere"): "demo",
    ("theory", "--runs", "1", "--rounds", "2", "--worlds", "lock"): "webbrowser",
    ("bench", "--configs", "laptop", "--seconds", "0.05"): "bench --methods all",
    ("bench", "--methods", "bc", "--seconds", "0.05"): "train --dry-run",
    ("doctor",): "demo",
}
"""Command → how the next one begins, after the program. They go on from each other."""


@pytest.mark.slow
def test_the_last_lines_are_commands_that_can_be_typed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "BATCH", 8)
    monkeypatch.setattr(speed, "ROUNDS", 1)
    following: dict[str, list[str]] = {}
    for command, begin in COMMANDS.items():
        with pytest.raises(SystemExit) as stop:
            main([*command])
        said, errors = capfd.readouterr()
        assert stop.value.code == 0, (command, errors)
        lines = said.strip().splitlines()
        first = next(number for number, line in enumerate(lines) if line.startswith("next: "))
        assert begin in lines[first], command
        for line in lines[first:]:
            assert re.match(r"next: |or:   ", line), (command, line)
            following[line] = shlex.split(line)[1:]
    typed = [words for words in following.values() if "webbrowser" not in words]
    for words in following.values():
        if "webbrowser" in words:
            assert Path(words[0]).exists()
            assert Path(words[-1]).exists()
    understood(typed, monkeypatch)


def understood(typed: list[list[str]], monkeypatch) -> None:
    """Every command has its arguments; none is run."""
    names = ("bench.bench", "data.data", "demo.demo", "evaluate.evaluate", "export.export", "report.report")
    for name in (*(f"cli.{name}" for name in (*names, "sweep.sweep", "train.train")), "export.actor.act"):
        function = pkgutil.resolve_name(f"calql.{name}")
        monkeypatch.setattr(f"calql.{name}", functools.wraps(function)(lambda *args, **options: 0))
    for words in typed:
        begin = words.index("calql") + 1
        with pytest.raises(SystemExit) as stop:
            main(words[begin:])
        assert stop.value.code == 0, words


# -- calql list --------------------------------------------------------------------------------------------------------


def test_list_tells_the_state_of_every_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (release, *_) = sorted((Path(__file__).parents[1] / "training" / "releases").iterdir())
    runs = [Path(shutil.copytree(release, f"runs/{number}")) for number in range(4)]
    for run in runs[1:]:
        (run / "DONE").unlink(missing_ok=True)
    (runs[0] / "DONE").touch()
    (runs[2] / ".lock").write_text(f"process {os.getpid()} on {listing.platform.node()}\n")
    (runs[3] / ".lock").write_text("process 7 on another\n")
    with pytest.raises(SystemExit):
        main(["list", "runs"])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("runs/")}
    states = [re.search(r"done|stopped|running on \S+|running", rows[str(run)])[0] for run in runs]
    assert states == ["done", "stopped", "running", "running on another"]
    assert re.search(r"\d+%.*score", rows[str(runs[0])])


def test_a_lock_that_a_dead_process_has_left_is_a_stopped_run(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".lock").write_text(f"process {dead.pid} on {listing.platform.node()}\n")
    assert listing.state_of(tmp_path) == "stopped"


def test_a_damaged_run_is_listed_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("calql.cli.common.console", Console(width=300))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(["list", "runs", str(tmp_path)])
    assert stop.value.code == 0
    assert "config.json is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["tasks", "methods", "data"])
def test_list_names_what_there_is(what, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["list", what])
    assert stop.value.code == 0
    named = {"tasks": DEFAULT_TASK, "methods": "cal-ql-utd20", "data": "data"}
    assert named[what] in capsys.readouterr().out


# -- calql completions -------------------------------------------------------------------------------------------------

TYPED = """
source "$1"
COMP_WORDS=(calql "$2")
COMP_CWORD=1
_tyro_calql calql "$2" calql
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands(tmp_path):
    script = tmp_path / "some folder" / "calql"
    with pytest.raises(SystemExit) as stop:
        main(["completions", "bash", "--out", str(script)])
    assert stop.value.code == 0
    done = subprocess.run(["bash", "-c", TYPED, "-", script, "comp"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["completions"]
    assert done.stderr == ""


SHELLS = {  # a script that sources the completions, or finds them as those of every new shell, and completes `comp`
    "fish": "source $argv[1]; complete -C 'calql comp'",
    "zsh": 'autoload -Uz compinit; compinit -u -D; source "$1"; print ${_comps[calql]/_tyro_calql/comp}',
    "zsh-found": "fpath=(${1:h} $fpath); autoload -Uz compinit; compinit -u -D; print ${_comps[calql]/_calql/comp}",
}


@pytest.mark.parametrize("how", SHELLS)
def test_zsh_and_fish_take_the_completions(how, tmp_path):
    shell = how.partition("-")[0]
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "_calql"
    with pytest.raises(SystemExit):
        main(["completions", shell, "--out", str(script)])
    begin = ["fish", "--no-config", "-c", SHELLS[how]] if shell == "fish" else ["zsh", "-f", "-c", SHELLS[how], "-"]
    done = subprocess.run([*begin, script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("comp")
    assert done.stderr == ""


def test_the_script_of_zsh_completes_nothing_when_it_is_sourced(capsys):
    with pytest.raises(SystemExit):
        main(["completions", "zsh"])
    end = capsys.readouterr().out.splitlines()[-6:]
    assert '_tyro_calql "$@"' not in end  # but in the branch, indented
    assert end[1:] == ZSH.splitlines()


@pytest.mark.parametrize(("shell", "begin"), [("zsh", "#compdef calql"), ("fish", "# AUTOMATICALLY"), ("bash", "#")])
def test_completions_are_printed(shell, begin, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completions", shell])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert printed.startswith(begin)
    assert "completions" in printed
