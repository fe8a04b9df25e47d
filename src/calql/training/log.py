"""The log of a run: sums of training metrics, rows of train.csv and eval.csv, warnings of divergence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from calql.training.measure import EPISODE_COLUMNS, EVAL_COLUMNS
from calql.training.run_dir import RunDir
from calql.types import RunError

TRAIN_COLUMNS = ("phase", "env_step", "grad_step")


class Log:
    """Rows of a run's CSV files, and the metrics to be averaged into the next one."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self.sums: dict[str, float] = {}
        self.summed = 0
        self.rows = {"eval.csv": 0, "train.csv": 0, "episodes.csv": 0}
        self.last_evaluation: dict[str, Any] = {}
        self.alarmed = self.told_unmeasured = False

    def updates(self, sums: Mapping[str, jax.Array], count: int, first: int) -> dict[str, float]:
        """Add the metric sums of `count` gradient steps; returns their means. RunError if one is not finite."""
        totals = {name: float(value) for name, value in jax.device_get(dict(sums)).items()}
        if bad := [name for name, value in totals.items() if not np.isfinite(value)]:
            raise RunError(
                f"diverged near gradient step {first} ({', '.join(bad)} not finite); the last good "
                "checkpoint is kept; start a new run with smaller learning rates"
            )
        for name, value in totals.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.summed += count
        return {name: value / count for name, value in totals.items()}

    def implausible(self, metrics: Mapping[str, float], bounds: tuple[float, float] | None, clamps: bool) -> str | None:
        """A warning, given once, when the batch's mean Q exceeds the largest possible return by more than a fifth.

        `clamps`: whether the method can clamp its targets.
        """
        limit = np.inf if bounds is None else 1.2 * max(map(abs, bounds))
        q = metrics.get("q_data", 0.0)
        if self.alarmed or abs(q) <= limit:
            return None
        self.alarmed = True
        fix = "--set target_q_clamp=true" if clamps else "a smaller critic_lr"
        return f"mean Q is {q:.4g}, beyond ±{limit:.4g}: values diverge; consider a new run with {fix}"

    def flush(self, where: Mapping[str, Any]) -> dict[str, Any] | None:
        """Write a row of train.csv with the means since the last row; returns it. None if there were no updates."""
        if not self.summed:
            return None
        row = {**where, **{name: total / self.summed for name, total in self.sums.items()}}
        self._append("train.csv", row, TRAIN_COLUMNS)
        self.sums, self.summed = {}, 0
        return row

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Write a row of eval.csv."""
        self.last_evaluation = dict(row)
        self._append("eval.csv", row, EVAL_COLUMNS)

    def episode(self, row: Mapping[str, Any]) -> None:
        """Write a row of episodes.csv."""
        self._append("episodes.csv", row, EPISODE_COLUMNS)

    def _append(self, name: str, row: Mapping[str, Any], columns: tuple[str, ...]) -> None:
        self.run_dir.append(name, row, columns)
        self.rows[name] += 1
