"""Columns of a table → arrays: how the names of columns say which of them form one observation or action.

observation.x, observation.y          a flat observation [N, 2], in the order of the columns
obs_0, obs_1, …, obs_10               the same, in the order of the numbers
observation.arm.x, observation.arm.y  a dict observation with the key `arm`
observation.state (of lists)          a flat observation if it is the only one, else the key `state`
action.left, action_0, action[0]      an action [N, A]; so do `/` instead of `.`, and every synonym
reward, terminated, episode, …        one number per row (`calql.data.readers.names`)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from calql.data.readers.names import NESTED, OURS, meaning, same
from calql.types import InputError

VECTORS = (*NESTED, "actions")
_BASES = sorted((name for name, ours in OURS.items() if ours in VECTORS), key=len, reverse=True)
_NAME = re.compile(rf"({'|'.join(map(re.escape, _BASES))})(?:[./](.+)|\[(.+)\]|_(\d+))?")


class Column(NamedTuple):
    """A column that belongs to an observation or action."""

    name: str
    path: tuple[str, ...]
    """Parts of the name after `observation`, `action` and so on."""
    vector: bool
    """Whether its entries are lists or images instead of numbers."""


Leaves = dict[str, list[Column]]
"""`observations/key` → the columns that form it."""


def group_columns(
    uri: str, names: Sequence[str], vectors: Collection[str] = (), keys: str | int | None = None
) -> tuple[Leaves, list[str]]:
    """The columns of every array, in order, by our name of the array; and the names that have no meaning.

    Args:
        uri: for messages.
        names: of all columns, in the order of the table.
        vectors: of the columns whose entries are lists or images.
        keys: `A,B` if only these parts of the observations are wanted.

    Raises:
        InputError: a name occurs twice, a key does not exist, a number is left out, or names contradict each other.
    """
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise InputError(f"{uri}: the column '{twice[0]}' occurs twice; rename or delete one")
    parts: dict[str, list[Column]] = {}
    leaves: Leaves = {}
    unused = []
    for name in names:
        if (split := _NAME.fullmatch(name)) is not None:
            rest = next(filter(None, split.groups()[1:]), "")
            path = tuple(part for part in re.split(r"[./]", rest) if part)
            parts.setdefault(OURS[split[1]], []).append(Column(name, path, name in vectors))
        elif (ours := meaning(name)) is not None and ours not in VECTORS:
            leaves.setdefault(ours, []).append(Column(name, (), False))
        else:
            unused.append(name)
    if keys is not None:
        wanted = {tuple(re.split(r"[./]", key)) for key in str(keys).split(",") if key}
        there = {c.path[: i + 1] for ours in NESTED for c in parts.get(ours, []) for i in range(len(c.path))}
        if absent := sorted(wanted - there):
            known = ", ".join(sorted(".".join(c.path) for c in parts.get("observations", []))) or "nothing"
            raise InputError(f"{uri}: there is no observation '{'.'.join(absent[0])}'; there are {known}")
        for ours in (name for name in NESTED if name in parts):
            kept = [c for c in parts[ours] if any(c.path[:i] in wanted for i in range(1, len(c.path) + 1))]
            unused += [c.name for c in parts[ours] if c not in kept]
            parts[ours] = kept
    for ours, columns in parts.items():
        leaves |= _leaves(uri, ours, columns)
    return leaves, unused


def _leaves(uri: str, ours: str, columns: list[Column]) -> Leaves:
    """The arrays of one observation or action."""
    flat = ours == "actions" or all(not c.vector and len(c.path) == 1 for c in columns)
    if flat or (len(columns) == 1 and len(columns[0].path) <= 1):
        return {ours: _in_order(uri, columns)}
    found: Leaves = {}
    for column in columns:
        key = column.path if column.vector or len(column.path) == 1 else column.path[:-1]
        found.setdefault("/".join((ours, *key)), []).append(column)
    for name, group in found.items():
        whole = [c for c in group if c.vector or "/".join((ours, *c.path)) == name]
        if name == ours or (whole and len(group) > 1):
            own = (whole or group)[0].name
            other = next(c.name for c in columns if c.name != own)
            raise InputError(
                f"{uri}: '{own}' is an array of its own beside '{other}'; name its part, such as {own}.state, or "
                "rename the other"
            )
    return {name: _in_order(uri, group) for name, group in found.items()}


def _in_order(uri: str, columns: list[Column]) -> list[Column]:
    """The columns of one array: by number if their names end in numbers and are alike before them, else as they are."""
    ends = [c.path[-1] if c.path else "" for c in columns]
    if len(columns) < 2 or not all(end.isascii() and end.isdecimal() for end in ends):
        return columns
    if len({c.path[:-1] for c in columns}) > 1:
        return columns
    ordered = sorted(columns, key=lambda c: int(c.path[-1]))
    numbers = [int(c.path[-1]) for c in ordered]
    if numbers != list(range(min(numbers[0], 1), len(numbers) + min(numbers[0], 1))):
        raise InputError(
            f"{uri}: the columns {', '.join(c.name for c in ordered)} are not numbered 0, 1, 2, … (or from 1); one is "
            "missing or there twice: correct the names"
        )
    return ordered


def arrays_of(
    uri: str, leaves: Leaves, read: Callable[[str], np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays, and notes on the order of those that were put together from columns.

    `read` gives one column: [N], or [N, …] if its entries are lists or images. Raises InputError as `read` does, and
    if columns with the same meaning differ.
    """
    arrays: dict[str, np.ndarray] = {}
    notes = []
    for ours, columns in leaves.items():
        if ours in ("actions", *NESTED) or ours.split("/")[0] in NESTED:
            columns = _like(uri, ours, columns, leaves)
            arrays[ours] = _joined(uri, ours, [read(c.name) for c in columns])
            if len(columns) > 1 and not ours.startswith("next_"):
                notes.append(f"{ours} are [{', '.join(c.name for c in columns)}]")
            continue
        first, *others = (read(c.name) for c in columns)
        for other, column in zip(others, columns[1:], strict=True):
            if not same(first, other):
                raise InputError(
                    f"{uri}: '{columns[0].name}' and '{column.name}' mean the same ({ours}), but differ; leave one out"
                )
        arrays[ours] = first
    return arrays, tuple(notes)


