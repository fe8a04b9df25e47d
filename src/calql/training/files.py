"""Writing that survives a full disk, a crash and a power loss: a file is there whole under its name, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from calql.types import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What is written to `path` inside. Raises RunError where the file system refuses (full, read-only, gone)."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RunError(
            f"cannot write {path}: {reason}; make room or give access, then run the same command again (a begun run: "
            "add --resume)"
        ) from error


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(path: Path, text: str) -> None:
    """Replace the content of a file at once and durably. Raises RunError where it cannot; the old content stays."""
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
    """Add text to the end of a file, all of it or nothing; durable only after `sync`. Raises RunError as `write`."""
    with writing(path), path.open("ab", buffering=0) as file:
        size, rest = file.seek(0, os.SEEK_END), text.encode()
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(size)
            raise
