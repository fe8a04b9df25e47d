"""Runs as they are stored: a directory per run, or many in one *run table*. Nothing is validated yet.

A run table is a folder with `runs.json`, a list of {"run": name, "done": bool, "config": …}, and `evaluations.csv` and,
if runs have them, `training.csv` and `slices.csv`: the rows of all runs' eval.csv, train.csv and slice.csv with a first
column `run`. Every report writes a run table next to its tables, so it contains its raw rows. In runs.json,
`"like": name` means that the configuration is that of an earlier run with the objects under "config" merged into it and
the paths under "without" left out.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calql.training.run_dir import below
from calql.types import InputError

RUNS, EVALUATIONS, TRAINING, SLICES = "runs.json", "evaluations.csv", "training.csv", "slices.csv"
Cells = dict[str | None, Any]
"""Column → text, as csv.DictReader gives them."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a CSV file."""

    path: Path
    columns: tuple[str, ...]
    """() if there is no file, or nothing in it."""
    rows: tuple[tuple[int, Cells], ...] = ()
    """(line number, cells)."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """One run."""

    path: Path
    """Its directory, or the path that it would have below the run table."""
    name: str
    """The path below the folder that it was found in, e.g. TASK/METHOD/seed-0."""
    config: Any
    config_path: Path
    done: bool
    """The run finished."""
    evaluations: Rows
    slice: Rows | None
    """None if the run has not compared Q with rollouts."""
    training: Rows | None = None
    """None if there is no log of the training."""

    def same(self, other: Stored) -> bool:
        """Whether both are copies of one run; older copies may lack the log of the training."""

        def cells(rows: Rows | None) -> list[Cells] | None:
            """Rows without empty cells: rows of a table have the columns of all of its runs."""
            return None if rows is None else [{k: v for k, v in line.items() if v} for _, line in rows.rows]

        mine, theirs = ((s.config, s.done, cells(s.evaluations), cells(s.slice)) for s in (self, other))
        return mine == theirs


def find_runs(path: Path, only: Collection[str] | None = None) -> list[Stored]:
    """Every run in `path` or below, or only those named: its run directories or, if it has none, the runs of
    its run tables.

    So a report that was written into a folder of runs does not count them twice. Only the outermost count: nothing is
    searched inside a run directory or below a run table. Raises InputError for files that cannot be read, and for
    names that do not exist.
    """
    directories = list(below(path, "config.json")) if only is None else [path / name for name in only]
    directories = [folder for folder in directories if (folder / "config.json").is_file()]
    found = [_read_directory(folder, folder.relative_to(path).as_posix()) for folder in directories]
    for folder in [] if found else below(path, RUNS):
        above = folder.relative_to(path)
        found += [dataclasses.replace(run, name=(above / run.name).as_posix()) for run in _read_table(folder)]
    if only is None:
        return found
    by_name = {run.name: run for run in found}
    for name in only:
        if name not in by_name:
            raise InputError(f"{path / name}: no such run; run the sweep of this plan to its end, or correct the plan")
    return [by_name[name] for name in only]


def _read_directory(folder: Path, name: str) -> Stored:
    files = ("config.json", "eval.csv", "slice.csv", "train.csv")
    config, evaluations, slices, log = (folder / name for name in files)
    done = (folder / "DONE").exists()
    rows = _read_csv(evaluations, done) if done or evaluations.exists() else Rows(evaluations, ())
    curves = _read_csv(slices) if slices.exists() else None
    training = _read_csv(log, done) if log.exists() else None
    name = name if name != "." else folder.name
    return Stored(folder, name, _read_json(config), config, done, rows, curves, training)


def _read_table(folder: Path) -> list[Stored]:
    path = folder / RUNS
    listed = _read_json(path)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InputError(f"{path}: must be a list of objects, one per run; make the table again with calql report")
    configs: dict[str, Any] = {}
    for entry in listed:
        name, done, like = entry.get("run"), entry.get("done"), entry.get("like")
        if not isinstance(name, str) or not isinstance(done, bool) or name in configs:
            raise InputError(f"{path}: an entry wants a 'run' of its own (text) and 'done' (true or false); correct it")
        if like is not None and like not in configs:
            raise InputError(f"{path}: '{name}' is like '{like}', which does not stand before it; correct 'like'")
        configs[name] = entry.get("config") if like is None else _patched(configs[like], entry)
    evaluations = _split(folder / EVALUATIONS, configs)
    slices, training = (
        _split(folder / file, configs) if (folder / file).exists() else {} for file in (SLICES, TRAINING)
    )
    empty = Rows(folder / EVALUATIONS, ())
    return [
        Stored(
            folder / name,
            name,
            config,
            path,
            entry["done"],
            evaluations.get(name, empty),
            slices.get(name),
            training.get(name),
        )
        for entry, (name, config) in zip(listed, configs.items(), strict=True)
    ]


def _split(path: Path, names: Mapping[str, Any]) -> dict[str, Rows]:
    """Run → its rows, without the column `run`."""
    table = _read_csv(path)
    if "run" not in table.columns:
        raise InputError(f"{path}: lacks the column run; add it")
    parts: dict[str, list[tuple[int, Cells]]] = {}
    for line, cells in table.rows:
        name = cells.pop("run")
        if name not in names:
            raise InputError(f"{path} line {line}: no run '{name}' in {RUNS}; add it there, or delete the line")
        parts.setdefault(name, []).append((line, cells))
    columns = tuple(name for name in table.columns if name != "run")
    return {name: Rows(path, columns, tuple(rows)) for name, rows in parts.items()}


def _read_csv(path: Path, whole: bool = True) -> Rows:
    """The rows of a file; if it is still being written, without an incomplete last line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not whole and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(text.splitlines())
        rows = tuple((reader.line_num, cells) for cells in reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave this run out or run it again") from error
    return Rows(path, tuple(reader.fieldnames or ()), rows)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); leave this run out or run it again") from error


