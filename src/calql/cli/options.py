"""Options that take several values: `--seeds 0 1`, `--seeds 0 --seeds 1` and both together mean the same.

def command(seeds: Numbers = ()) -> int:
    seeds = flat(seeds)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Texts = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME …")]
"""Names; a tuple for each time that the option is given."""
Numbers = Annotated[tuple[tuple[int, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="INT …")]
"""Whole numbers, likewise."""
Settings = Annotated[
    tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="NAME=VALUE …")
]
"""What `--set` was given, likewise."""


def flat(given: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """All values of an option, in the order in which they were given."""
    return tuple(itertools.chain.from_iterable(given))
