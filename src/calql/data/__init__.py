"""Experience at rest: readers of recorded data, Monte-Carlo returns, the check before training, and local builders."""

from calql.data.episodes import Episodes
from calql.data.load import load

__all__ = ["Episodes", "load"]
