"""Where a file came from: the command, the versions, the machine and the commit of the source tree."""

from __future__ import annotations

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
