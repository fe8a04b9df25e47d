"""Limits of what a machine is given to execute: lowest and highest action, and the largest change per step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from calql.types import InputError

Positive = Annotated[float, Meta(gt=0)]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of executed actions, in the environment's own unit: one number, or one per component.

    Where none is stated, the action space alone limits.
    """

    low: float | tuple[float, ...] | None = None
    """Lowest executed action; None: the lower bound of the action space."""
    high: float | tuple[float, ...] | None = None
    """Highest executed action; None: the upper bound of the action space."""
    change: Positive | tuple[Positive, ...] | None = None
    """Largest change of an executed action from one step to the next; None: any."""
    rest: float | tuple[float, ...] | None = None
    """Action before the first one of an episode, for `change`; None: the first one is free."""

    def tightened(self, other: Limits) -> Limits:
        """The limits that hold both; the `rest` is the other's if it states one.

        Raises InputError if they are for different numbers of components.
        """

        def both(name: str, tighter: Callable[..., Any]) -> Any:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None or theirs is None:
                return mine if theirs is None else theirs
            try:
                return tuple(np.atleast_1d(tighter(mine, theirs)).tolist())
            except ValueError:
                raise InputError(f"limits.{name} is {mine} in one place and {theirs} in another; correct one") from None

        rest = self.rest if other.rest is None else other.rest
        return Limits(both("low", np.maximum), both("high", np.minimum), both("change", np.minimum), rest)


class Limiter:
    """Limits of a machine's actions [A], applied to one action after the other.

    Raises InputError if the limits do not fit the action space, or leave no action.
    """

    def __init__(self, limits: Limits, low: np.ndarray, high: np.ndarray) -> None:
        """`low` and `high`: bounds [A] of the action space, in its dtype."""
        self.dtype = low.dtype
        self.whole = np.issubdtype(self.dtype, np.integer)
        self.change = None if limits.change is None else self._each("change", limits.change, len(low))
        self.low, self.high = low.astype(np.float64), high.astype(np.float64)
        if limits.low is not None:
            self.low = np.maximum(self.low, self._numbers("low", limits.low, len(low), np.ceil))
        if limits.high is not None:
            self.high = np.minimum(self.high, self._numbers("high", limits.high, len(low), np.floor))
        if not (self.low <= self.high).all():
            raise InputError(
                f"limits from {self.low} to {self.high} leave no action; correct limits.low or limits.high"
            )
        self.rest = None if limits.rest is None else self._numbers("rest", limits.rest, len(low), np.rint)
        if self.rest is not None and not ((self.low <= self.rest) & (self.rest <= self.high)).all():
            raise InputError(f"limits.rest is {self.rest}, outside {self.low} to {self.high}; correct it")
        self.last = self.rest

    def begin(self) -> None:
        """Begin an episode."""
        self.last = self.rest

    def __call__(self, action: Any) -> np.ndarray:
        """The nearest action [A] within the limits. Raises ValueError if the action is not [A] finite numbers."""
        asked = np.asarray(action, np.float64)
        if asked.shape != self.low.shape or not np.isfinite(asked).all():
            raise ValueError(f"the action is {action}; it must be {len(self.low)} finite numbers")
        low, high = self.low, self.high
        if self.change is not None and self.last is not None:
            low, high = np.maximum(low, self.last - self.change), np.minimum(high, self.last + self.change)
        if self.whole:
            executed = np.clip(np.rint(asked), np.ceil(low), np.floor(high)).astype(self.dtype)
        else:  # rounding to the machine's dtype must not lead beyond the limits
            executed = np.clip(asked, low, high).astype(self.dtype)
            executed = np.where(executed.astype(np.float64) < low, np.nextafter(executed, np.inf), executed)
            executed = np.where(executed.astype(np.float64) > high, np.nextafter(executed, -np.inf), executed)
            executed = executed.astype(self.dtype)
        self.last = executed.astype(np.float64)
        return executed

    def _numbers(self, name: str, value: Any, size: int, whole: Callable[..., np.ndarray]) -> np.ndarray:
        """[A] float64, as the dtype of the action space holds them."""
        numbers = self._each(name, value, size)
        return whole(numbers) if self.whole else numbers.astype(self.dtype).astype(np.float64)

    @staticmethod
    def _each(name: str, value: Any, size: int) -> np.ndarray:
        numbers = np.asarray(value, np.float64)
        if numbers.shape not in ((), (1,), (size,)):
            raise InputError(f"limits.{name} has {numbers.size} numbers for {size} actions; give one, or one for each")
        if not np.isfinite(numbers).all() or (name == "change" and not (numbers > 0).all()):
            raise InputError(f"limits.{name} is {value}; it must be finite, and limits.change positive")
        return np.broadcast_to(numbers, (size,))
