"""What made a file, and what this machine offers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calql import commit, machine

RECORD = {"command", "git_commit", "packages", "python", "platform"}


def git(folder, *arguments):
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_start_is_json_and_says_what_where_and_when():
    told = json.loads(json.dumps(machine.start_record()))
    assert told.keys() == RECORD | {"time", "host", "cpu", "cores", "device", "backend"}
    assert {"calql", "jax", "numpy"} <= set(told["packages"])
    assert told["backend"] == "cpu"
    assert told["time"].endswith("+00:00")
    assert len(told["cores"]) == machine.threads() >= 1
    assert machine.provenance().keys() == RECORD


# -- the commit --------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """Somebody's repository with one commit."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "theirs").touch()
    git(tmp_path, "add", "theirs")
    git(tmp_path, "commit", "--quiet", "--message", "theirs")
    return tmp_path


def commit_of(package):
    """What the copy of this module in that folder says."""
    package.mkdir(parents=True, exist_ok=True)
    shutil.copy(commit.__file__, package)
    code = "import json, commit; print(json.dumps(commit.git_commit()))"
    env = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_package_in_the_repository_of_another_project_does_not_take_its_commit(repository):
    package = repository / ".venv" / "site-packages" / "calql"
    assert commit_of(package) is None
    package.joinpath(commit.COMMIT.name).write_text("0123abc\n")
    assert commit_of(package) == "0123abc"


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(repository):
    package = repository / "src" / "calql"
    commit_of(package)
    git(repository, "add", "src")
    git(repository, "commit", "--quiet", "--message", "ours")
    head = git(repository, "rev-parse", "HEAD")
    package.joinpath(commit.COMMIT.name).write_text("0123abc\n")
    assert commit_of(package) == head
    (repository / "theirs").write_text("changed")
    assert commit_of(package) == f"{head}-dirty"


def test_without_git_nobody_knows(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path / "calql") is None


# -- cores and devices -------------------------------------------------------------------------------------------------


def test_a_system_without_affinities_has_the_cores_it_counts(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.cores() == [0, 1, 2]
    assert machine.threads() == 3
    machine.pin(os.getpid(), 0)


def test_only_one_place_asks_for_affinities():
    """Anything else fails where the system has none."""
    package = Path(machine.__file__).parent
    assert [path.name for path in package.rglob("*.py") if "sched_" in path.read_text(encoding="utf-8")] == [
        "machine.py"
    ]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux has such a policy")
def test_a_learner_lets_others_go_first_with_all_its_threads():
    code = """
import os, threading
from calql.machine import after_others
wait = threading.Event()
threading.Thread(target=wait.wait).start()
after_others()
threading.Thread(target=wait.wait).start()
print({os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")} == {os.SCHED_IDLE})
wait.set()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "True\n"


def test_a_core_is_taken_once_and_given_back(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "cores", lambda: [4, 7])
    first, second = machine.take_core(), machine.take_core()
    assert (first.number, second.number, machine.take_core()) == (4, 7, None)
    first.close()
    again = machine.take_core()
    assert again.number == 4
    second.close()
    again.close()


def test_without_a_place_for_locks_no_core_is_taken(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert machine.take_core() is None


SMI = """#!/bin/sh
echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)'
"""


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """A machine with two GPUs and JAX's plug-in."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    plugin = machine.metadata.EntryPoint("xla_cuda12", "jax_plugins.xla_cuda12", "jax_plugins")
    monkeypatch.setattr(machine.metadata, "entry_points", lambda group: [plugin] if group == "jax_plugins" else [])


@pytest.mark.parametrize(
    ("name", "value", "expected", "visible"),
    [
        ("CUDA_VISIBLE_DEVICES", None, True, 2),
        ("CUDA_VISIBLE_DEVICES", "1", True, 1),
        ("CUDA_VISIBLE_DEVICES", "", False, 0),
        ("CUDA_VISIBLE_DEVICES", "-1", False, 0),
        ("JAX_PLATFORMS", "", True, 2),
        ("JAX_PLATFORMS", "cpu", False, 2),
        ("JAX_PLATFORMS", "cuda,cpu", True, 2),
    ],
)
def test_the_gpu_that_jax_would_use(gpus, monkeypatch, name, value, expected, visible):
    if value is not None:
        monkeypatch.setenv(name, value)
    assert machine.has_accelerator() is expected
    assert len(machine.visible_gpus()) == visible


def test_a_gpu_without_its_plugin_or_without_a_driver_is_none(gpus, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(machine.metadata, "entry_points", lambda group: [])
        assert not machine.has_accelerator()
    monkeypatch.setenv("PATH", "")
    assert not machine.has_accelerator()


# -- the program -------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder with .venv/bin/calql in it; we are there, and nothing is on the PATH."""
    program = tmp_path / ".venv" / "bin" / "calql"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    return program


@pytest.mark.parametrize("called", [".venv/bin/calql", "{}/.venv/bin/calql"])
def test_the_command_is_printed_as_it_must_be_typed(installed, monkeypatch, tmp_path, called):
    monkeypatch.setattr(sys, "argv", [called.format(tmp_path), "demo"])
    assert machine.program() == [".venv/bin/calql"]
    monkeypatch.setenv("PATH", str(installed.parent))
    assert machine.program() == ["calql"]
    monkeypatch.setattr(sys, "argv", ["/lib/calql/__main__.py"])
    assert machine.program() == [sys.executable, "-m", "calql"]
    monkeypatch.setattr(sys, "argv", ["notebook"])
    assert machine.program() == ["calql"]
