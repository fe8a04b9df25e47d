"""Measurements of the tasks' data sets as one CSV file: one row per task, cells are text, empty if unknown."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.check.describe import describe
from calql.data.episodes import Episodes
from calql.data.readers.local import local_id
from calql.data.readers.minari import root
from calql.data.success import success_steps
from calql.envs.rollout import score_of
from calql.paper.methods import DEFAULT_METHOD
from calql.paper.tasks import TASKS
from calql.reports.tables import dicts_to_csv
from calql.tasks import Task
from calql.training.options import experiment
from calql.types import InputError

Row = dict[str, str]
"""Column → text."""


def data_row(episodes: Episodes, task: Task) -> Row:
    """The row of a task's data. Returns are Monte-Carlo returns on mapped rewards, as `calql data info` shows them."""
    made = experiment(task, DEFAULT_METHOD)
    algorithm = made.phases[0].algorithm
    facts = describe(episodes, task, algorithm.discount, algorithm.tau, made.data.tail_bootstrap)
    data = episodes.episodes
    paid = np.quantile([e.rewards.sum() for e in data], [0.0, 0.1, 0.5, 0.9, 1.0])
    about = provenance(episodes.uri)
    values = {
        "task": task.id,
        "reference": episodes.uri,
        "fingerprint": facts["fingerprint"],
        **{name: facts[name] for name in ("transitions", "episodes", "terminated", "truncated", "success")},
        "score": np.mean([score_of(task, e.rewards, success_steps(e, task.rewards)) for e in data]),
        **{f"length_{name}": value for name, value in facts["length"].items()},
        **{f"paid_{name}": value for name, value in zip(facts["length"], paid, strict=True)},
        "discount": algorithm.discount,
        **{f"return_{name}": value for name, value in facts["return_start"].items()},
        **{name: facts[name] for name in ("behaviour_spread", "action_noise", "start_spread", "effective_dimension")},
        "seed": about.get("seed"),
        "build_s": about.get("build_s"),
        "megabytes": about.get("bytes") and about["bytes"] / 1e6,
        "calql": about.get("version"),
        "git_commit": about.get("git_commit"),
        "builder": about.get("builder"),
        "recipe": json.dumps(about["recipe"], sort_keys=True) if "recipe" in about else None,
    }
    return {name: _text(value) for name, value in values.items()}


def provenance(reference: str) -> dict[str, Any]:
    """What the builder of a local data set recorded (seed, recipe, build_s, …), and its `bytes`; {} for other data."""
    scheme, _, name = reference.partition(":")
    if scheme != "local":
        return {}
    home = root() / local_id(name)
    noted = json.loads((home / "data" / "metadata.json").read_text()).get("calql", {})
    return {**noted, "bytes": sum(file.stat().st_size for file in home.rglob("*") if file.is_file())}


def read_table(path: Path) -> dict[str, Row]:
    """task id → row; {} if there is no file. Raises InputError if it is not such a table."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not all(row.get("task") for row in rows):
        raise InputError(f"{path} is not a table of data sets (it has no column 'task'); delete it")
    return {row["task"]: row for row in rows}


def write_table(path: Path, rows: dict[str, Row]) -> None:
    """Write the rows in the order of the table of tasks, others at the end."""
    order = [*TASKS, *sorted(rows.keys() - TASKS.keys())]
    columns = dict.fromkeys(name for row in rows.values() for name in row)
    path.write_text(
        dicts_to_csv([{name: rows[id].get(name) for name in columns} for id in order if id in rows]), encoding="utf-8"
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
