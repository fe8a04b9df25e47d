"""`calql doctor`: whether this machine can train, and if not, how to fix it."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calql.cli.hints import next_step
from calql.machine import cache, from_here, has_accelerator, threads, visible_gpus

STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red", "": "dim"}
RENDER = """
from calql.envs.headless import headless_gl
headless_gl()
import mujoco
with mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16) as renderer:
    renderer.render()
"""


class Row(NamedTuple):
    """One line of the table: ok, warn (works with a limit), broken (required), or empty (an optional extra, absent)."""

    what: str
    status: str
    found: str
    fix: str = ""


def doctor() -> int:
    """Print what this machine offers and how to fix what is missing; exit code 1 if something required is broken.

    Example: calql doctor
    """
    rows: list[Row] = []
    for what, check in CHECKS.items():
        try:
            rows += check()
        except Exception as error:
            said = str(error).partition("\n")[0]
            rows.append(Row(what, "broken", f"{type(error).__name__}: {said}", "reinstall calql and its packages"))
    table, console = Table("", "status", "found"), Console()
    rows = list(dict.fromkeys(rows))  # two extras may need the same package
    for row in rows:
        table.add_row(row.what, f"[{STYLES[row.status]}]{row.status or '–'}[/]", escape(row.found))
    console.print(table)
    for row in rows:
        if row.fix:  # not in the table, whose line breaks would spoil a command to be copied
            console.print(f"{row.what}: {row.fix}", soft_wrap=True, markup=False, highlight=False)
    broken = any(row.status == "broken" for row in rows)
    next_step("doctor" if broken else "demo")
    return int(broken)


def _packages() -> Iterator[Row]:
    """The versions of Python and of the packages that calql's metadata require."""
    yield Row("Python", "ok", platform.python_version())  # an older one than the metadata allow cannot import this
    yield Row("calql", "ok", metadata.version("calql"))
    yield _package(Requirement("jaxlib"))
    for need in map(Requirement, metadata.requires("calql") or []):
        extra = "".join(re.findall(r'extra == "([\w-]+)"', str(need.marker)))
        yield _package(need, extra)
        for further in _asked_by_extras(need):  # imageio[ffmpeg] requires imageio-ffmpeg
            yield _package(further, extra)


def _extras() -> Iterator[Row]:
    """Which extras are complete; how to install each package of the others is said in its own row."""
    complete: dict[str, bool] = {}
    for need in map(Requirement, metadata.requires("calql") or []):
        for extra in re.findall(r'extra == "([\w-]+)"', str(need.marker)):
            there = all(_package(package, extra).status == "ok" for package in (need, *_asked_by_extras(need)))
            complete[extra] = complete.get(extra, True) and there
    here, absent = ([name for name, there in complete.items() if there is wanted] for wanted in (True, False))
    yield Row(
        "extras", "ok", f"{', '.join(here) or 'none'}" + (f"; not installed: {', '.join(absent)}" if absent else "")
    )
    if found := [name for name in ("sbatch", "srun") if shutil.which(name)]:
        fix = "" if "slurm" in here else "for calql sweep --engine slurm, install the packages for slurm"
        yield Row("SLURM", "ok" if "slurm" in here else "warn", f"{', '.join(found)} on the PATH", fix)


def _asked_by_extras(need: Requirement) -> Iterator[Requirement]:
    try:
        asked = map(Requirement, metadata.requires(need.name) or [])
    except metadata.PackageNotFoundError:
        return
    for further in asked:
        when = further.marker
        if when and not when.evaluate({"extra": ""}) and any(when.evaluate({"extra": e}) for e in need.extras):
            yield further


def _package(need: Requirement, extra: str = "") -> Row:
    wanted = need.name + (f"[{','.join(sorted(need.extras))}]" if need.extras else "") + str(need.specifier)
    try:
        found = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Row(need.name, "" if extra else "broken", f"absent (for {extra})" if extra else "absent", _pip(wanted))
    fits = need.specifier.contains(found, prereleases=True)
    return Row(need.name, "ok" if fits else "warn", found, "" if fits else _pip(wanted))


