"""What others report, for comparison: the paper (Tables 1 and 2, 6 seeds), and offline scores on D4RL's own data."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Published(NamedTuple):
    """What the paper reports for a method on a task."""

    score_before: float | None
    """In [0, 1]; None for methods without pre-training."""
    score_after: float
    regret: float


@cache
def published() -> dict[tuple[str, str], Published]:
    """(task id, method id) → the paper's numbers."""
    with (files("calql.paper") / "published.csv").open(encoding="utf-8") as lines:
        return {
            (row["task"], row["method"]): Published(
                float(row["score_before"]) if row["score_before"] else None,
                float(row["score_after"]),
                float(row["regret"]),
            )
            for row in csv.DictReader(lines)
        }


@cache
def on_d4rl() -> dict[tuple[str, str], float]:
    """(task id, method id) → offline score in [0, 1] on D4RL's antmaze-v0 and kitchen-v0: arXiv 2110.06169, Table 1."""
    with (files("calql.paper") / "d4rl.csv").open(encoding="utf-8") as lines:
        return {(row["task"], row["method"]): float(row["score"]) for row in csv.DictReader(lines)}
