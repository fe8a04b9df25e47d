"""How many gradient steps the values of data need, and which settings are enough for a budget.

A target network that moves by τ per update passes values one step back in about 1/τ updates. After n such backups a
critic misses γⁿ of the future: 5 % after 3/(1 − γ). What is paid at a terminal L steps ahead arrives after L backups in
the mean, but not at once (as a Poisson process does): 95 % of it after about L + 1.65 √L + 1.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from calql.types import Episode

FASTEST = 0.05
"""Largest τ that is advised; faster targets are hardly targets."""
NEAREST = 0.9
"""Smallest γ that is advised."""


def backups(episodes: Sequence[Episode], discount: float) -> float:
    """Mean number of steps, over episodes, that values must be passed back."""
    lengths = np.array([e.length for e in episodes])
    ended = np.array([bool(e.terminations[-1]) for e in episodes])
    far = 3.0 / (1.0 - discount)
    arrived = lengths + 1.65 * np.sqrt(lengths) + 1.5
    return float(np.where(ended, np.minimum(arrived, far), far).mean())


def updates_to_converge(episodes: Sequence[Episode], discount: float, target_rate: float) -> int:
    """Gradient steps until values have converged on the data, to within about 5 %; in hundreds, rounded up."""
    return 100 * math.ceil(backups(episodes, discount) / target_rate / 100.0)


def enough(episodes: Sequence[Episode], updates: int, discount: float, target_rate: float) -> list[str]:
    """Settings of which each alone is enough for values to converge, where `updates` are too few: more steps, a faster
    target network, a smaller discount."""
    needed = updates_to_converge(episodes, discount, target_rate)
    ways = [f"offline_steps={needed}"]
    for rate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, FASTEST):
        if rate > target_rate and updates_to_converge(episodes, discount, rate) <= updates:
            ways.append(f"tau={rate:g}")
            break
    for smaller in (0.999, 0.998, 0.995, 0.99, 0.98, 0.97, 0.95, NEAREST):
        if smaller < discount and updates_to_converge(episodes, smaller, target_rate) <= updates:
            ways.append(
                f"discount={smaller:g} (what lies further than {1 / (1 - smaller):.0f} steps then counts little)"
            )
            break
    return ways
