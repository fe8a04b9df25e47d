"""Writing that survives a full disk, a crash and a power loss: a file is complete under its name, or absent."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from calql.types import RunError


@contextmanager
def writing(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Context of writing to `path`. Raises RunError if the file system refuses (full, read-only, gone), and for
    exceptions of the types `also`, by which a library tells of it."""
    try:
        yield
    except (OSError, *also) as error:
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


def reserve(beside: Path, size: int) -> None:
    """Raise OSError unless the file system would let the file `beside` (it need not exist) grow by `size` bytes now.

    For libraries that do not survive a failed write, as HDF5, which ends in a crash of the process. The space is taken
    for a file that is deleted at once: quotas, limits of this process and full disks are found alike; on macOS, which
    cannot take space without writing, only a full disk is.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        if shutil.disk_usage(beside.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    with tempfile.TemporaryFile(dir=beside.parent) as spare:
        os.posix_fallocate(spare.fileno(), beside.stat().st_size if beside.exists() else 0, max(size, 1))


def temporary_name(path: Path) -> Path:
    """Where the new content of a file is written; hidden, so that no pattern for the file finds it."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` durably at the end of the block; after an exception, the old one stays.

    The folder is made if it is missing. Raises RunError if the file cannot be written.
    """
    temporary = temporary_name(path)
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    """Replace the content of a file as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


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
