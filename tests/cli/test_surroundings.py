"""Odd surroundings and odd numbers: one line with the fix, and never a finished run that counts as failed."""

import contextlib
import errno
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import jax
import numpy as np
import pytest
import tyro

import calql
from calql.cli import commands, main
from calql.cli.options import refuse_repeated
from calql.paper.tasks import TASKS
from calql.training.run_dir import RunDir
from calql.types import InputError

TASK = next(iter(TASKS))
QUICK = ("--task", TASK, "--method", "bc", "--scale", "smoke", "--set", "offline_steps=2", "eval_episodes=1")


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder; returns (exit code, what it wrote to stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err.strip()

    return run


def log(path="log.npz"):
    rng = np.random.default_rng(0)
    np.savez(
        path,
        observations=rng.normal(size=(40, 4)).astype("f4"),
        actions=rng.uniform(-1, 1, (40, 2)).astype("f4"),
        rewards=np.zeros(40, "f4"),
        terminals=np.zeros(40, bool),
        timeouts=np.arange(1, 41) % 10 == 0,
    )
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("report",), "nothing to report"),
        (("sweep", "--workers", 0, "--tasks", TASK, "--methods", "bc"), "workers is 0; it must be at least 1"),
        (("sweep", "--workers", 10**6, "--tasks", TASK, "--methods", "bc"), "workers is 1000000; this machine has"),
        (("sweep", "--eval-workers", 10**20, "--tasks", TASK, "--methods", "bc"), "eval_workers is 1000"),
        (("sweep", "--eval-workers", -1, "--tasks", TASK, "--methods", "bc"), "eval_workers is -1"),
        (("sweep", "--tasks", TASK, "--methods", "bc", "--seeds", 0, -1), "seed is -1; it must lie in"),
        (("data", "build", TASK, "--workers", 10**6), "workers is 1000000; this machine has"),
        (("data", "build", TASK, "--workers", -1), "workers is -1; it must be at least 1"),
        (("data", "build", TASK, "--transitions", 0), "transitions and episodes must be at least 1"),
        (("data", "grade", TASK, "--workers", 10**6), "workers is 1000000; this machine has"),
        (("demo", "--workers", 10**6), "workers is 1000000; this machine has"),
        (("train", "--set", f"batch_size={2**31}"), "it must be at most 2147483647"),
        (("train", "--set", "actor_hidden=64,99999999999"), "it must be at most 2147483647"),
        (("report", "x" * 300), "File name too long; check the path"),
        (("train", "--task", "Pendulum-v99"), "no Gymnasium id"),
        (("train", "--task", "pendulum"), "or name a Gymnasium id, or your own package.module:factory"),
        (("train", "--task", "nowhere:env"), "looked in"),
        (("train", "--task", TASK, "--set", "score=return"), "score_range=LOW,HIGH"),
        (("report", "a", "--out", "x", "--out=y"), "--out is given 2 times, and takes one value; leave it once"),
        (("sweep", "--plan", "a", "--plan", "a", "--seeds", 0, "--seeds", 1), "--plan is given 2 times"),
    ],
)
def test_odd_arguments(said, arguments, cause):
    code, text = said(*arguments)
    assert (code, len(text.splitlines())) == (2, 1)
    assert cause in text


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("calql ")


def test_jax_of_64_bits_is_refused(said):
    with jax.enable_x64(True):
        code, text = said("train", *QUICK, "--data", log())
    assert (code, "unset it" in text) == (2, True)


def test_a_platform_that_is_not_there_is_named(said, monkeypatch):
    def none(*_):
        raise AssertionError

    monkeypatch.setattr(jax, "devices", none)
    code, text = said("train", *QUICK, "--data", log())
    assert code == 2
    assert "finds no device" in text.splitlines()[-1]
    assert "(AssertionError)" in text
    assert "unset JAX_PLATFORMS" in text


def test_output_that_cannot_hold_every_character_and_a_full_disk_behind_it(said, monkeypatch):
    plain = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    assert said("data", "check", log(), "--task", TASK)[0] == 0
    assert b"expect" in plain.buffer.getvalue()

    class Full(io.TextIOWrapper):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self):
            return 1

    monkeypatch.setattr(sys, "stdout", Full(io.BytesIO(), "utf-8"))
    monkeypatch.setattr("os.dup2", lambda *_: None)
    code, text = said("data", "info", log(), "--task", TASK)
    assert (code, text) == (
        1, "calql: the output cannot be written (No space left on device); free space, or write elsewhere",
    )  # fmt: skip


def test_odd_numbers_of_eval_moved_data_and_a_report_of_odd_folders(said, tmp_path):
    assert said("train", *QUICK, "--data", log(), "--out", "a run")[0] == 0
    for arguments, cause in (("--episodes=0", "at least 1"), ("--episodes=-3", "at least 1"), ("--seed=-1", "least 0")):
        code, text = said("eval", "a run", arguments)
        assert (code, cause in text, len(text.splitlines())) == (2, True, 1)
    # The message about moved data is followed.
    (tmp_path / "log.npz").rename(tmp_path / "moved.npz")
    code, text = said("train", "--resume", "--out", "a run", "--set", "offline_steps=4")
    assert (code, "--data with the new place" in text) == (2, True)
    assert said("train", "--resume", "--out", "a run", "--set", "offline_steps=4", "--data", "npz:moved.npz")[0] == 0
    assert json.loads((tmp_path / "a run" / "config.json").read_text())["experiment"]["data"]["uri"] == "npz:moved.npz"
    other = np.load("moved.npz")
    np.savez("other.npz", **{name: other[name] for name in other.files} | {"rewards": np.ones(40, "f4")})
    code, text = said("train", "--resume", "--out", "a run", "--set", "offline_steps=6", "--data", "npz:other.npz")
    assert (code, "have changed" in text) == (2, True)
    # A file of a spreadsheet, and another program's folder.
    rows = RunDir("a run").path / "eval.csv"
    rows.write_bytes(b"\xef\xbb\xbf" + rows.read_bytes())
    assert said("report", "a run", "--out", "report")[0] == 0
    (tmp_path / "a run" / "config.json").write_text('{"architectures": []}')
    code, text = said("report", "a run", "--out", "report")
    assert (code, "not the configuration of a run" in text) == (2, True)


