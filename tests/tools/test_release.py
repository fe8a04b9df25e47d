"""What is released: the files that are built, what they hold, and what may not be released."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from installed import ROOT, build

sys.path.insert(0, str(ROOT / "tools"))
import release

LEFT_OUT = ("results/**/*.png",)
"""Tracked files that are not in the source distribution."""
STATED = ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", "src/calql/__init__.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def unpacked(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(source) as held:
        held.extractall(folder, filter="data")
    return folder / source.name.removesuffix(".tar.gz")


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_source_distribution_is_the_repository_without_the_figures_of_the_results(unpacked):
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True)  # fmt: skip
    if listed.returncode:
        pytest.skip("this tree is no checkout, so nothing tells what belongs to it")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    left_out = {path.relative_to(ROOT).as_posix() for pattern in LEFT_OUT for path in ROOT.glob(pattern)}
    made = {"PKG-INFO", "src/calql/commit.txt"}
    optional = {".pre-commit-config.yaml"}
    assert files_below(unpacked) - made == tracked - left_out - optional
    assert sum(path.stat().st_size for path in unpacked.rglob("*") if path.is_file()) < 20e6


def test_a_packager_finds_what_is_needed(unpacked):
    for name in ("LICENSE", "CHANGELOG.md", "CITATION.cff", "README.md", "Makefile", "tests/conftest.py"):
        assert (unpacked / name).read_text() == (ROOT / name).read_text()


def test_the_wheel_of_the_source_distribution_is_that_of_the_checkout(unpacked, tmp_path):
    wheels = [build("wheel", tmp_path / name, root) for name, root in (("one", ROOT), ("two", unpacked))]
    one, two = ({name: file.read(name) for name in file.namelist()} for file in map(zipfile.ZipFile, wheels))
    records = [sorted(files.pop(name).splitlines()) for files in (one, two) for name in [*files] if "RECORD" in name]
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert records[0] == records[1]


def test_the_metadata_of_both_are_sound(source, tmp_path):
    assert [*release.faults_of_file(source), *release.faults_of_file(build("wheel", tmp_path))] == []


def test_wrong_metadata_are_found(tmp_path):
    path = tmp_path / "wrong-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as held:
        held.writestr("wrong-1.dist-info/METADATA", "Metadata-Version: 2.4\nName: wrong\nVersion: one\n")
    assert "'one' is invalid for 'version'" in " ".join(release.faults_of_file(path))
    with zipfile.ZipFile(path, "w") as held:
        held.writestr("wrong-1.dist-info/METADATA", "Metadata-Version: 2.4\nName: wrong\nVersion: 1\n")
    said = " ".join(release.faults_of_file(path))
    for fault in ("README is not its description", "states no licence", "no Keywords", "no Classifier"):
        assert fault in said


@pytest.fixture
def tree(tmp_path) -> Path:
    """A repository with what states the version, all of it released."""
    for name in STATED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n- All.\n")
    (tmp_path / "tests/training/releases/0.1.0").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("*\n")
    return tmp_path


def test_this_tree_states_one_version_everywhere():
    assert list(release.faults_of_version(ROOT)) == []


def test_what_is_released_may_be_released(tree):
    assert [*release.faults_of_version(tree), *release.faults_of_release(tree)] == []


@pytest.mark.parametrize(("file", "old", "new", "fault"), [
    ("CITATION.cff", "version: 0.1.0", "version: 0.0.9", "CITATION.cff states 0.0.9"),
    ("CITATION.cff", "version: 0.1.0", "", "CITATION.cff states no version"),
    ("src/calql/__init__.py", '"0.1.0"', '"0.1.1"', "src/calql/__init__.py states 0.1.1"),
    ("CHANGELOG.md", "[0.1.0]", "[0.0.9]", "no section for 0.1.0"),
    ("CHANGELOG.md", " - 2026-01-31", "", "section for 0.1.0 has no date"),
    ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- More.\n", "has unreleased changes"),
    ("pyproject.toml", 'version = "0.1.0"', 'version = "0.1.0-dev"', "0.1.0-dev is written 0.1.0.dev0"),
    (".git/info/exclude", "*", "", "changes without a commit"),
])  # fmt: skip
def test_what_may_not_be_released_is_named(tree, file, old, new, fault):
    path = tree / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert fault in " ".join([*release.faults_of_version(tree), *release.faults_of_release(tree)])


def test_a_version_that_no_run_was_kept_of_is_no_release(tree):
    (tree / "tests/training/releases/0.1.0").rmdir()
    assert list(release.faults_of_release(tree)) == [
        "tests/training/releases/0.1.0 is missing: a run as this release writes it"
    ]
