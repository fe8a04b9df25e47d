"""The wheel, installed by pip with all that it requires into new environments, without extras and with all of them.

Not part of the tests by default, as it fetches packages and takes minutes: `make release-test`. Every version of Python
in the classifiers is tested with the first interpreter on PATH that runs, and skipped with the reason if none does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from installed import ROOT, build, run, train_from_a_log

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [found[1] for line in PROJECT["classifiers"] if (found := re.fullmatch(r".*:: Python :: (\d\.\d+)", line))]
ASK = "import ensurepip, sys, venv; print(*sys.version_info[:3], sep='.')"


def interpreter(version: str) -> tuple[Path, str]:
    """Path and full version of the first interpreter of that version on PATH that runs. Skips the test if none does."""
    told = f"python{version} is not on PATH"
    for folder in [Path(sys.executable).parent, *map(Path, os.environ["PATH"].split(os.pathsep))]:
        if (path := folder / f"python{version}").is_file():
            asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout.startswith(f"{version}."):
                return path, asked.stdout.strip()
            told = f"{path} does not run: {(asked.stderr.strip() or asked.stdout).partition(chr(10))[0]}"
    pytest.skip(told)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    source = build("sdist", folder)
    run("tar", "xf", source, cwd=folder)
    return build("wheel", folder, folder / source.name.removesuffix(".tar.gz"))


def extras_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as held:
        name = next(name for name in held.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(held.read(name)).get_all("Provides-Extra")


@pytest.mark.parametrize("extras", ["core", "all"])
@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_and_trains(wheel, version, extras, tmp_path, capsys):
    path, full = interpreter(version)
    run(path, "-m", "venv", "new", cwd=tmp_path)
    python, calql = tmp_path / "new" / "bin" / "python", tmp_path / "new" / "bin" / "calql"
    names = extras_of(wheel) if extras == "all" else []
    wanted = f"{wheel}[{','.join(names)}]" if names else wheel
    begun = time.monotonic()
    run(python, "-m", "pip", "install", "--quiet", "--no-compile", wanted, cwd=tmp_path, seconds=1800)
    took = time.monotonic() - begun
    run(python, "-m", "pip", "check", cwd=tmp_path)
    size = run("du", "-sm", "new", cwd=tmp_path).split()[0]
    with capsys.disabled():
        print(f"\n{path} ({full}), {extras}: installed in {took:.0f} s, {size} MB", flush=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    assert run(calql, "--version", cwd=outside).startswith(f"calql {PROJECT['version']}")
    assert "cal-ql" in run(calql, "list", cwd=outside)
    checked = run(calql, "doctor", cwd=outside)
    for name in names:
        assert re.search(rf"\b{name}\b", checked), f"calql doctor knows nothing of {name}"
    train_from_a_log(calql, python, outside)
    if names:
        run(
            calql, "demo", "--scale", "smoke", "--out", "demo", cwd=outside, MINARI_DATASETS_PATH=str(tmp_path / "data")
        )
        assert (outside / "demo" / "report" / "report.html").exists()
        run(calql, "export", "run", "--out", "policy.onnx", cwd=outside)