def own_names(leaves: Leaves) -> dict[str, str]:
    """{our name: the column's} of the arrays that are one column."""
    return {ours: columns[0].name for ours, columns in leaves.items() if len(columns) == 1}


def action_names(leaves: Leaves) -> tuple[str, ...] | None:
    """The names that the columns of an action give its components; None if they are numbered, or lists."""
    names = [".".join(column.path) for column in leaves.get("actions", []) if not column.vector]
    return tuple(names) if names and all(name and not name.isdecimal() for name in names) else None


def _like(uri: str, ours: str, columns: list[Column], leaves: Leaves) -> list[Column]:
    """The columns of a next observation in the order of the observation's."""
    if not ours.startswith("next_") or (len(columns) == 1 and columns[0].vector):
        return columns
    now = leaves.get(ours.removeprefix("next_"), columns)
    by_path = {c.path: c for c in columns}
    if {c.path for c in now} != by_path.keys():
        raise InputError(f"{uri}: '{ours}' must have the parts of the observation; correct the names")
    return [by_path[c.path] for c in now]


def _joined(uri: str, ours: str, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Several columns as one array; a single column of numbers [N] is [N, 1]."""
    parts = list(parts)
    wide = [part[:, None] if part.ndim == 1 else part for part in parts]
    if len(wide) == 1:
        return wide[0]
    if any(part.ndim != 2 for part in wide):
        raise InputError(f"{uri}: '{ours}' is put together from columns of which one holds arrays; name it by itself")
    return np.concatenate(wide, axis=1)
