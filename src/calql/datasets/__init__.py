"""Experience at rest: readers of recorded data, Monte-Carlo returns, the check before training, and local builders."""

from calql.datasets.episodes import Episodes
from calql.datasets.load import load

__all__ = ["Episodes", "load"]
