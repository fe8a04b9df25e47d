"""What is learned from a data set within a fixed budget, beside published scores, and how the policies fail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calql.envs.make import make_env
from calql.evaluation.endings import Ending, shares, watch
from calql.paper.published import on_d4rl, published
from calql.reports.coverage import paths_figure
from calql.reports.figures import save
from calql.reports.load import Run, load_runs
from calql.reports.stored import dicts_to_csv
from calql.tasks import Task
from calql.training.measure import NOT_MEASURED
from calql.training.policy import SEED, evaluation_seeds, load_policy
from calql.types import Episode, InputError

LAST = 4
"""Evaluations, the last ones, whose mean is a seed's score: single ones vary much where all starts are alike."""


class Grade(NamedTuple):
    """What one method learned from the data."""

    row: dict[str, Any]
    """task, method, seeds, updates, score (mean of the seeds'), low, high, paper and d4rl (None: unknown)."""
    watched: list[tuple[Episode, Ending]]
    """Episodes of the last policies of all seeds."""

    def endings(self) -> list[dict[str, Any]]:
        """Per way to end, the most frequent first: its share of the episodes, and their mean progress."""
        names = {name: self.row[name] for name in ("task", "method")}
        return [names | row for row in shares([ended for _, ended in self.watched])]


def grade(out: Path, task: Task, episodes: int = 20) -> list[Grade]:
    """The grades of all methods with finished runs below a folder; `episodes` per seed are watched."""
    groups = defaultdict(list)
    for run in load_runs([out]):
        if run.done:
            groups[run.label].append(run)
    env = make_env(task)
    made = [_grade(runs, task, env, episodes) for runs in groups.values()]
    env.close()
    return made


def _grade(runs: Sequence[Run], task: Task, env: Any, episodes: int) -> Grade:
    curves = [run.curve("offline", "score_mean") for run in runs]
    if not all(len(values) for _, values in curves):
        raise InputError(f"{runs[0].label} on {task.id}: {NOT_MEASURED}")
    scores = [values[-LAST:].mean() for _, values in curves]
    watched = []
    for run in runs:
        policy = load_policy(run.stored.path)
        watched += watch(env, task, policy.side_by_side(1), evaluation_seeds(SEED, episodes))
    first = runs[0]
    told = published().get((task.id, first.method))
    row = {
        "task": task.id,
        "method": first.label,
        "seeds": len(runs),
        "updates": int(curves[0][0][-1]),
        "score": float(np.mean(scores)),
        "low": float(min(scores)),
        "high": float(max(scores)),
        "paper": told and told.score_before,
        "d4rl": on_d4rl().get((task.id, first.method)),
    }
    return Grade(row, watched)


def write_grades(grades: Sequence[Grade], task: Task, out: Path) -> list[Path]:
    """Write grade.csv, endings.csv and, for an environment with a floor, paths.png (and .svg); returns their paths."""
    written = [out / "grade.csv", out / "endings.csv"]
    written[0].write_text(dicts_to_csv([grade.row for grade in grades]), encoding="utf-8")
    rows = [row for grade in grades for row in grade.endings()]
    written[1].write_text(dicts_to_csv(rows), encoding="utf-8")
    env = make_env(task)
    world: Any = env.unwrapped
    if hasattr(world, "floor_plan"):
        written.append(out / "paths.png")
        save(paths_figure({grade.row["method"]: grade.watched for grade in grades}, world.floor_plan()), out / "paths")
    env.close()
    return written
