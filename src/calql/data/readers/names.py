"""Names of arrays and columns in other people's recordings: one table of synonyms, and what was found under them.

A name may be a path: `obs/arm` is `observations/arm`. What has no meaning here is not read, and named in a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from calql.types import InputError

SYNONYMS: dict[str, tuple[str, ...]] = {
    "observations": ("observation", "obs"),
    "next_observations": ("next_observation", "next_obs", "next.observation"),
    "actions": ("action",),
    "rewards": ("reward", "next.reward"),
    "terminals": ("terminal", "terminations", "termination", "terminated", "next.terminated"),
    "timeouts": ("timeout", "truncations", "truncation", "truncated", "next.truncated"),
    "dones": ("done", "dones_float", "next.done"),
    "masks": (),
    "valids": (),
    "successes": ("success", "is_success", "next.success"),
    "interventions": ("intervention", "is_intervention"),
    "episode_ends": (),
    "episodes": ("episode", "episode_id", "episode_ids", "episode_index"),
}
"""Our name → other names of the same: those of Gymnasium, LeRobot (`next.`), robomimic and loggers.

`dones` are ends of either kind, `masks` are 0 where no value follows, `valids` are 0 in rows that only hold a last
observation, `episodes` number the episodes, `interventions` are 1 where a person acted.
"""
OURS = {name: ours for ours, others in SYNONYMS.items() for name in (ours, *others)}
NESTED = ("observations", "next_observations")
"""What may be a dict of arrays."""


def meaning(name: str) -> str | None:
    """Our name of an array, such as `observations/arm` for `obs/arm`; None if it has no meaning here."""
    first, slash, rest = name.partition("/")
    ours = OURS.get(first)
    return None if ours is None or (slash and ours not in NESTED) else ours + slash + rest


def read_known(
    uri: str, names: Iterable[str], read: Callable[[str], Any]
) -> tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, str]]:
    """The arrays with a meaning, under our names; the names of all others, which are not read; and {ours: the file's}.

    Raises InputError if two arrays with the same meaning differ, or if an observation is both an array and a dict.
    """
    arrays: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    unused = []
    for name in names:
        if (ours := meaning(name)) is None:
            unused.append(name)
            continue
        array = np.asarray(read(name))
        if ours in arrays and not same(arrays[ours], array):
            raise InputError(
                f"{uri}: '{origin[ours]}' and '{name}' mean the same ({ours}), but differ; leave one of them out"
            )
        arrays[ours], origin[ours] = array, name
    refuse_nested_twice(uri, arrays)
    return arrays, tuple(unused), origin


def refuse_nested_twice(uri: str, arrays: Iterable[str]) -> None:
    """Raise InputError if a name is both an array and a group of arrays, such as `obs` and `obs/arm`."""
    names = sorted(arrays)
    for name in names:
        if inside := [other for other in names if other.startswith(f"{name}/")]:
            raise InputError(f"{uri}: there are both '{name}' and '{inside[0]}'; leave one of them out, or rename it")


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same shape and entries; NaN equals NaN."""
    numeric = one.dtype.kind in "fc" and other.dtype.kind in "fc"
    return np.array_equal(one, other, equal_nan=numeric)


def found(arrays: Mapping[str, Any] | Iterable[str], unused: Iterable[str] = ()) -> str:
    """The names that a file holds, as text for a message."""
    return ", ".join(sorted({*arrays, *unused})) or "nothing"


def unused_note(unused: Iterable[str]) -> tuple[str, ...]:
    """The note that names what was not read; nothing if everything was."""
    names = list(unused)
    return (f"not used: {', '.join(names)}",) if names else ()


def keep_keys(uri: str, names: Iterable[str], keys: str | int | None) -> tuple[list[str], list[str]]:
    """(names to read, names left out), if of an observation only some keys are wanted: `keys` is A,B or None for all.

    Raises InputError if there is no such key.
    """
    names = list(names)
    if keys is None:
        return names, []
    wanted = {key for key in str(keys).split(",") if key}
    key_of = {name: key for name in names if (ours := meaning(name)) and (key := ours.partition("/")[2])}
    if absent := sorted(wanted - {*key_of.values()}):
        raise InputError(f"{uri}: there is no observation '{absent[0]}'; there are {found(key_of.values())}")
    left = [name for name, key in key_of.items() if key not in wanted]
    return [name for name in names if name not in left], left
