"""Reads runs. Any program may have written them, so everything is checked before it is used."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from calql.evaluation.metrics import summarise
from calql.reports.record import Record, read_record
from calql.reports.stored import Rows, Stored, find_runs
from calql.reports.style import HERO
from calql.types import InputError

TRAINING = "training"
"""Both phases of the log of the training, on one clock."""
STEP = {"offline": "grad_step", "online": "env_step", TRAINING: "grad_step"}
"""Phase → the column that counts its progress."""
NEEDED = ("phase", "env_step", "grad_step", "score_mean")
VALUES = ("q_data_mean", "mc_return_mean", "bounding_rate", "q_policy_mean", "q_random_mean", "mc_return_std")
OPTIONAL = ("wall_s", "score_sem", *VALUES)
"""Columns of eval.csv that are read; others are ignored."""
LONGEST = 200
"""Points of a curve of a training metric, at most: of a longer log, each is the mean of several rows."""
SLICE = ("action", "q", "return_mean", "return_sem", "return_deterministic")
"""Columns of slice.csv."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One validated run."""

    record: Record
    """Its configuration."""
    stored: Stored
    """The files that it was read from."""
    rows: list[dict[str, Any]]
    """Rows of eval.csv with the columns NEEDED + OPTIONAL: `phase` is text, the others floats (nan: not measured)."""
    slice: np.ndarray | None
    """[N, SLICE]: Q against rollouts at one state; None if the run has not compared them."""
    label: str
    """Display name of the method, with the settings that differ from other variants of the same method."""
    training: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Rows of train.csv: `phase` is text, the steps and all metrics floats (nan: not measured)."""

    @property
    def task(self) -> str:
        """Task id."""
        return self.record.task

    @property
    def method(self) -> str:
        """Method id."""
        return self.record.method

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.record.seed

    @property
    def done(self) -> bool:
        """Whether the run finished; unfinished runs are shown, but left out of aggregates."""
        return self.stored.done

    @property
    def name(self) -> str:
        """Name in tables: the shortest end of its path that is unique."""
        return self.stored.name

    @property
    def summary(self) -> dict[str, float | None]:
        """The numbers of summary.json, recomputed from eval.csv so that all runs are measured the same way."""
        return summarise(self.rows)

    def curve(self, phase: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values), both [N], of the evaluations in a phase, or of the log of the TRAINING, that measured
        `column`."""
        rows = self.training if phase == TRAINING else [row for row in self.rows if row["phase"] == phase]
        points = [(row[STEP[phase]], row.get(column, math.nan)) for row in rows]
        steps, values = np.array(points, float).reshape(-1, 2).T
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        if phase == TRAINING and len(steps) > LONGEST:
            starts = np.arange(0, len(steps), -(-len(steps) // LONGEST))
            counts = np.diff(starts, append=len(steps))
            return steps[starts + counts - 1], np.add.reduceat(values, starts) / counts
        return steps, values


def load_runs(paths: Iterable[Path | str], only: Collection[str] | None = None) -> list[Run]:
    """Every run in or below `paths`, each with its label, ordered by task, label (the hero first) and seed.

    A path may be a run directory, a run table, or a folder that holds some (`calql.reports.stored.find_runs`); `only`
    names the runs to take from each. Copies of one run count once. Raises InputError for a folder without runs, for a
    damaged run, and if two runs have the same task, settings and seed but are not copies.
    """
    found: dict[Path, Stored] = {}
    for path in map(Path, paths):
        below = {run.path.resolve(): run for run in find_runs(path, only)}
        if not below:
            cause = "holds no run (no config.json, or runs.json, in or below it)" if path.is_dir() else "no such folder"
            raise InputError(f"{path}: {cause}; name a run directory, as made by calql train --out")
        found |= below
    runs = labelled([_read(run) for run in found.values()])
    first: dict[tuple, Run] = {}
    for run in runs:
        twin = first.setdefault((run.task, run.label, run.seed), run)
        if twin is not run and not twin.stored.same(run.stored):
            raise InputError(
                f"{run.stored.path} repeats {twin.stored.path}: {run.label} on {run.task}, seed {run.seed}, the same "
                "settings; leave one of them out"
            )
    named = _named(list(first.values()))
    return sorted(named, key=lambda run: (run.task, run.method != HERO, _as_read(run.label), run.seed))


def _read(stored: Stored) -> Run:
    """The validated run. Raises InputError, one line with file, cause and fix, if it cannot be used."""
    record = read_record(stored.config, stored.config_path)
    curves = None if stored.slice is None else _check_slice(stored.slice)
    rows = _check_rows(stored.evaluations, stored.done, record.bounded)
    training = [] if stored.training is None else _check_training(stored.training)
    return Run(record, stored, rows, curves, record.title, training)


def settings(run: Run) -> dict[str, Any]:
    """All settings of a run, and the values derived from them, as a flat dict."""
    return run.record.schedule | run.record.settings


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names whose values differ between `configs`."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({json.dumps(config.get(name)) for config in configs}) > 1]


def _check_rows(table: Rows, done: bool, bounded: bool) -> list[dict[str, Any]]:
    """The rows of eval.csv; a run in progress may have none yet."""
    missing = [name for name in NEEDED if name not in table.columns]
    if missing and (done or table.columns):
        raise InputError(f"{table.path}: lacks the column(s) {', '.join(missing)}; add them")
    rows = [_check_row(cells, f"{table.path} line {line}", bounded) for line, cells in table.rows]
    if done and not rows:
        raise InputError(f"{table.path}: holds no evaluation of a run that is marked as done; leave this run out")
    online = [row["env_step"] for row in rows if row["phase"] == "online"]
    if online and (online[0] != 0 or any(b <= a for a, b in pairwise(online))):
        raise InputError(
            f"{table.path}: online env_step must start at 0 (before fine-tuning) and increase; sort or add rows"
        )
    return rows


def _check_training(table: Rows) -> list[dict[str, Any]]:
    """The rows of train.csv."""
    needed = ("phase", "env_step", "grad_step")
    if table.columns and (missing := [name for name in needed if name not in table.columns]):
        raise InputError(f"{table.path}: lacks the column(s) {', '.join(missing)}; add them, or delete the file")
    rows = []
    for line, cells in table.rows:
        where = f"{table.path} line {line}"
        try:
            rows.append({name: cell if name == "phase" else float(cell or math.nan) for name, cell in cells.items()})
        except (ValueError, TypeError) as error:
            raise InputError(f"{where}: wants numbers ({error}); correct or delete the line") from error
        if cells["phase"] not in ("offline", "online") or not math.isfinite(rows[-1]["grad_step"]):
            raise InputError(f"{where}: wants a phase, offline or online, and a grad_step; fill them in")
    return rows


def _check_slice(table: Rows) -> np.ndarray:
    try:
        return np.array([[float(cells[name]) for name in SLICE] for _, cells in table.rows]).reshape(-1, len(SLICE))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{table.path}: wants numbers under {', '.join(SLICE)} ({error}); correct or delete it"
        ) from error


def _check_row(row: Mapping[str | None, Any], where: str, bounded: bool) -> dict[str, Any]:
    """One row with its numbers as floats; error messages start with `where`. `bounded`: scores lie in [0, 1]."""
    if None in row or None in row.values():
        raise InputError(f"{where}: has more or fewer cells than the header; correct or delete the line")
    if row["phase"] not in ("offline", "online"):
        raise InputError(f"{where}: phase is '{row['phase']}'; write offline or online")
    numbers: dict[str, Any] = {"phase": row["phase"]}
    for name in (*NEEDED[1:], *OPTIONAL):
        try:
            numbers[name] = float(row.get(name) or math.nan)
        except ValueError as error:
            raise InputError(f"{where}: {name} is '{row[name]}', not a number; correct it or empty the cell") from error
    if not math.isfinite(numbers["env_step"]) or not math.isfinite(numbers["grad_step"]):
        raise InputError(f"{where}: env_step and grad_step must be numbers; fill them in")
    if bounded and not 0 <= numbers["score_mean"] <= 1 and not math.isnan(numbers["score_mean"]):
        raise InputError(f"{where}: score_mean is {numbers['score_mean']:g}, outside [0, 1]; normalise the scores")
    return numbers


# -- names -------------------------------------------------------------------------------------------------------------


def labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs with labels: runs of one method that differ in a setting are variants, never seeds of one curve.

    If two methods share a title, the label adds their ids; if a method was recorded in two formats, it adds the format,
    because their settings have different names.
    """
    ids = defaultdict(set)
    formats = defaultdict(set)
    groups = defaultdict(list)
    for run in runs:
        ids[run.record.title].add(run.method)
        formats[run.task, run.method].add(run.record.format)
        groups[run.task, run.method, run.record.format].append(run)
    named = []
    for (task, method, form), group in groups.items():
        chosen = [run.record.settings for run in group]
        variants = variant_names(chosen if differing(chosen) else [run.record.schedule for run in group])
        for run, variant in zip(group, variants, strict=True):
            title = run.record.title
            notes = [
                method if len(ids[title]) > 1 else "",
                f"format {form}" if len(formats[task, method]) > 1 else "",
                variant,
            ]
            told = ", ".join(filter(None, notes))
            named.append(dataclasses.replace(run, label=f"{title} ({told})" if told else title))
    return named


def variant_names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings of each flat configuration that not all of them share, as text: "pretrain.cql_alpha=20, utd=5".

    A setting gets the shortest unambiguous name: its last part, if no other path with the same last part has
    another value in any of them; otherwise the last part after the first part (the phase); else its whole path. A
    phase that some configurations lack is given as "finetune=none", and not setting by setting.
    """
    leaves: dict[str, list[str]] = defaultdict(list)
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for path in dict.fromkeys(path for config in configs for path in config):
        first, _, rest = path.partition(".")
        leaves[path.rpartition(".")[2]].append(path)
        if rest and first not in phases:
            phases[first] = [config for config in configs if any(name.startswith(f"{first}.") for name in config)]

    def values(config: Mapping[str, Any], leaf: str) -> set[str]:
        return {json.dumps(config[path]) for path in leaves[leaf] if config.get(path) is not None}

    shown: dict[str, list[str]] = {}
    for path in differing(configs):
        first, leaf = path.partition(".")[0], path.rpartition(".")[2]
        if "." in path and path not in differing(phases[first]):
            continue
        if all(len(values(config, leaf)) <= 1 for config in configs):
            shown[leaf] = leaves[leaf]
        else:
            twins = [other for other in leaves[leaf] if other.partition(".")[0] == first]
            shown[f"{first}.{leaf}" if len(twins) == 1 and first != path else path] = [path]

    def told(config: Mapping[str, Any]) -> str:
        found = {name: [config[p] for p in paths if config.get(p) is not None] for name, paths in shown.items()}
        parts = [f"{name}={_short(value[0])}" for name, value in found.items() if value]
        return ", ".join(parts + [f"{phase}=none" for phase, having in phases.items() if config not in having])

    return [told(config) for config in configs]


def _named(runs: Sequence[Run]) -> list[Run]:
    """The runs with unique names: the ends of their paths, as long as necessary."""
    names = [run.name for run in runs]
    parts = 1
    while twice := {name for name, count in Counter(names).items() if count > 1}:
        parts += 1
        longer = ["/".join(run.stored.path.resolve().parts[-parts:]) for run in runs]
        names = [longer[i] if name in twice else name for i, name in enumerate(names)]
    stored = [dataclasses.replace(run.stored, name=name) for run, name in zip(runs, names, strict=True)]
    return [dataclasses.replace(run, stored=found) for run, found in zip(runs, stored, strict=True)]


def _short(value: Any) -> str:
    """A value as people write it: 100 for 100.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _as_read(label: str) -> list:
    """Sort key for labels as people sort them: without case, and 3 before 20."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label.casefold())
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]
