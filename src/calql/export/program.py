"""A policy as a list of array operations, which both forms of an export are written from. `trace` makes one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Value(NamedTuple):
    """A result that depends on the observation."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


Operand = Value | np.ndarray
"""A result, or a constant."""


class Operation(NamedTuple):
    """A step of a program."""

    name: str
    """A key of `act.OPERATIONS`."""
    inputs: list[str]
    """Names of earlier results, of inputs and of constants."""
    output: str
    options: dict[str, Any]
    """Keyword arguments; plain numbers, texts and lists."""


class Program(NamedTuple):
    """A pure function of named arrays."""

    inputs: dict[str, Value]
    operations: list[Operation]
    output: Value
    constants: dict[str, np.ndarray]
