"""A run directory: config.json, eval.csv, train.csv, summary.json, checkpoints/, DONE. Other programs may write one."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from calql import files
from calql.types import InputError


class RunDir:
    """Reads and writes one run directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @property
    def done(self) -> bool:
        """Whether the run finished."""
        return (self.path / "DONE").exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer of this run directory, on every machine that sees it, until the process ends.

        Incomplete files of an earlier writer are removed first. On a file system without locks there is only a warning.
        Raises InputError if another process writes to the directory.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} exists and is not an empty folder; choose another --out")
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made ({error.strerror}); choose another --out") from error
        path = self.path / ".lock"
        with _locked(path) as file:
            try:
                with files.writing(path):
                    file.truncate(0)
                    print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
                    self._tidy()
                yield
            finally:
                path.unlink(missing_ok=True)  # still held: `_locked` notices a file that was removed
                with suppress(OSError):  # a run was begun in it
                    for folder in made:
                        folder.rmdir()

    def _tidy(self) -> None:
        for path in self.path.glob(".*.tmp"):
            path.unlink()
        for path in (*self.checkpoints.glob(".writing-*"), *self.checkpoints.glob(".copying-*")):
            shutil.rmtree(path)

    def refuse_what_is_there(self) -> None:
        """Raise InputError if no run can start in the folder: it is not empty, or it cannot be written."""
        if (self.path / "config.json").exists():
            raise InputError(f"{self.path} already holds a run; add --resume to continue it, or choose another --out")
        if self.path.exists() and (not self.path.is_dir() or list(self.path.glob("[!.]*"))):
            raise InputError(f"{self.path} exists and is not an empty folder; choose another --out")
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            what = "may not be written" if there.is_dir() else "is a file"
            raise InputError(f"{self.path} cannot be made: {there} {what}; choose another --out")

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a new run in this directory. Raises InputError if it is not empty."""
        self.refuse_what_is_there()
        with files.writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", config)  # first: after a crash, a folder without it counts as empty
        with files.writing(self.checkpoints):
            self.checkpoints.mkdir()

    def reopen(self) -> None:
        """Remove the mark that the run is done."""
        (self.path / "DONE").unlink(missing_ok=True)

    def read_config(self) -> dict[str, Any]:
        """The saved configuration. Raises InputError if there is none or it is damaged."""
        try:
            return json.loads((self.path / "config.json").read_text())
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no run (no config.json); name the folder of one") from None
        except ValueError as error:
            raise InputError(f"{self.path}/config.json is damaged ({error}); start the run in another folder") from None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically and durably; NaN becomes null. Raises RunError if it cannot be written."""
        files.write(self.path / name, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")

    def append(self, name: str, row: Mapping[str, Any], columns: Iterable[str]) -> None:
        """Append a row to a CSV file, with empty cells for what was not measured; new columns are added at the end.

        The row is on disk only after `sync`. Raises RunError if it cannot be written.
        """
        path = self.path / name
        header = self._header(path)
        wanted = list(dict.fromkeys([*header, *columns, *row]))
        if wanted != header:
            self._rewrite(path, wanted, self.read_rows(name))
        text = io.StringIO()
        csv.DictWriter(text, wanted).writerow({k: plain(v) for k, v in row.items()})  # an empty cell for None
        files.append(path, text.getvalue())

    def sync(self) -> None:
        """Wait until all rows are on disk, before a checkpoint that counts them is written."""
        for path in (*self.path.glob("*.csv"), self.path):
            with files.writing(path):
                files.sync(path)

    def read_rows(self, name: str) -> list[dict[str, str]]:
        """All rows of a CSV file; no rows if there is no file."""
        path = self.path / name
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a whole CSV file atomically; the columns are the keys of the first row."""
        self._rewrite(self.path / name, list(rows[0]), rows)

    def truncate(self, name: str, rows: int) -> int:
        """Keep only the first `rows` rows; returns how many of them are missing (the file was damaged or edited)."""
        path = self.path / name
        kept = self.read_rows(name)[:rows]
        if path.exists():
            self._rewrite(path, self._header(path), kept)
        return rows - len(kept)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and mark the run as done, once all rows are on disk."""
        self.sync()
        self.write_json("summary.json", summary)
        files.write(self.path / "DONE", "")

    def _header(self, path: Path) -> list[str]:
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return next(csv.reader(file), [])

    def _rewrite(self, path: Path, header: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, header)
        writer.writeheader()
        writer.writerows(rows)
        files.write(path, text.getvalue())


def below(path: Path, name: str) -> Iterator[Path]:
    """The outermost folders that contain a file of this name."""
    if (path / name).is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from below(child, name)


@contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """The lock file, open and locked. Raises InputError if another process holds the lock."""
    while True:
        with files.writing(path):
            file = path.open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise InputError(f"{path.parent} is being written by {who}; wait for it or stop it") from None
            except OSError as error:
                said = f"no locks on this file system ({error.strerror}); only one process may write here"
                warnings.warn(f"{path.parent}: {said}", stacklevel=4)
            if not _is_named(file, path):  # its owner removed it between our `open` and our lock
                continue
            yield file
            return


def _is_named(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def plain(value: Any) -> Any:
    """The value as JSON: tuples become lists, NaN null, infinities text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
