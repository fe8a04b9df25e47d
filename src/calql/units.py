"""Units of actions: the environment's own outside (logs, environment, policy), [−1, 1] inside. One class converts."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from calql.types import InputError

ActionUnit = Literal["auto", "env", "unit"]
"""Unit of recorded actions: `env`, the environment's own; `unit`, [−1, 1], where −1 and 1 are the environment's
bounds; `auto`, the one that the recording and the environment agree on."""


@dataclasses.dataclass(frozen=True, eq=False)
class ActionBounds:
    """Lowest and highest action [A] of an environment or a recording; −1 and 1 stand for them.

    Raises InputError unless both are finite vectors of one length, and `low` is nowhere above `high`.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        # Through text, the shortest that means the number: a float32 of 0.4 is 0.4, not 0.4000000059604645.
        low, high = (np.array([float(str(x)) for x in np.ravel(np.asarray(x))]) for x in (self.low, self.high))
        if np.ndim(self.low) != 1 or low.shape != high.shape or not low.size:
            raise InputError(f"action bounds have shapes {np.shape(self.low)} and {np.shape(self.high)}; use [A] both")
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise InputError(f"action bounds are {low} and {high}; they must be finite, the lower ones first")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @classmethod
    def unit(cls, count: int) -> ActionBounds:
        """The bounds ±1 of `count` components."""
        return cls(-np.ones(count), np.ones(count))

    @classmethod
    def of(cls, space: Any) -> ActionBounds | None:
        """The bounds of a Gymnasium space; None unless it is a Box of shape [A] with finite bounds."""
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        if low is None or high is None or np.ndim(low) != 1 or not (np.isfinite(low).all() and np.isfinite(high).all()):
            return None
        return cls(low, high)

    @property
    def is_unit(self) -> bool:
        """Whether both are ±1, so that converting changes nothing."""
        return bool((self.low == -1.0).all() and (self.high == 1.0).all())

    @property
    def size(self) -> int:
        """Number of components A."""
        return len(self.low)

    def to_unit(self, actions: np.ndarray) -> np.ndarray:
        """Actions […, A] in this unit → float32 […, A], where −1 is `low` and 1 is `high`; nothing is clipped.

        A component whose bounds are equal becomes 0.
        """
        actions = np.asarray(actions)
        if self.is_unit:
            return actions.astype(np.float32, copy=False)
        width = self.high - self.low
        share = (actions.astype(np.float64) - self.low) / np.where(width > 0.0, width, 1.0)
        return np.where(width > 0.0, 2.0 * share - 1.0, 0.0).astype(np.float32)

    def from_unit(self, actions: np.ndarray) -> np.ndarray:
        """The inverse of `to_unit`: float64 […, A] in this unit, clipped to the bounds."""
        share = (np.asarray(actions, np.float64) + 1.0) * 0.5
        return np.clip(self.low + share * (self.high - self.low), self.low, self.high)

    def beyond(self, actions: np.ndarray) -> np.ndarray:
        """[…, A] how far actions lie outside, as a share of the largest bound of their component; 0 inside."""
        largest = np.maximum(np.maximum(abs(self.low), abs(self.high)), 1e-12)
        return np.maximum(np.maximum(self.low - actions, actions - self.high), 0.0) / largest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActionBounds):
            return NotImplemented
        return np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)

    def __hash__(self) -> int:
        return hash((self.low.tobytes(), self.high.tobytes()))

    def __str__(self) -> str:
        """`[−0.4, 0.4]`, or one pair per component if they differ."""
        pairs = [f"[{low:.4g}, {high:.4g}]" for low, high in zip(self.low, self.high, strict=True)]
        pairs = pairs[:1] if len(set(pairs)) == 1 else pairs
        return " × ".join(pairs[:4] + ["…"] * (len(pairs) > 4)).replace("-", "−")
