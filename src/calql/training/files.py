"""Writing that survives a full disk, a crash and a power loss: a file is complete under its name, or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from calql.types import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context of writing to `path`. Raises RunError if the file system refuses (full, read-only, gone)."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RunError(
            f"cannot write {path}: {reason}; free space or grant access, then run the same command again (a begun run: "
            "add --resume)"
        ) from error


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, text: str) -> None:
    """Replace the content of a file atomically and durably. Raises RunError on failure; the old content then stays."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def append(path: Path, text: str) -> None:
    """Append text to a file, all of it or nothing; durable only after `sync`. Raises RunError on failure."""
    with writing(path), path.open("ab", buffering=0) as file:
        size, rest = file.seek(0, os.SEEK_END), text.encode()
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise
