"""The machine: cores, device, memory; and provenance: command, versions, commit of the source tree."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("calql", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "gymnasium-robotics", "mujoco", "minari")


def provenance() -> dict[str, Any]:
    """What made this: the command, versions, platform, and the commit of the source tree (None outside a checkout)."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    command = ["calql", *sys.argv[1:]] if Path(sys.argv[0]).name in ("calql", "__main__.py") else sys.argv
    return {
        "command": shlex.join(command),
        "git_commit": git_commit(),
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def git_commit() -> str | None:
    """Commit of the source tree, `-dirty` where it has changes; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def machine() -> dict[str, Any]:
    """Processor, device, threads and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    import jax

    return {
        "cpu": models[0] if models else platform.processor(),
        "device": jax.devices()[0].device_kind,
        "threads": threads(),
        "python": platform.python_version(),
        "calql": metadata.version("calql"),
        "jax": metadata.version("jax"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
