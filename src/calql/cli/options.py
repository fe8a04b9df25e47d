"""Options that take several values: `--seeds 0 1` and `--seeds 0 --seeds 1` mean the same, and may be mixed."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

from calql.types import InputError

T = TypeVar("T")

Texts = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME …")]
"""Names; one tuple per occurrence of the option."""
Numbers = Annotated[tuple[tuple[int, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="INT …")]
"""Integers; one tuple per occurrence of the option."""
Paths = Annotated[tuple[tuple[Path, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PATH …")]
"""Paths; one tuple per occurrence of the option."""
Settings = Annotated[
    tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="NAME=VALUE …")
]
"""Values of `--set`; one tuple per occurrence of the option."""


def flat(given: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """All values of an option, in the order in which they were given."""
    return tuple(itertools.chain.from_iterable(given))


def refuse_repeated(command: Callable[..., Any] | None, typed: Sequence[str]) -> None:
    """Raise InputError for an option that takes one value and is given twice: which of the two was meant?"""
    if command is None:
        return
    may_repeat = set()
    for name, hint in get_type_hints(command, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if tyro.conf.UseAppendAction in marks or (get_args(hint) or (hint,))[0] is bool:
            may_repeat.add(next((mark.name for mark in marks if getattr(mark, "name", None)), name))
    given = collections.Counter(word.partition("=")[0] for word in typed if word.startswith("--"))
    for option, times in given.items():
        if times > 1 and option[2:].replace("-", "_") not in may_repeat:
            raise InputError(f"{option} is given {times} times, and takes one value; leave it once")
