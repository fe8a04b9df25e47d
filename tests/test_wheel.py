"""The wheel, built and installed elsewhere, and used from outside the tree. Nothing is fetched."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from calql.commit import git_commit
from calql.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
OURS = {"PYTHONPATH", "PYTHONHOME", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"}
"""What a user's environment lacks: the tree, and the hurry in which the other tests compile."""
SMALL = ("--scale", "smoke", "--set", "actor_hidden=16", "critic_hidden=16")
"""A run with one layer in each network, as it is compiling that takes the time."""


WITHOUT_CALQL = """
import importlib.util, sys
assert importlib.util.find_spec("calql") is None
from hatchling.build import build_wheel
build_wheel(sys.argv[1])
"""


def run(*command: object, cwd: Path, code: int = 0, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | variables
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built as on a clean machine: by a process that cannot import calql (-S leaves out the path files of
    the environment, and with them the editable calql)."""
    folder = tmp_path_factory.mktemp("dist")
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    run(sys.executable, "-S", "-c", WITHOUT_CALQL, folder, cwd=ROOT, **packages)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """An environment that holds the wheel, and sees this one's packages (but not its editable calql)."""
    return environment(wheel, tmp_path_factory.mktemp("elsewhere"), Path(sysconfig.get_path("purelib")))


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """An environment that holds the wheel and what it requires without extras, and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    with zipfile.ZipFile(wheel) as held:
        (name,) = [name for name in held.namelist() if name.endswith(".dist-info/METADATA")]
        about = message_from_bytes(held.read(name))
    for distribution in required(about.get_all("Requires-Dist")).values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
    return environment(wheel, tmp_path_factory.mktemp("bare"), folder)


def required(needs: list[str]) -> dict[str, metadata.Distribution]:
    """Name → distribution of this environment, for all that these requirements need, and so on."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(Requirement(need), {""}) for need in needs]
    while waiting:
        need, extras = waiting.pop()
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
            distribution = metadata.distribution(need.name)
            if need.name not in found or need.extras:
                found[need.name] = distribution
                waiting += [(Requirement(inner), need.extras or {""}) for inner in distribution.requires or []]
    return found


def environment(wheel: Path, home: Path, packages: Path) -> Path:
    """A virtual environment in `home` that holds the wheel and sees the packages of a folder."""
    venv.create(home, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (site / "borrowed.pth").write_text(f"{packages}\n")
    pip = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
    run(*pip, "--no-index", "--no-deps", "--ignore-installed", wheel, cwd=home)
    return home


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "calql/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"calql"}
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "calql").rglob("*.py")}
    assert sources <= set(names)


def test_the_installed_package_is_the_one_that_runs(elsewhere):
    code = "import calql, pathlib; print(pathlib.Path(calql.__file__).parent)"
    found = Path(run(elsewhere / "bin" / "python", "-c", code, cwd=elsewhere).strip())
    assert elsewhere in found.parents
    assert (found / "py.typed").exists()


def test_commands_run_from_outside_the_tree(elsewhere):
    calql = elsewhere / "bin" / "calql"
    printed = run(calql, "--help", cwd=elsewhere)
    for command in ("demo", "train", "eval", "data", "report", "doctor"):
        assert command in printed
    assert "rendering" in run(calql, "doctor", cwd=elsewhere)


def test_the_installed_package_knows_its_commit(elsewhere):
    code = "from calql.commit import COMMIT, git_commit; print(COMMIT.exists(), git_commit())"
    there = run(elsewhere / "bin" / "python", "-c", code, cwd=elsewhere).split()
    assert there == [str(git_commit() is not None), str(git_commit())]


def test_a_run_with_programs_as_users_compile_them(elsewhere, tmp_path):
    run(elsewhere / "bin" / "calql", "train", *SMALL, "--out", tmp_path / "run", cwd=tmp_path)
    assert (tmp_path / "run" / "DONE").exists()


# -- without extras ----------------------------------------------------------------------------------------------------

ROBOT = """
import gymnasium, numpy as np
from calql.rewards import Rewards
from calql.tasks import Task

class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2)
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = self.x + 0.3 * action
        success = bool(np.linalg.norm(self.x) < 0.3)
        return self.x.astype(np.float32), float(success) - 1.0, success, False, {"success": success}

def task():
    return Task("reach", Reach, horizon=12, rewards=Rewards(low=-1.0, high=0.0, failing=-1.0))

def record(path):
    env, rng, rows = Reach(), np.random.default_rng(0), []
    for seed in range(20):
        state, _ = env.reset(seed=seed)
        for step in range(12):
            action = np.clip(rng.normal(-state, 0.5), -1, 1)
            following, reward, ended, _, _ = env.step(action)
            rows.append((state, action, reward, ended, step == 11, following))
            state = following
            if ended:
                break
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    np.savez(path, **{name: np.array(column) for name, column in zip(names, zip(*rows))})
"""


def test_the_core_trains_on_a_log_and_an_environment_of_one_s_own(bare, tmp_path):
    (tmp_path / "robot.py").write_text(ROBOT)
    python, calql = bare / "bin" / "python", bare / "bin" / "calql"
    here = run(python, "-c", "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))", *EXTRAS,
               cwd=tmp_path)  # fmt: skip
    assert here.split() == []
    run(python, "-c", "import robot; robot.record('log.npz')", cwd=tmp_path)
    about = ["--task", "robot:task", "--data", "npz:log.npz"]
    assert "success" in run(calql, "data", "check", "npz:log.npz", "--task", "robot:task", cwd=tmp_path)
    run(calql, "train", "--method", "cal-ql", *about, *SMALL, "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "DONE").exists()
    assert "episodes" in run(calql, "eval", "run", "--episodes", "2", cwd=tmp_path)
    run(calql, "doctor", cwd=tmp_path)


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (
            ["train", "--scale", "smoke", "--out", "run"],
            "Minari|MuJoCo",
            "(?:formats|paper)",
        ),  # by what is built already
        (["data", "list"], "Minari", "formats"),
        (["data", "build", "pointmaze-medium-narrow"], "MuJoCo", "paper"),
        (["data", "info", "d4rl:log.hdf5", "--task", "pen-binary"], "h5py", "formats"),
        (["data", "info", "minari:some/set-v0", "--task", "pen-binary"], "Minari", "formats"),
        (["data", "convert", "parquet:log.parquet", "--to", "npz:log.npz"], "PyArrow", "formats"),
        (["report", "nothing"], "Matplotlib", "report"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_needs_an_extra_names_it(bare, tmp_path, command, package, extra):
    said = run(bare / "bin" / "calql", *command, cwd=tmp_path, code=2)
    assert re.search(rf"needs ({package}); pip install 'calql\[{extra}\]' \(in a checkout .*'\.\[{extra}\]'\)$", said)
    assert len(said.splitlines()) == 1
