"""Tables 1 and 2 of the paper (6 seeds, its own budget), for comparison."""

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