# -- writing -----------------------------------------------------------------------------------------------------------


def run_table(runs: Sequence[Stored]) -> dict[str, str]:
    """File name → text of the run table of these runs, whose names must differ."""
    files = {
        RUNS: json.dumps(list(_entries(runs)), indent=1, ensure_ascii=False) + "\n",
        EVALUATIONS: _to_csv((run.name, run.evaluations) for run in runs),
    }
    optional = {
        SLICES: [(run.name, run.slice) for run in runs if run.slice is not None],
        TRAINING: [(run.name, run.training) for run in runs if run.training is not None],
    }
    return files | {name: _to_csv(parts) for name, parts in optional.items() if parts}


def _entries(runs: Sequence[Stored]) -> Iterator[dict[str, Any]]:
    """A configuration is stored as its differences from an earlier run, the one of three that gives the shortest text:
    the previous run, the first of the same parent folder (that is, method), or the first of all."""
    runs = [dataclasses.replace(run, config=_ordered(run.config)) for run in runs]
    first: dict[str, Stored] = {}
    for number, run in enumerate(runs):
        parent = run.name.rpartition("/")[0]
        models = [first[parent]] if parent in first else []
        models += [runs[number - 1], runs[0]] if number else []
        patches = [{"like": model.name} | _difference(model.config, run.config) for model in models]
        first.setdefault(parent, run)
        shortest = min([{"config": run.config}, *patches], key=lambda patch: len(json.dumps(patch)))
        yield {"run": run.name, "done": run.done} | shortest


def _ordered(tree: Any) -> Any:
    """The tree with its names in alphabetical order, so that a table of a table is the same file."""
    return {name: _ordered(tree[name]) for name in sorted(tree)} if isinstance(tree, dict) else tree


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The entry from which `_patched` makes `new` out of `old`."""
    without: list[list[str]] = []

    def changes(a: Mapping[str, Any], b: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        without.extend([*path, name] for name in a if name not in b)
        for name, value in b.items():
            both = isinstance(value, dict) and isinstance(a.get(name), dict)
            if both and (inner := changes(a[name], value, (*path, name))):
                found[name] = inner
            # Types count, too: 1, 1.0 and true are three settings.
            elif not both and (name not in a or json.dumps(a[name]) != json.dumps(value)):
                found[name] = value
        return found

    patch = {"config": changes(old, new, ())}
    return patch | ({"without": without} if without else {})


def _patched(old: Any, entry: Mapping[str, Any]) -> Any:
    """The configuration of an entry that is like `old`; neither is changed."""

    def merge(a: Any, b: Any) -> Any:
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return b
        return a | {name: merge(a.get(name), value) for name, value in b.items()}

    def drop(tree: Any, path: Sequence[str]) -> Any:
        if not isinstance(tree, dict) or not path:
            return tree
        name, *rest = path
        return {k: drop(v, rest) if k == name else v for k, v in tree.items() if k != name or rest}

    new = merge(old, entry.get("config", {}))
    for path in entry.get("without", []):
        new = drop(new, path)
    return new


def _to_csv(parts: Iterable[tuple[str, Rows]]) -> str:
    """Rows of several files as one CSV text, with the columns of all."""
    parts = list(parts)
    columns = dict.fromkeys(name for _, rows in parts for name in rows.columns)
    return dicts_to_csv([cells | {"run": name} for name, rows in parts for _, cells in rows.rows], ["run", *columns])


def dicts_to_csv(rows: Sequence[Mapping[Any, object]], columns: Sequence[str] = ()) -> str:
    """Rows as CSV with a header, by default of the first row's keys; None and missing values are empty cells."""
    out = io.StringIO()
    columns = columns or (list(rows[0]) if rows else [])
    writer: csv.DictWriter[Any] = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
