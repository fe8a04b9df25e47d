"""The wheel, built and installed elsewhere, and used from outside the tree. Nothing is fetched."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from calql.machine import git_commit

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
OURS = {"PYTHONPATH", "PYTHONHOME", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"}
"""What a user's environment lacks: the tree, and the hurry in which the other tests compile."""


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory) -> Path:
    """An environment that holds the wheel, and sees this one's packages (but not its editable calql)."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
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
    code = "from calql.machine import COMMIT, git_commit; print(COMMIT.exists(), git_commit())"
    there = run(elsewhere / "bin" / "python", "-c", code, cwd=elsewhere).split()
    assert there == [str(git_commit() is not None), str(git_commit())]


def test_a_run_with_programs_as_users_compile_them(elsewhere, tmp_path):
    run(elsewhere / "bin" / "calql", "train", "--scale", "smoke", "--out", tmp_path / "run", cwd=tmp_path)
    assert (tmp_path / "run" / "DONE").exists()
