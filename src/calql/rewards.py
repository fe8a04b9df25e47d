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
    """The reward map scale · r + bias of a task, and what is known of its raw rewards r.

    Raises InputError where the scale is not positive, a number is not finite, or `low` lies above `high`.
    """

    scale: Annotated[float, Meta(gt=0)] = 1.0
    """Rewards are mapped to scale · r + bias before anything else sees them (data and environment alike)."""
    bias: float = 0.0
    """See `scale`."""
    low: float | None = None
    """Lowest raw reward of one step; None: unknown. Mapped, `low` and `high` bound Q by [low, high] / (1 − γ)."""
    high: float | None = None
    """Highest raw reward of one step; None: unknown."""
    failing: float | None = None
    """Raw reward of a failing step in a sparse task: see `returns`. None: no such rule."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not math.isfinite(value):
                raise InputError(f"rewards.{name} is {value}; it must be a finite number")
        if self.scale <= 0.0:
            raise InputError(f"rewards.scale is {self.scale}; it must be above 0")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise InputError(f"rewards.low {self.low} lies above rewards.high {self.high}; exchange them")

    def map(self, raw: Any) -> Any:
        """scale · r + bias, for a number or an array of raw rewards."""
        return self.scale * raw + self.bias

    def fails(self, raw: np.ndarray) -> bool:
        """Whether every step of an episode with these raw rewards [T] fails. False where `failing` is unknown."""
        return self.failing is not None and bool(np.allclose(self.map(raw), self.map(self.failing)))

    def successes(self, raw: np.ndarray) -> np.ndarray | None:
        """[T] bool: steps that paid more than `failing`, or `high` if that is unknown; None if both are."""
        mapped = np.asarray(self.map(raw))
        if self.failing is not None:
            return mapped > self.map(self.failing) + 1e-6
        return None if self.high is None else mapped >= self.map(self.high) - 1e-6

    def returns(self, raw: np.ndarray, terminations: np.ndarray, discount: float, tail: bool = False) -> np.ndarray:
        """Monte-Carlo return on mapped rewards from every step of one episode, [T] float32.

        Two rules give the value after an episode that was cut; after a termination it is 0:

        * If every step fails, the policy would fail for ever: each step since the last termination is worth
          failing / (1 − γ), mapped. (The release applies the rule to episodes that terminate, too; in the paper's
          tasks, where only success terminates, the two agree.)
        * With `tail`, the state after the last step is worth r_last / (1 − γ) instead of 0: what has been reached
          lasts (the co-authors' kitchen runs, `MaxSobolMark/OOO:OOO_for_calql/replay_buffer.py`).

        Args:
            raw: [T] rewards as the environment paid them.
            terminations: [T] bool; nothing is summed across a termination. A time-out is not one.
            discount: γ in [0, 1).
            tail: see above.
        """
        rewards = np.asarray(self.map(raw), np.float32).astype(np.float64)
        ends, value = np.asarray(terminations, bool), 0.0
        if self.fails(raw):
            value = self.map(self.failing) / (1.0 - discount)
            if not ends.any():  # rounded once, not at every step
                return np.full(rewards.shape, value, np.float32)
        elif tail:
            value = float(rewards[-1]) / (1.0 - discount)
        returns = []
        for reward, terminated in zip(rewards[::-1].tolist(), ends[::-1].tolist(), strict=True):
            value = reward + (0.0 if terminated else discount * value)
            returns.append(value)
        return np.array(returns[::-1], np.float32)

    def q_bounds(self, discount: float) -> tuple[float, float] | None:
        """[low, high] / (1 − γ) on mapped rewards, and 0, because episodes end; None if either is unknown."""
        if self.low is None or self.high is None:
            return None
        low, high = (self.map(r) / (1.0 - discount) for r in (self.low, self.high))
        return min(low, 0.0), max(high, 0.0)
