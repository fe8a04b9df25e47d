"""Steps at a fixed rate, and a report on how well it was kept."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

KEPT = 100_000
"""Number of latest steps that a report covers."""
TOLERANCE = 0.1
"""A step is late if it begins more than this share of a period after it was due."""


class Pace:
    """A clock that ticks `rate` times per second; missed ticks are left out, never made up for in a hurry."""

    def __init__(self, rate: float) -> None:
        self.rate, self.period = rate, 1.0 / rate
        self.late = self.steps = 0
        self._periods: deque[float] = deque(maxlen=KEPT)
        self._due = self._last = None

    def begin(self) -> None:
        """The next tick comes at once: an episode begins."""
        self._due = self._last = None

    def wait(self) -> None:
        """Return at the next tick."""
        if self._due is not None and (left := self._due - time.perf_counter()) > 0:
            time.sleep(left)
        now = time.perf_counter()
        due = now if self._due is None else self._due
        if self._last is not None:
            self._periods.append(now - self._last)
        self.late += now - due > TOLERANCE * self.period
        self.steps += 1
        self._last, self._due = now, due + self.period if now < due + self.period else now + self.period

    def report(self) -> dict[str, Any]:
        """Steps, late steps, and percentiles in ms of the periods and of their differences from 1 / rate."""
        periods = np.array(self._periods)
        return {
            "rate_hz": self.rate,
            "steps": self.steps,
            "late_steps": self.late,
            "period_ms": percentiles(periods),
            "error_ms": percentiles(np.abs(periods - self.period)),
        }


def percentiles(seconds: np.ndarray) -> dict[str, float] | None:
    """Median, 99th percentile and maximum, in ms; None if there are no values."""
    if not len(seconds):
        return None
    values = 1e3 * np.percentile(seconds, (50, 99, 100))
    return dict(zip(("median", "p99", "max"), map(float, values.round(4)), strict=True))
