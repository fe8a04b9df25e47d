"""Recorded data: readers, transitions with returns, and the check before training."""

from calql.data.episodes import Episodes
from calql.data.load import load, open_data
from calql.data.transitions import to_transitions

__all__ = ["Episodes", "load", "open_data", "to_transitions"]
