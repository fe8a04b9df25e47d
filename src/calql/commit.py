"""The commit of this code. hatch_build.py loads this file before calql or what it requires is installed, so it imports
the standard library alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

COMMIT = Path(__file__).with_name("commit.txt")
"""File of a built package that holds the commit it was built from (written by hatch_build.py)."""


def git_commit() -> str | None:
    """Commit of this code: HEAD of the repository that tracks this file, with `-dirty` if the repository has changes;
    else the commit that the package was built from; None if neither is known."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return COMMIT.read_text().strip() if COMMIT.exists() else None
