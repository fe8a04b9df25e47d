"""The reward map, the range of rewards, and returns.

Returns follow the official release (`nakamotoo/Cal-QL:replay_buffer.py`, `calc_return_to_go`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from calql.types import InputError


@dataclasses.dataclass(frozen=True)
class Rewards:
    """The reward map scale · r + bias of a task, and the range of its raw rewards r.

    Raises InputError if the scale is not positive, a number is not finite, or `low` is above `high`.
    """

    scale: Annotated[float, Meta(gt=0)] = 1.0
    """Raw rewards r, of the data and of the environment, are mapped to scale · r + bias before any other use."""
    bias: float = 0.0
    """Constant added by the reward map scale · r + bias."""
    low: float | None = None
    """Lowest raw reward of one step; None: unknown. After the map, Q is bounded by [low, high] / (1 − γ)."""
    high: float | None = None
    """Highest raw reward of one step; None: unknown."""
    failing: float | None = None
    """Raw reward of a failing step in a task with sparse rewards: an episode that was cut and has no other reward gets
    the return failing / (1 − γ), mapped. None: no such rule."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not math.isfinite(value):
                raise InputError(f"rewards.{name} is {value}; it must be a finite number")
        if self.scale <= 0.0:
            raise InputError(f"rewards.scale is {self.scale}; it must be above 0")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(f"rewards.low {self.low} lies above rewards.high {self.high}; exchange them")

    def holds(self, lowest: float, highest: float) -> bool:
        """Whether raw rewards from `lowest` to `highest` lie within the stated range."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low - 1e-6 <= lowest and highest <= high + 1e-6

    def map(self, raw: Any) -> Any:
        """scale · r + bias, for a number or an array of raw rewards."""
        return self.scale * raw + self.bias

    def fails(self, raw: np.ndarray) -> bool:
        """Whether all raw rewards [T] of an episode equal `failing`. False if `failing` is None."""
        return self.failing is not None and bool(np.allclose(self.map(raw), self.map(self.failing)))

    def successes(self, raw: np.ndarray) -> np.ndarray | None:
        """[T] bool: steps whose raw reward [T] is above `failing`, or at least `high` if `failing` is None. None if
        both are None."""
        mapped = np.asarray(self.map(raw))
        if self.failing is not None:
            return mapped > self.map(self.failing) + 1e-6
        return None if self.high is None else mapped >= self.map(self.high) - 1e-6

    def returns(self, raw: np.ndarray, terminations: np.ndarray, discount: float, tail: bool = False) -> np.ndarray:
        """Monte-Carlo return on mapped rewards from every step of one episode, [T] float32.

        The value of the state after the last step is 0, with two exceptions for episodes that were cut:

        * If every step fails, the policy is assumed to fail for ever: every step after the last termination has the
          return failing / (1 − γ), mapped. (The release applies this rule also to episodes that terminate; in the
          paper's tasks only success terminates, so there is no difference.)
        * With `tail`, the value of the state after the last step is r_last / (1 − γ): the last reward is assumed to
          continue for ever (the co-authors' kitchen runs, `MaxSobolMark/OOO:OOO_for_calql/replay_buffer.py`).

        Args:
            raw: [T] raw rewards.
            terminations: [T] bool; the return of a step stops at the next termination. A time-out is not a termination.
            discount: γ in [0, 1).
            tail: whether the last reward continues after the end of an episode that was cut.
        """
        rewards = np.asarray(self.map(raw), np.float32).astype(np.float64)
        ends, value = np.asarray(terminations, bool), 0.0
        if self.fails(raw):
            value = self.map(self.failing) / (1.0 - discount)
            if not ends.any():  # the same value at every step, without accumulated rounding errors
                return np.full(rewards.shape, value, np.float32)
        elif tail:
            value = float(rewards[-1]) / (1.0 - discount)
        returns = []
        for reward, terminated in zip(rewards[::-1].tolist(), ends[::-1].tolist(), strict=True):
            value = reward + (0.0 if terminated else discount * value)
            returns.append(value)
        return np.array(returns[::-1], np.float32)

    def q_bounds(self, discount: float) -> tuple[float, float] | None:
        """Bounds of Q on mapped rewards: [low, high] / (1 − γ), extended to contain 0, because episodes end. None if
        `low` or `high` is unknown."""
        if self.low is None or self.high is None:
            return None
        low, high = (self.map(r) / (1.0 - discount) for r in (self.low, self.high))
        return min(low, 0.0), max(high, 0.0)
