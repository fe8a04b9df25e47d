"""Types of hyper-parameters with bounds, which `msgspec` checks when a rule is read from a file or from text."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from msgspec import Meta

from calql.types import InputError

LARGEST = sys.float_info.max
"""The largest finite number; as a bound, it excludes infinity and NaN."""
Count = Annotated[int, Meta(ge=1)]
"""A whole number of at least 1."""
CountOrZero = Annotated[int, Meta(ge=0)]
"""A whole number of at least 0."""
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
"""A finite number above 0."""
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
"""A finite number of at least 0."""
Finite = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
"""A finite number."""
Below1 = Annotated[float, Meta(ge=0, lt=1)]
"""A number in [0, 1)."""
UpTo1 = Annotated[float, Meta(gt=0, le=1)]
"""A number in (0, 1]."""
Between0And1 = Annotated[float, Meta(gt=0, lt=1)]
"""A number in (0, 1)."""
Widths = tuple[Count, ...]
"""Widths of the hidden layers of a network, first to last."""
EncoderKind = Literal["small", "impala"]
"""The kinds of `calql.networks.Encoder`."""


def require_ordered(name: str, bounds: tuple[float, float] | None) -> None:
    """Raises InputError if the lower bound of a range is not below the upper bound."""
    if bounds is not None and not bounds[0] < bounds[1]:
        raise InputError(f"{name} is {bounds[0]:g}, {bounds[1]:g}; it must be two numbers, the smaller one first")
