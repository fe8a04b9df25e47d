"""`csv:FILE.csv`, or a folder of them: logs with a header line and one row per step.

The names of the columns say what they are (`calql.data.readers.columns`). Episodes are numbered or named in a column
(`episode`), or end at `terminated` and `truncated`; in a folder every file is an episode, unless it says otherwise.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.columns import action_names, arrays_of, group_columns, own_names
from calql.data.readers.files import existing_files, reason, split_options
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.types import InputError

WORDS = {"true": 1.0, "false": 0.0}
DELIMITERS = ",;\t"


def read_csv(path: str | os.PathLike) -> Episodes:
    """The episodes of a file, or of all files of a folder in the order of their names.

    Args:
        path: file or folder; `#success=last` after it says that every episode ends in success.

    Raises:
        InputError: there is no such file, a row has another number of cells, or a column that is used holds text.
    """
    uri = f"csv:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str)
    files = existing_files(uri, plain, "csv")
    tables = [_table(uri if len(files) == 1 else f"{uri}: {file.name}", file) for file in files]
    header = list(tables[0])
    for file, table in zip(files, tables, strict=True):
        if table.keys() != tables[0].keys():
            other = sorted(table.keys() ^ tables[0].keys())[0]
            raise InputError(f"{uri}: '{other}' is a column of only one of {files[0].name} and {file.name}; add it")
    leaves, unused = group_columns(uri, header)
    lengths = [len(next(iter(table.values()), [])) for table in tables]

    def read(name: str) -> np.ndarray:
        cells = [cell for table in tables for cell in table[name]]
        return np.array(cells) if name in names else _numbers(uri, name, cells)

    names = {column.name for column in leaves.get("episodes", [])}  # may be text
    arrays, notes = arrays_of(uri, leaves, read)
    if len(files) > 1:
        of_file = np.repeat(np.arange(len(files)), lengths)
        inner = arrays.get("episodes", np.zeros(sum(lengths), int))
        arrays["episodes"] = np.array([f"{file} of file {number}" for number, file in zip(of_file, inner, strict=True)])
        notes += (f"{len(files)} files were read, {files[0].name} to {files[-1].name}: no episode goes on in the next",)
    unused = [name or "(a column without name)" for name in unused]
    won, stated = ends_in_success(uri, options), {"action_names": action_names(leaves)}
    return episodes_from_rows(
        arrays, uri, unused=unused, names=own_names(leaves), told=notes, last_succeeds=won, stated=stated
    )


def _table(where: str, file: Path) -> dict[str, list[str]]:
    """{column: cells as text} of one file."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(rows, [])]
            if twice := [name for name in header if header.count(name) > 1]:
                raise InputError(f"{where}: the column '{twice[0]}' occurs twice; rename or delete one")
            columns: list[list[str]] = [[] for _ in header]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{where}: line {rows.line_num} has {len(row)} cells, the header {len(header)}; correct it"
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{where}: not a CSV file in UTF-8 ({reason(error)}); export it again") from error
    if not header:
        raise InputError(f"{where}: it is empty; the first line must name the columns")
    return dict(zip(header, columns, strict=True))


def _numbers(uri: str, name: str, cells: list[str]) -> np.ndarray:
    """[N] numbers; True and False are 1 and 0, an empty cell is NaN."""
    try:
        return np.array(cells, dtype=float) if cells else np.zeros(0)
    except ValueError:
        values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        text = cell.strip().lower()
        try:
            values[row] = WORDS[text] if text in WORDS else float(text) if text else np.nan
        except ValueError:
            hint = "; write decimal points" if cell.count(",") == 1 else ""
            raise InputError(
                f"{uri}: '{name}' holds '{cell[:40]}' in row {row} (counted from 0), which is no number{hint}; correct "
                "it, or rename the column if it is no data"
            ) from None
    return values
