"""The wheel, built and installed elsewhere, and used from outside the tree. Nothing is fetched."""

import re
import sys
import sysconfig
import venv
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from installed import ROOT, SMALL, build, run, train_from_a_log
from packaging.requirements import Requirement

from calql.commit import git_commit
from calql.extras import EXTRAS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("dist"))


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


def test_the_core_trains_on_a_log_and_an_environment_of_one_s_own(bare, tmp_path):
    python, calql = bare / "bin" / "python", bare / "bin" / "calql"
    here = run(python, "-c", "import sys, importlib.util as u; print(*filter(u.find_spec, sys.argv[1:]))", *EXTRAS,
               cwd=tmp_path)  # fmt: skip
    assert here.split() == []
    train_from_a_log(calql, python, tmp_path)


@pytest.mark.parametrize(("command", "shown"), [
    ("--version", "calql "), ("--help", "doctor"), ("doctor", "JAX devices"), ("list", "cal-ql"),
    ("list methods", "cal-ql"), ("list runs", "no runs"), ("completions bash", "complete"),
    ("train --print-config", "cql_alpha"),
])  # fmt: skip
def test_what_needs_no_extra_does_without(bare, tmp_path, command, shown):
    assert shown in run(bare / "bin" / "calql", *command.split(), cwd=tmp_path)


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (
            ["train", "--scale", "smoke", "--out", "run"],
            "Minari|MuJoCo",
            "(?:formats|paper)",
        ),  # by what is built already
        (["data", "list"], "Minari", "formats"),
        (["list", "data"], "Minari", "formats"),
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
