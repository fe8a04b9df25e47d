"""`make dist` and `make release`: build and check the source distribution and, from it, the wheel.

    python tools/release.py dist            # the files, and whether they are sound
    python tools/release.py dist --release  # and whether this commit may be released as the version that it states

Each file is built twice and must come out the same; their checksums are in SHA256SUMS. What is not sound is listed, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.metadata import Metadata
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"^## \[([^\]]+)\](?: - (\S+))?\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
"""A section of CHANGELOG.md: version, date, text."""
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def build(root: Path, out: Path) -> tuple[Path, Path]:
    """Build the source distribution of a checkout, and the wheel from that; returns both files in `out`."""
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, root], check=True)
    (source,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, wheel


def sha256(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def core_metadata(path: Path) -> bytes:
    """The METADATA of a wheel, or the PKG-INFO of a source distribution."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as held:
            return held.read(next(name for name in held.namelist() if name.endswith(".dist-info/METADATA")))
    with tarfile.open(path) as held:
        file = held.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert file is not None
        return file.read()


def faults_of_file(path: Path) -> Iterator[str]:
    """What an index would refuse, or a reader miss, in the metadata of a built file."""
    raw = core_metadata(path)
    try:
        about = Metadata.from_email(raw, validate=True)
    except ExceptionGroup as group:
        yield from (f"{path.name}: {error}" for error in group.exceptions)
        return
    if about.description_content_type != "text/markdown" or not about.description:
        yield f"{path.name}: the README is not its description"
    if not about.license_expression or "LICENSE" not in (about.license_files or []):
        yield f"{path.name}: states no licence, or does not hold it"
    for name in ("Keywords", "Classifier", "Requires-Python"):
        if not email.message_from_bytes(raw)[name]:
            yield f"{path.name}: has no {name}"


def versions(root: Path) -> dict[str, str]:
    """Where the version is stated, and what stands there."""
    package, citation = root / "src" / "calql" / "__init__.py", root / "CITATION.cff"
    found = {"pyproject.toml": tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]}
    for path, pattern in ((package, r'^__version__ = "(.+)"$'), (citation, r"^version: (\S+)$")):
        stated = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
        found[path.relative_to(root).as_posix()] = stated[1] if stated else "no version"
    return found


def faults_of_version(root: Path) -> Iterator[str]:
    """Where the version differs from that of pyproject.toml, or lacks its section in CHANGELOG.md."""
    stated = versions(root)
    version = stated["pyproject.toml"]
    if str(Version(version)) != version:
        yield f"pyproject.toml: {version} is written {Version(version)}"
    yield from (
        f"{name} states {other}, pyproject.toml {version}" for name, other in stated.items() if other != version
    )
    sections = {found[1]: found for found in SECTION.finditer((root / "CHANGELOG.md").read_text(encoding="utf-8"))}
    if version not in sections:
        yield f"CHANGELOG.md has no section for {version}: '## [{version}] - YYYY-MM-DD'"
    elif not DATE.fullmatch(sections[version][2] or ""):
        yield f"CHANGELOG.md: the section for {version} has no date: '## [{version}] - YYYY-MM-DD'"


def faults_of_release(root: Path) -> Iterator[str]:
    """Why this commit may not be released as the version that it states."""
    sections = {found[1]: found for found in SECTION.finditer((root / "CHANGELOG.md").read_text(encoding="utf-8"))}
    if "Unreleased" in sections and sections["Unreleased"][3].strip():
        yield "CHANGELOG.md has unreleased changes; give them a version, there and in pyproject.toml"
    version = versions(root)["pyproject.toml"]
    if not (root / "tests" / "training" / "releases" / version).is_dir():
        yield f"tests/training/releases/{version} is missing: a run as this release writes it"
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    if changed.stdout:
        yield "there are changes without a commit"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--release", action="store_true", help="also refuse what is no release")
    arguments = parser.parse_args()
    faults = [*faults_of_version(ROOT), *(faults_of_release(ROOT) if arguments.release else ())]
    if not faults:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for old in (*arguments.out.glob("*.whl"), *arguments.out.glob("*.tar.gz")):
            old.unlink()
        made = build(ROOT, arguments.out)
        with tempfile.TemporaryDirectory() as folder:
            again = {path.name: sha256(path) for path in build(ROOT, Path(folder))}
        faults += [
            f"{path.name} differs when it is built again" for path in made if again.get(path.name) != sha256(path)
        ]
        faults += [fault for path in made for fault in faults_of_file(path)]
        sums = "".join(f"{sha256(path)}  {path.name}\n" for path in made)
        (arguments.out / "SHA256SUMS").write_text(sums)
        print(sums, end="")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
