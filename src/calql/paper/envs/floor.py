"""A maze's floor as numbers, for figures of where data have been."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Floor(NamedTuple):
    """A floor seen from above, in metres."""

    walls: np.ndarray
    """[N, 2] centres of the square walls."""
    cell: float
    """Side of a wall."""
    start: np.ndarray
    """[2] centre of the start region."""
    goal: np.ndarray
    """[2] centre of the goal region."""
    radius: float
    """Radius of the goal."""
    unit: np.ndarray | float
    """Factors from the first two entries of an observation to metres."""
