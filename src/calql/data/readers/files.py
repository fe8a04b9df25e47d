"""What every reader of files does first: find the file, and take the options that follow it."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from calql.types import InputError


class NoSuchFile(InputError):
    """There is no file or folder of that name."""


OPTION = re.compile(r"(.*)#([a-z_]+)=([^#/]*)", re.DOTALL)


def existing_file(uri: str, path: str | os.PathLike) -> Path:
    """The file at a path, where ~ is the home folder. Raises InputError if there is none, or if it cannot be read."""
    full = Path(os.path.expanduser(path))
    kind = _kind(uri, full)
    if kind is None:
        raise NoSuchFile(f"{uri}: there is no such file; check the path")
    if stat.S_ISDIR(kind):
        raise InputError(f"{uri}: this is a folder; give one of its files")
    if not stat.S_ISREG(kind):
        raise InputError(f"{uri}: this is a device, pipe or socket; give a file")
    _refuse_unreadable(uri, full, os.R_OK)
    return full


def existing_folder(uri: str, path: str | os.PathLike) -> Path | None:
    """The folder at a path, where ~ is the home folder; None if there is none. InputError if it cannot be read."""
    full = Path(os.path.expanduser(path))
    kind = _kind(uri, full)
    if kind is None or not stat.S_ISDIR(kind):
        return None
    _refuse_unreadable(uri, full, os.R_OK | os.X_OK)
    return full


def _kind(uri: str, full: Path) -> int | None:
    """The mode of what is at a path, with its kind; None if there is nothing. InputError if one may not look."""
    try:
        return full.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise InputError(f"{uri}: {error.strerror}; check the path and its permissions") from error


def _refuse_unreadable(uri: str, full: Path, access: int) -> None:
    if not os.access(full, access):
        raise InputError(f"{uri}: {full} may not be read; grant access (chmod), or give a copy that may")


def split_options(uri: str, path: str | os.PathLike, **kinds: type) -> tuple[str, dict[str, str | int]]:
    """`FILE#name=value#name=value` as the path and the options.

    Args:
        uri: what the user gave, for messages.
        path: the path with options, or without. A `#` that no option follows belongs to the path.
        **kinds: option → str or int.

    Raises:
        InputError: an option is unknown, given twice, or has no such value.
    """
    plain, options = os.fspath(path), {}
    while (found := OPTION.fullmatch(plain)) is not None:
        plain, name, value = found.groups()
        if name not in kinds:
            raise InputError(f"{uri}: there is no option '{name}'; use {', '.join(kinds)}")
        if name in options:
            raise InputError(f"{uri}: {name} is given twice; leave one out")
        if kinds[name] is int and not (re.fullmatch("[0-9]{1,5}", value) and int(value)):
            raise InputError(f"{uri}: {name} must be a positive whole number below 100000, not '{value}'")
        options[name] = kinds[name](value)
    return plain, options


def natural(name: str) -> list:
    """Sort key that puts demo_2 before demo_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def reason(error: BaseException) -> str:
    """An exception of another library as one short phrase."""
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}"[:200].rstrip(" :.")


def existing_files(uri: str, path: str | os.PathLike, suffix: str) -> list[Path]:
    """The file at a path, or all files with the suffix in the folder there, in natural order of their names.

    Raises InputError if there are none, or if one cannot be read.
    """
    full = existing_folder(uri, path)
    if full is None:
        return [existing_file(uri, path)]
    files = sorted((file for file in full.glob(f"*.{suffix}") if file.is_file()), key=lambda file: natural(file.name))
    if not files:
        raise InputError(f"{uri}: the folder holds no .{suffix} file; check the path")
    for file in files:
        _refuse_unreadable(uri, file, os.R_OK)
    return files
