"""A run directory: config.json, eval.csv, train.csv, summary.json, checkpoints/, DONE. Any program may write one."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calql.types import InputError

EVAL_COLUMNS = (
    "phase", "env_step", "grad_step", "wall_s", "score_mean", "score_sem", "return_mean", "length_mean", "episodes",
    "q_data_mean", "mc_return_mean", "bounding_rate",
)  # fmt: skip


class RunDir:
    """Reads and writes one run directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    @property
    def done(self) -> bool:
        """Whether the run finished."""
        return (self.path / "DONE").exists()

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a new run here. Raises InputError where the folder already holds something."""
        if (self.path / "config.json").exists():
            raise InputError(f"{self.path} already holds a run; add --resume to continue it, or choose another --out")
        if self.path.exists() and (not self.path.is_dir() or list(self.path.glob("[!.]*"))):
            raise InputError(f"{self.path} exists and is not an empty folder; choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", config)  # first: a folder without it can be started anew after any crash
        self.checkpoints.mkdir()

    def read_config(self) -> dict[str, Any]:
        """The saved configuration. Raises InputError where there is none."""
        try:
            return json.loads((self.path / "config.json").read_text())
        except FileNotFoundError:
            raise InputError(f"{self.path} holds no run (no config.json); start one without --resume") from None
        except ValueError as error:
            raise InputError(f"{self.path}/config.json is damaged ({error}); start the run anew elsewhere") from None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; NaN becomes null."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")
        os.replace(temporary, self.path / name)

    def append(self, name: str, row: Mapping[str, Any], columns: Iterable[str]) -> None:
        """Append one row to a CSV file; empty cells for what was not measured.

        Columns that the file does not have yet are added at the end (and the file is rewritten once).
        """
        path = self.path / name
        header = self._header(path)
        wanted = list(dict.fromkeys([*header, *columns, *row]))
        if wanted != header:
            self._widen(path, wanted)
        with path.open("a", newline="") as file:
            csv.DictWriter(file, wanted, restval="").writerow({k: _cell(v) for k, v in row.items()})

    def read_rows(self, name: str) -> list[dict[str, str]]:
        """All rows of a CSV file (empty where there is none)."""
        path = self.path / name
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a whole CSV file atomically; the first row names the columns."""
        self._rewrite(self.path / name, list(rows[0]), rows)

    def truncate(self, name: str, rows: int) -> None:
        """Keep only the first rows: what came after the checkpoint will be done again."""
        path = self.path / name
        if path.exists():
            kept = self.read_rows(name)[:rows]
            self._rewrite(path, self._header(path), kept)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and mark the run as done."""
        self.write_json("summary.json", summary)
        (self.path / "DONE").touch()

    def _header(self, path: Path) -> list[str]:
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return next(csv.reader(file), [])

    def _widen(self, path: Path, header: list[str]) -> None:
        self._rewrite(path, header, self.read_rows(path.name))

    def _rewrite(self, path: Path, header: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, header, restval="")
        writer.writeheader()
        writer.writerows(rows)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text.getvalue())
        os.replace(temporary, path)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value


def plain(value: Any) -> Any:
    """JSON values only: tuples become lists, NaN null, infinities text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
