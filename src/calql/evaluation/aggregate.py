"""Aggregates over runs and tasks with honest intervals (Agarwal et al. 2021, "Deep RL at the edge of the statistical
precipice"), in the vocabulary and shapes of rliable: one matrix [runs, tasks] a method.

Every statistic here reduces the two leading axes and keeps the rest. So trailing axes may hold a curve, and the
bootstrap puts its replicates on the last axis and calls the statistic once instead of thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over all runs and tasks, [runs, tasks, …] → […].

    The lowest and the highest quarter are cut (rounded down: fewer than four values are simply averaged).
    """
    scores = np.asarray(scores, float)
    return trim_mean(scores.reshape(-1, *scores.shape[2:]), 0.25, axis=0)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(a run of x scores higher than a run of y), averaged over tasks; a tie counts one half (Mann–Whitney's U).

    x [runs_x, tasks, …] and y [runs_y, tasks, …] → […].
    """
    x, y = np.asarray(x, float)[:, None], np.asarray(y, float)[None]
    return ((x > y) + 0.5 * (x == y)).mean(axis=(0, 1, 2))


def performance_profile(scores: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Share of runs that score above each threshold, [runs, tasks, …] → [taus, …]."""
    return np.stack([(np.asarray(scores) > tau).mean(axis=(0, 1)) for tau in taus])


def stratified_bootstrap_ci(
    scores: np.ndarray | tuple[np.ndarray, ...],
    statistic: Callable[..., np.ndarray] = iqm,
    reps: int = 5000,
    confidence: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Percentile bootstrap interval [2, …] (low, high) of a statistic; runs are resampled within each task.

    `scores` is [runs, tasks, …], or a tuple of such matrices that are resampled independently and given to `statistic`
    in that order. Trailing axes stay with their run. The same seed gives the same interval. Raises ValueError on
    missing values, and on a statistic that does not keep trailing axes.
    """
    rng = np.random.default_rng(seed)
    matrices = scores if isinstance(scores, tuple) else (scores,)
    replicates = np.asarray(statistic(*(_resample(np.asarray(matrix, float), reps, rng) for matrix in matrices)))
    if replicates.shape[-1:] != (reps,):
        raise ValueError("the statistic must reduce the two leading axes only, e.g. x.mean(axis=(0, 1))")
    tail = (1.0 - confidence) / 2.0
    return np.quantile(replicates, [tail, 1.0 - tail], axis=-1)


def _resample(matrix: np.ndarray, reps: int, rng: np.random.Generator) -> np.ndarray:
    """Runs drawn with replacement within each task: [runs, tasks, …] → [runs, tasks, …, reps]."""
    if matrix.ndim < 2 or not matrix.size or np.isnan(matrix).any():
        raise ValueError(
            f"scores must be a filled matrix [runs, tasks, …] without nan, not one of shape {matrix.shape}"
        )
    runs, tasks = matrix.shape[:2]
    picks = rng.integers(runs, size=(runs, tasks, reps))
    return np.moveaxis(matrix[picks, np.arange(tasks)[:, None]], 2, -1)
