"""A trot for D4RL's ant as a policy without memory, which walks in the AntMaze data.

The network was cloned from a trot that was written by hand and tuned by search, and that depends on a clock of its
own (`tools/make_assets/ant_gait.py`), which learners do not observe. A network that maps the observation and
a direction to the trot's action needs no clock, because the pose of the legs shows the phase: its data are
Markov.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from calql.paper.demonstrators.clone import Clone

ASSET = Path(__file__).parent / "assets" / "ant_clone.safetensors"
Walker = Callable[[np.ndarray, float], np.ndarray]
"""(observation [29], heading in rad) → action [8] in [−1, 1]."""


def walker(clone: Clone) -> Walker:
    """The walker of a cloned network."""
    return lambda observation, heading: clone(inputs(observation, heading))


def load() -> Walker:
    """The walker that ships with the library."""
    return walker(Clone.load(ASSET))


def inputs(observation: np.ndarray, heading: float) -> np.ndarray:
    """[29]: the observation without the ant's position, and the direction."""
    return np.concatenate([observation[2:], (np.cos(heading), np.sin(heading))])