@pytest.mark.parametrize("command", ["build", "train"])
def test_a_data_folder_that_cannot_be_written_is_named_with_its_variable(said, tmp_path, monkeypatch, command):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "data"))
    arguments = ("data", "build", TASK, "--transitions", 300) if command == "build" else ("train", *QUICK, "--out", "r")
    code, text = said(*arguments, *(("--workers", 1) if command == "build" else ()))
    assert (code, len(text.splitlines())) == (2, 1)
    assert f"the data folder {tmp_path}/file/data cannot be written (Not a directory)" in text
    assert "set MINARI_DATASETS_PATH to a folder of yours" in text
    assert not (tmp_path / "r").exists()


def test_a_data_folder_without_permission_is_named(said, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "elsewhere")

    monkeypatch.setattr("calql.paper.demonstrators.run.tempfile.TemporaryFile", denied)
    code, text = said("data", "build", TASK, "--transitions", 300, "--workers", 1)
    assert (code, "cannot be written (Permission denied); set MINARI_DATASETS_PATH" in text) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), 2, "a\\nb: Permission denied; check the path"),
        (OSError(errno.EMFILE, "Too many open files", "x"), 2, "ulimit -n"),
        (MemoryError("Unable to allocate 9 TiB"), 1, "out of memory (Unable to allocate 9 TiB); use smaller"),
        (MemoryError(), 1, "out of memory; use smaller data, networks or batches"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), 1, "out of memory (Out of memory all"),
    ],
)
def test_what_the_system_refuses_is_one_line(said, monkeypatch, error, code, told):
    def fails(*_):
        raise error

    monkeypatch.setattr("calql.cli.data._list", fails)
    found, text = said("data", "list")
    assert (found, len(text.splitlines())) == (code, 1)
    assert told in text


@pytest.mark.parametrize("command", commands())
def test_options_of_one_value_are_refused_twice_and_those_of_several_add_up(command):
    function = commands()[command]
    for name, hint in get_type_hints(function, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if name == "return" or tyro.conf.Positional in marks:
            continue
        option = next((mark.name for mark in marks if getattr(mark, "name", None)), name)
        typed = [command, f"--{option.replace('_', '-')}", "1", f"--{option}=2"]
        harmless = "tuple" in str(hint) or "bool" in str(hint)
        refused = contextlib.nullcontext() if harmless else pytest.raises(InputError, match="given 2 times")
        with refused:
            refuse_repeated(function, [word.replace("_", "-") for word in typed])


@pytest.mark.parametrize("place", ["factory", "reset", "reader"])
def test_code_that_ends_the_program_is_named(said, tmp_path, place):
    Path("leaving.py").write_text(
        "import sys, gymnasium\n"
        f"def factory(render_mode=None):\n    {'sys.exit()' if place == 'factory' else 'return Env()'}\n"
        "class Env(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-9, 9, (4,))\n"
        "    action_space = gymnasium.spaces.Box(-1, 1, (2,))\n"
        "    def reset(self, **_): sys.exit('no robot')\n"
        "def reader(path): sys.exit(0)\n"
    )
    data = "leaving:reader:x" if place == "reader" else log()
    code, text = said("data", "check", data, "--task", "leaving:factory")
    assert code == 1
    assert "leaving.py:" in text.splitlines()[-1]
    assert "ended the program (SystemExit(" in text


def test_other_errors_are_not_hidden(monkeypatch):
    def fails(*_):
        raise ValueError("a fault of calql's own")

    monkeypatch.setattr("calql.cli.data._list", fails)
    with pytest.raises(ValueError, match="a fault"):
        main(["data", "list"])


SHELL = f"{shlex.quote(sys.executable)} -m calql"


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        (
            f"mkdir gone && cd gone && rmdir ../gone && {SHELL} data list",
            2,
            "the current folder does not exist any more",
        ),
        (f"{SHELL} --version >&-", 0, ""),
        (f"{SHELL} data info npz:x.npz --task {TASK} >&- <&-", 2, "no such file"),
        (f"{SHELL} data info npz:x.npz --task {TASK} 2>&-", 2, ""),
    ],
)
def test_a_deleted_folder_and_closed_streams(tmp_path, line, code, told):
    source = str(Path(calql.__file__).parents[1])
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in done.stderr


def test_the_demo_names_all_that_it_lacks_before_it_begins(said, monkeypatch, tmp_path):
    import importlib.util

    find = importlib.util.find_spec
    absent = ("minari", "matplotlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in absent else find(name, *more))
    code, text = said("demo", "--scale", "smoke", "--seeds", "0")
    assert (code, len(text.splitlines())) == (2, 1)
    assert "the demo needs Minari, Matplotlib; pip install 'calql[paper,report]'" in text
    assert not list(tmp_path.iterdir())
