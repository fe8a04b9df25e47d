"""Reads run directories. Any program may have written them, so everything is checked before it is believed."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from calql.evaluation.metrics import summarise
from calql.reports.style import HERO, method_label
from calql.types import InputError

STEP = {"offline": "grad_step", "online": "env_step"}
"""Phase → the column that counts its progress."""
NEEDED = ("phase", "env_step", "grad_step", "score_mean")
OPTIONAL = ("wall_s", "score_sem", "q_data_mean", "mc_return_mean", "bounding_rate")
"""Columns of eval.csv that are read; others may be there."""
SLICE = ("action", "q", "return_mean", "return_sem", "return_deterministic")
"""Columns of slice.csv."""
NOT_A_SETTING = {"seed", "out", "resume"}
"""Names in config.json["settings"] that may differ between the seeds of one method."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    """Rows of eval.csv with the columns NEEDED + OPTIONAL: `phase` is text, the others floats (nan: not measured)."""
    done: bool
    """The run finished; an unfinished one is shown, but no aggregate counts it."""
    label: str = ""
    """Method as people read it, with the settings in which it differs from another variant of the same method."""
    slice: np.ndarray | None = None
    """[N, SLICE]: Q against rollouts at one state; None where the run has not compared them."""

    @property
    def task(self) -> str:
        """Task id."""
        return self.config["task"]

    @property
    def method(self) -> str:
        """Method id."""
        return self.config["method"]

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.config["seed"]

    @property
    def summary(self) -> dict[str, float | None]:
        """The numbers of summary.json, computed anew from eval.csv so that all runs are measured alike."""
        return summarise(self.rows)

    def curve(self, phase: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values), both [N]: where `column` was measured in that phase."""
        points = [(row[STEP[phase]], row[column]) for row in self.rows if row["phase"] == phase]
        steps, values = np.array(points, float).reshape(-1, 2).T
        return steps[np.isfinite(values)], values[np.isfinite(values)]


def load_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Every run in or below `paths`, each with its label, ordered by task, label (the hero first) and seed.

    Raises InputError on a folder without runs, on a damaged run, and when one run was given twice.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        below = {run_dir.resolve(): run_dir for run_dir in _find(path)}
        if not below:
            cause = "holds no run (no config.json in or below it)" if path.is_dir() else "no such folder"
            raise InputError(f"{path}: {cause}; name a run directory, as made by calql train --out")
        found |= below
    runs = labelled([load_run(run_dir) for run_dir in found.values()])
    first: dict[tuple, Run] = {}
    for run in runs:
        twin = first.setdefault((run.task, run.label, run.seed), run)
        if twin is not run:
            raise InputError(
                f"{run.path} repeats {twin.path}: {run.label} on {run.task}, seed {run.seed}, the same settings; "
                "leave one of them out"
            )
    return sorted(runs, key=lambda run: (run.task, run.method != HERO, _as_read(run.label), run.seed))


def load_run(path: Path | str) -> Run:
    """One run directory. Raises InputError, one line with file, cause and mend, on anything that cannot be used."""
    path = Path(path)
    config = _read_config(path / "config.json")
    done = (path / "DONE").exists()
    return Run(path, config, _read_eval(path / "eval.csv", done), done, slice=_read_slice(path / "slice.csv"))


def settings(run: Run) -> dict[str, Any]:
    """Everything that was chosen for a run, flat: {"scale": …, "offline.gradient_steps": …, "cql_alpha": …}."""
    flat = {"scale": run.config.get("scale")} if "scale" in run.config else {}
    for phase in run.config.get("phases", []):
        flat |= {f"{phase.get('name')}.{name}": value for name, value in phase.items() if name != "name"}
    return flat | {k: v for k, v in run.config.get("settings", {}).items() if k not in NOT_A_SETTING}


def differing(configs: list[dict[str, Any]]) -> list[str]:
    """Names whose value is not the same in all of `configs`."""
    names = dict.fromkeys(name for config in configs for name in config)
    return [name for name in names if len({json.dumps(config.get(name)) for config in configs}) > 1]


def _find(path: Path) -> Iterator[Path]:
    """Run directories: `path` itself, or the outermost ones below it."""
    if (path / "config.json").is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _find(child)


