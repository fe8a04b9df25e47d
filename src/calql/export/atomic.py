"""A binary file is complete under its name, or absent, whenever the writing process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from calql.types import RunError


def temporary_name(path: Path) -> Path:
    """Where the new content of a file is written; hidden, so that no pattern for the file finds it."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` durably at the end of the block; after an exception, the old one stays.

    Raises RunError if it cannot be written.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free space or grant access") from error
    finally:
        if temporary.exists():
            temporary.unlink()
