"""Metrics of a run: regret, dip and relative improvement of a curve of scores in [0, 1] (pure NumPy).

Definitions: regret as in Table 1 of the Cal-QL paper, relative improvement as in Table 2. A curve is a pair of equally
long sequences `(env_steps, scores)` of the online evaluations; it starts at step 0 with the pre-trained policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def regret(env_steps: Sequence[float], scores: Sequence[float]) -> float:
    """1 − mean score over a uniform grid of evaluations, step 0 included: 0 is perfect, 1 the worst.

    A grid that is not uniform is resampled by linear interpolation onto a uniform one with as many points between the
    same ends, so that a region is not weighted by its number of evaluations. Raises ValueError as `_curve` does.
    """
    steps, values = _curve(env_steps, scores)
    grid = np.linspace(steps[0], steps[-1], len(steps))
    return float(1.0 - np.interp(grid, steps, values).mean())


def dip(env_steps: Sequence[float], scores: Sequence[float]) -> float | None:
    """Score at step 0 − lowest score in the first fifth of fine-tuning (both ends included), so never below 0.

    None if only step 0 was evaluated in that fifth. Raises ValueError as `_curve` does.
    """
    steps, values = _curve(env_steps, scores)
    early = values[steps <= steps[-1] / 5]
    return float(values[0] - early.min()) if len(early) > 1 else None


def relative_improvement(before: float, after: float) -> float | None:
    """(after − before) / before; None if `before` is 0 and the ratio has no meaning."""
    return (after - before) / before if before > 0 else None


def summarise(eval_rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The numbers of summary.json from the rows of eval.csv (values may be numbers or the text of a CSV cell).

    score_before is the score of the policy that fine-tuning starts from. Missing numbers are None: an offline-only run
    has no score_after, regret, dip or relative_improvement, and neither has a run that was stopped at online step 0;
    a run that was first evaluated after a fifth of its fine-tuning has no dip; an online-only run has no
    relative_improvement, because nothing was pre-trained.
    """
    rows = [row for row in eval_rows if np.isfinite(_number(row.get("score_mean")))]
    online = [row for row in rows if row["phase"] == "online"]
    start = online[:1] or rows[-1:]
    before = _number(start[0]["score_mean"]) if start else None
    clock = [wall for row in eval_rows if np.isfinite(wall := _number(row.get("wall_s")))]
    summary = {"score_before": before, "score_after": None, "regret": None, "relative_improvement": None, "dip": None}
    if before is not None and len(online) > 1:
        curve = [_number(row["env_step"]) for row in online], [_number(row["score_mean"]) for row in online]
        after = curve[1][-1]
        summary |= {"score_after": after, "regret": regret(*curve), "dip": dip(*curve)}
        summary["relative_improvement"] = relative_improvement(before, after) if len(online) < len(rows) else None
    return summary | {"wall_s": max(clock, default=None)}


def _number(cell: Any) -> float:
    """A cell as a float; an empty one is nan (not measured)."""
    return float("nan") if cell is None or cell == "" else float(cell)


def _curve(env_steps: Sequence[float], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays [N]. Raises ValueError on a curve that does not start at 0, does not increase or has gaps."""
    steps, values = np.asarray(env_steps, float), np.asarray(scores, float)
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(f"env_steps {steps.shape} and scores {values.shape} must be equally long, one-dimensional")
    if steps[0] != 0 or not (np.diff(steps) > 0).all():
        raise ValueError("env_steps must start at 0 (the pre-trained policy) and increase strictly")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return steps, values
