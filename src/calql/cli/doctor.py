"""`calql doctor`: is this machine fit to train on, and if not, what mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red", "": "dim"}
RENDER = """
from calql.envs.headless import headless_gl
headless_gl()
import mujoco
with mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16) as renderer:
    renderer.render()
"""


class Row(NamedTuple):
    """One line of the table: ok, warn (works, with a limit), broken (required), or empty (an extra that is absent)."""

    what: str
    status: str
    found: str
    mend: str = ""


def doctor() -> int:
    """Print what this machine offers and what mends what is missing; exit code 1 if something required is broken.

    Example: calql doctor
    """
    rows: list[Row] = []
    for what, check in CHECKS.items():
        try:
            rows += check()
        except Exception as error:
            rows.append(Row(what, "broken", f"{type(error).__name__}: {error}", "install anew: make clean venv"))
    table = Table("", "status", "found", "to mend")
    for row in rows:
        status = f"[{STYLES[row.status]}]{row.status or '–'}[/]"
        table.add_row(row.what, status, escape(row.found), escape(row.mend))
    Console().print(table)
    return int(any(row.status == "broken" for row in rows))


def _python() -> Iterator[Row]:
    old = sys.version_info < (3, 11)
    yield Row("Python", "broken" if old else "ok", platform.python_version(), "Python 3.11 or newer" if old else "")


def _packages() -> Iterator[Row]:
    """What calql's own metadata ask for, against what is there."""
    yield Row("calql", "ok", metadata.version("calql"))
    for need in map(Requirement, ["jaxlib", *(metadata.requires("calql") or [])]):
        extra = re.findall(r'extra == "([\w-]+)"', str(need.marker))
        try:
            found = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            mend = f"pip install 'calql[{extra[0]}]'" if extra else f"pip install '{need.name}{need.specifier}'"
            yield Row(need.name, "" if extra else "broken", "absent", mend)
        else:
            fits = need.specifier.contains(found, prereleases=True)
            mend = "" if fits else f"pip install '{need.name}{need.specifier}'"
            yield Row(need.name, "ok" if fits else "warn", found, mend)


def _accelerator() -> Iterator[Row]:
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Row("CPU threads", "ok", f"{threads} (OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'unset')})")
    import jax

    devices, backend = ", ".join(map(str, jax.devices())), jax.default_backend()
    idle = backend == "cpu" and shutil.which("nvidia-smi") is not None
    mend = "pip install 'jax[cuda12]', and leave JAX_PLATFORMS unset" if idle else ""
    yield Row("JAX devices", "warn" if idle else "ok", f"{devices} ({backend})", mend)


def _gl() -> Iterator[Row]:
    found = "".join(f"{name} {os.environ.get(name, 'unset')}; " for name in ("MUJOCO_GL", "DISPLAY"))
    found += f"libraries {', '.join(name for name in ('EGL', 'OSMesa') if find_library(name)) or 'none'}"
    try:  # in a process of its own: a faulty driver may crash it
        probe = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, timeout=120)
        fault = (probe.stderr.strip().splitlines() or ["crashed"])[-1] if probe.returncode else ""
    except subprocess.TimeoutExpired:
        fault = "no picture within two minutes"
    mend = "for pictures and video: apt install libegl1 libgl1, MUJOCO_GL=egl; or libosmesa6, MUJOCO_GL=osmesa"
    yield Row("rendering", "warn" if fault else "ok", f"{found}; {fault}" if fault else found, mend if fault else "")


def _data() -> Iterator[Row]:
    from calql.data.readers.minari import root

    folder = root()
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    sets = len([*folder.rglob("metadata.json")])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    fit = os.access(there, os.W_OK | os.X_OK) and there.is_dir()
    found = f"{folder}: " + (f"{sets} sets, {size:.2f} GB" if folder.exists() else "will be made when it is needed")
    yield Row("data sets", "ok" if fit else "warn", found, "" if fit else "not writable: set MINARI_DATASETS_PATH")
    free = shutil.disk_usage(there).free / 1e9
    yield Row("free disk", "ok" if free > 2 else "warn", f"{free:.1f} GB", "" if free > 2 else "2 GB are wanted")


CHECKS = {"Python": _python, "packages": _packages, "JAX devices": _accelerator, "rendering": _gl, "data sets": _data}