def _read_config(path: Path) -> dict[str, Any]:
    """config.json with at least task, method and seed."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); leave this run out or make it anew") from error
    if not isinstance(config, dict) or config.get("format", 1) != 1:
        raise InputError(f"{path}: not a run configuration of format 1; read it with the version that wrote it")
    for name, kind in {"task": str, "method": str, "seed": int}.items():
        if not isinstance(config.get(name), kind):
            raise InputError(f"{path}: '{name}' must be there and be {kind.__name__}, not {config.get(name)!r}; add it")
    for name, kind in {"settings": dict, "data": dict, "packages": dict, "differs_from_paper": dict}.items():
        if not isinstance(config.get(name) or {}, kind):
            raise InputError(f"{path}: '{name}' must be an object, not {config[name]!r}; mend or remove it")
    if not isinstance(config.get("phases", []), list) or not all(isinstance(p, dict) for p in config.get("phases", [])):
        raise InputError(f"{path}: 'phases' must be a list of objects; mend or remove it")
    return {name: value for name, value in config.items() if value is not None}


def _read_eval(path: Path, done: bool) -> list[dict[str, Any]]:
    """Checked rows of eval.csv; a run in progress may have none yet, or half a last line."""
    try:
        text = path.read_text(encoding="utf-8") if done or path.exists() else ""
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); leave this run out or make it anew") from error
    if not done and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in NEEDED if name not in (reader.fieldnames or [])]
    if missing and (done or text):
        raise InputError(f"{path}: lacks the column(s) {', '.join(missing)}; add them")
    rows = [_check_row(row, f"{path} line {reader.line_num}") for row in reader]
    if done and not rows:
        raise InputError(f"{path}: holds no evaluation although the run is marked DONE; leave this run out")
    online = [row["env_step"] for row in rows if row["phase"] == "online"]
    if online and (online[0] != 0 or any(b <= a for a, b in pairwise(online))):
        raise InputError(f"{path}: online env_step must start at 0 (before fine-tuning) and increase; sort or add rows")
    return rows


def _read_slice(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [[float(row[name]) for name in SLICE] for row in csv.DictReader(file)]
            return np.array(rows).reshape(-1, len(SLICE))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: wants numbers under {', '.join(SLICE)} ({error}); mend or delete it") from error


def _check_row(row: dict[str, str | None], where: str) -> dict[str, Any]:
    """One row with its numbers as floats; `where` opens the error message."""
    if None in row or None in row.values():
        raise InputError(f"{where}: has more or fewer cells than the header; mend or delete the line")
    if row["phase"] not in STEP:
        raise InputError(f"{where}: phase is '{row['phase']}'; write offline or online")
    numbers: dict[str, Any] = {"phase": row["phase"]}
    for name in (*NEEDED[1:], *OPTIONAL):
        try:
            numbers[name] = float(row.get(name) or math.nan)
        except ValueError as error:
            raise InputError(f"{where}: {name} is '{row[name]}', not a number; mend it or empty the cell") from error
    if not math.isfinite(numbers["env_step"]) or not math.isfinite(numbers["grad_step"]):
        raise InputError(f"{where}: env_step and grad_step must be numbers; fill them in")
    if not 0 <= numbers["score_mean"] <= 1 and not math.isnan(numbers["score_mean"]):
        raise InputError(f"{where}: score_mean is {numbers['score_mean']:g}, outside [0, 1]; normalise the scores")
    return numbers


def labelled(runs: Sequence[Run]) -> list[Run]:
    """Gives every run its label: runs of one method that differ in a setting are variants, never seeds of one curve."""
    groups = defaultdict(list)
    for run in runs:
        groups[run.task, run.method].append(run)
    named = []
    for group in groups.values():
        names = differing([settings(run) for run in group])
        names = [name for name in names if "." not in name] or names  # a phase's numbers follow from the settings
        for run in group:
            values = {name: settings(run).get(name) for name in names}
            suffix = ", ".join(f"{name}={_short(value)}" for name, value in values.items() if value is not None)
            label = method_label(run.method) + (f" ({suffix})" if suffix else "")
            named.append(dataclasses.replace(run, label=label))
    return named


def _short(value: Any) -> str:
    """As people write it: 100 for 100.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _as_read(label: str) -> list:
    """What sorts labels as people do: without case, and 3 before 20."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label.casefold())
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]
