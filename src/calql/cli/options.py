"""Options that take several values: `--seeds 0 1` and `--seeds 0 --seeds 1` mean the same, and may be mixed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Texts = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME …")]
"""Names; one tuple per occurrence of the option."""
Numbers = Annotated[tuple[tuple[int, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="INT …")]
"""Integers; one tuple per occurrence of the option."""
Settings = Annotated[
    tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="NAME=VALUE …")
]
"""Values of `--set`; one tuple per occurrence of the option."""


def flat(given: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """All values of an option, in the order in which they were given."""
    return tuple(itertools.chain.from_iterable(given))