def _pip(requirement: str) -> str:
    """The command that installs a requirement into this environment, as it must be typed in this shell."""
    python = from_here(sys.executable)
    if importlib.util.find_spec("pip"):
        return shlex.join([python, "-m", "pip", "install", requirement])
    return shlex.join(["uv", "pip", "install", "--python", python, requirement])


def _accelerator() -> Iterator[Row]:
    yield Row("CPU cores", "ok", f"{threads()} (OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')})")
    import jax

    asked = os.environ.get("JAX_PLATFORMS", "")
    try:
        devices, backend = ", ".join(map(str, jax.devices())), jax.default_backend()
    except Exception as error:  # a driver may raise anything
        said = str(error).partition("\n")[0] or type(error).__name__
        fix = f"unset JAX_PLATFORMS, or install JAX for {asked}" if asked else ""
        yield Row("JAX devices", "broken", f"JAX_PLATFORMS={asked}: {said}", fix)
        return
    gpus = visible_gpus()
    idle = backend == "cpu" and bool(gpus)
    fix = "unset JAX_PLATFORMS" if asked else _pip("jax[cuda12]")
    yield Row("JAX devices", "warn" if idle else "ok", f"{devices} ({backend})", fix if idle else "")
    for gpu in gpus:
        yield Row("GPU", "warn" if idle else "ok", gpu.partition(" (UUID")[0] + (", not used" if idle else ""))
    at_once = "one on the GPU (--workers for more)" if has_accelerator() else f"{threads()}, one per core"
    yield Row("parallel runs", "ok", at_once)


def _gl() -> Iterator[Row]:
    if importlib.util.find_spec("mujoco") is None:
        return  # nothing can be rendered; `_packages` tells which extra installs it
    found = "".join(f"{name} {os.environ.get(name, 'unset')}; " for name in ("MUJOCO_GL", "DISPLAY"))
    found += f"libraries {', '.join(name for name in ('EGL', 'OSMesa') if find_library(name)) or 'none'}"
    try:  # in a process of its own: a faulty driver may crash it
        probe = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, timeout=120)
        fault = (probe.stderr.strip().splitlines() or ["crashed"])[-1] if probe.returncode else ""
    except subprocess.TimeoutExpired:
        fault = "no image within two minutes"
    fix = "for images and video: apt install libegl1 libgl1, MUJOCO_GL=egl; or libosmesa6, MUJOCO_GL=osmesa"
    yield Row("rendering", "warn" if fault else "ok", f"{found}; {fault}" if fault else found, fix if fault else "")


def _data() -> Iterator[Row]:
    from calql.data.readers.minari import root

    folder = root()
    there = _existing(folder)
    sets = len([*folder.rglob("metadata.json")])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    fit = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    found = f"{folder}: " + (f"{sets} sets, {size:.2f} GB" if folder.exists() else "will be created when needed")
    yield Row("data sets", "ok" if fit else "warn", found, "" if fit else "not writable: set MINARI_DATASETS_PATH")
    yield _free("disk for data", folder, "set MINARI_DATASETS_PATH")


def _runs() -> Iterator[Row]:
    yield _free("disk for runs", Path("runs"), "choose another --out")
    yield _free("disk for compiled programs", cache(), "set XDG_CACHE_HOME")


def _free(what: str, folder: Path, elsewhere: str) -> Row:
    free = shutil.disk_usage(_existing(folder)).free / 1e9
    fix = "" if free > 2 else f"at least 2 GB are recommended: free some space, or {elsewhere}"
    return Row(what, "ok" if free > 2 else "warn", f"{free:.1f} GB free for {folder}", fix)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


CHECKS = {
    "packages": _packages,
    "extras": _extras,
    "JAX devices": _accelerator,
    "rendering": _gl,
    "data sets": _data,
    "runs": _runs,
}
