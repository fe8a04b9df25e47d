"""Metrics of a run: regret, dip and relative improvement of a learning curve of scores in [0, 1].

Regret is defined as in Table 1 of the Cal-QL paper, relative improvement as in Table 2. A learning curve is a pair of
sequences `(env_steps, scores)` of equal length from the online evaluations; it starts at step 0 with the pre-trained
policy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

FEWEST_EVALUATIONS = 8
"""Evaluations whose differences `jumps` measures, at least."""


def regret(env_steps: Sequence[float], scores: Sequence[float]) -> float:
    """1 − mean score over a uniform grid of evaluations, step 0 included: 0 is perfect, 1 the worst.

    A curve on another grid is first interpolated linearly onto a uniform grid with the same ends and number of points.
    Raises ValueError if the lengths differ, the steps do not start at 0 and increase, or a score is not finite.
    """
    steps, values = _curve(env_steps, scores)
    grid = np.linspace(steps[0], steps[-1], len(steps))
    return float(1.0 - np.interp(grid, steps, values).mean())


def dip(env_steps: Sequence[float], scores: Sequence[float]) -> float | None:
    """Score at step 0 minus the lowest score in the first fifth of fine-tuning (both ends included); never negative.

    None if only step 0 was evaluated in that fifth. Raises ValueError as `regret`.
    """
    steps, values = _curve(env_steps, scores)
    early = values[steps <= steps[-1] / 5]
    return float(values[0] - early.min()) if len(early) > 1 else None


def chance_dip(env_steps: Sequence[float], errors: Sequence[float]) -> float | None:
    """The dip that a policy which never changes would show on average, because evaluations are noisy.

    `errors`: standard errors of the scores. With m evaluations in the first fifth (step 0 included), whose errors have
    the mean square s², it is s times the expected maximum of m standard normal numbers: the difference between the
    score at step 0, which is right on average, and the lowest of all. None if only step 0 was evaluated there, or an
    error is not known. Raises ValueError as `regret`.
    """
    steps, _ = _curve(env_steps, [0.0] * len(errors))
    early = np.asarray(errors, float)[steps <= steps[-1] / 5]
    if len(early) < 2 or not np.isfinite(early).all():
        return None
    return float(np.sqrt(np.square(early).mean()) * _highest_of(len(early)))


def jumps(scores: Sequence[float], errors: Sequence[float]) -> tuple[float, float] | None:
    """How much the scores of neighbouring evaluations differ, and how much they would for a policy that never changes.

    `errors`: standard errors of the scores. The first is the standard deviation of the differences, so that a steady
    rise counts as none; the second follows from the errors. None with fewer than `FEWEST_EVALUATIONS`, or if a score or
    an error is not known.
    """
    if len(scores) != len(errors) or len(scores) < FEWEST_EVALUATIONS or not np.isfinite([*scores, *errors]).all():
        return None
    squares = np.square(np.asarray(errors, float))
    return float(np.diff(scores).std(ddof=1)), float(np.sqrt((squares[1:] + squares[:-1]).mean()))


@functools.cache
def _highest_of(count: int) -> float:
    """Expected maximum of so many standard normal numbers, whose distribution is Φ^count."""
    shares = (np.arange(1_000) + 0.5) / 1_000
    return float(np.mean([NormalDist().inv_cdf(u) for u in shares ** (1 / count)]))


def relative_improvement(before: float, after: float) -> float | None:
    """(after − before) / before; None if `before` is 0."""
    return (after - before) / before if before > 0 else None


def summarise(eval_rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The contents of summary.json from the rows of eval.csv (values are numbers or the text of CSV cells).

    score_before is the score of the policy that fine-tuning starts from, or of the last evaluation of an offline-only
    run. Missing numbers are None: score_after, regret, dip, chance_dip and relative_improvement if there is no online
    evaluation after step 0; dip and chance_dip if there is none in the first fifth of fine-tuning after step 0;
    relative_improvement in an online-only run; all but score_after if fine-tuning has evaluations, but none at step 0.
    """
    rows = [row for row in eval_rows if np.isfinite(_number(row.get("score_mean")))]
    online = [row for row in rows if row["phase"] == "online"]
    start = [row for row in online if _number(row["env_step"]) == 0] if online else rows[-1:]
    before = _number(start[0]["score_mean"]) if start else None
    seconds = [wall for row in eval_rows if np.isfinite(wall := _number(row.get("wall_s")))]
    missing = ("score_after", "regret", "relative_improvement", "dip", "chance_dip")
    summary: dict[str, float | None] = {"score_before": before} | dict.fromkeys(missing)
    if online and before is None:
        summary["score_after"] = _number(online[-1]["score_mean"])
    elif before is not None and len(online) > 1:
        curve = [_number(row["env_step"]) for row in online], [_number(row["score_mean"]) for row in online]
        after = curve[1][-1]
        errors = [_number(row.get("score_sem")) for row in online]
        summary |= {"score_after": after, "regret": regret(*curve), "dip": dip(*curve)}
        summary["chance_dip"] = chance_dip(curve[0], errors)
        summary["relative_improvement"] = relative_improvement(before, after) if len(online) < len(rows) else None
    return summary | {"wall_s": max(seconds, default=None)}


def _number(cell: Any) -> float:
    """A cell as a float; nan if it is empty (not measured)."""
    return float("nan") if cell is None or cell == "" else float(cell)


def _curve(env_steps: Sequence[float], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Both sequences as arrays [N]. Raises ValueError if they are not a learning curve, see `regret`."""
    steps, values = np.asarray(env_steps, float), np.asarray(scores, float)
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(
            f"env_steps {steps.shape} and scores {values.shape} must be one-dimensional, equally long and not empty"
        )
    if steps[0] != 0 or not (np.diff(steps) > 0).all():
        raise ValueError("env_steps must start at 0 (the pre-trained policy) and increase strictly")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    return steps, values
