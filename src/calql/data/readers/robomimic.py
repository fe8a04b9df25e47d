"""`robomimic:FILE.hdf5`: robomimic's files (Mandlekar et al. 2021), a group for every demonstration.

    data/demo_0/actions [T, A]        data/demo_0/obs/KEY [T, …]          data/demo_0/rewards [T]
    data/demo_0/dones [T]             data/demo_0/next_obs/KEY [T, …]     (states, infos and the like are not read)

Any HDF5 file with one group per episode is read, whatever the groups are called, if the arrays in them have names that
calql knows. `dones` end the task, as in robomimic. Observations are dicts of all keys, or of those after `#keys=`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.files import natural, split_options
from calql.data.readers.hdf5 import read_hdf5
from calql.data.readers.names import found, keep_keys, meaning, read_known
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.types import InputError


def read_robomimic(path: str | os.PathLike) -> Episodes:
    """The demonstrations of a file, in the order of their numbers.

    Args:
        path: the file; `#keys=A,B` after it reads these keys of the observations alone, and `#success=last` says that
            every demonstration ends in success.

    Raises:
        InputError: the file is missing, is not HDF5, is truncated, or holds no demonstrations with observations.
    """
    uri = f"robomimic:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str, keys=str)
    return read_hdf5(uri, plain, lambda sets: _episodes(uri, sets, options))


def _episodes(uri: str, sets: dict, options: dict) -> Episodes:
    groups = {name.rpartition("/")[0] for name in sets if meaning(name.rpartition("/")[2]) == "actions"} - {""}
    if not groups:
        raise InputError(
            f"{uri}: no group of an episode holds 'actions' (found: {found(sets)}); a flat file is read by "
            "d4rl:FILE.hdf5"
        )
    ordered = sorted(groups, key=natural)
    demos, idle = [], dict.fromkeys(name for name in sets if not name.startswith(tuple(f"{g}/" for g in groups)))
    for group in ordered:
        inside = {name.removeprefix(f"{group}/"): item for name, item in sets.items() if name.startswith(f"{group}/")}
        names, left = keep_keys(uri, inside, options.get("keys"))
        arrays, unused, _ = read_known(f"{uri}: {group}", names, _reader(inside))
        if not any(name.split("/")[0] == "observations" for name in arrays):
            raise InputError(
                f"{uri}: {group} has no observations (found: {found(inside)}); extract them with robomimic's script "
                "dataset_states_to_obs.py"
            )
        demos.append(arrays)
        idle |= dict.fromkeys(f"{os.path.dirname(group)}/*/{name}".lstrip("/") for name in (*unused, *left))
    missing = [g for g, arrays in zip(ordered, demos, strict=True) if arrays.keys() != demos[0].keys()]
    if missing:
        raise InputError(
            f"{uri}: {missing[0]} holds {found(demos[ordered.index(missing[0])])}, but {ordered[0]} holds "
            f"{found(demos[0])}; all must hold the same"
        )
    lengths = [_length(uri, group, arrays) for group, arrays in zip(ordered, demos, strict=True)]
    joined = {name: _joined(uri, name, [arrays[name] for arrays in demos]) for name in demos[0]}
    joined["episodes"] = np.repeat(np.arange(len(demos)), lengths)
    return episodes_from_rows(
        joined, uri, unused=idle, demonstrations=True, last_succeeds=ends_in_success(uri, options)
    )


def _reader(sets: dict) -> Callable[[str], np.ndarray]:
    return lambda name: sets[name][()]


def _length(uri: str, group: str, arrays: dict[str, np.ndarray]) -> int:
    """Number of rows of a demonstration. Raises InputError if its arrays differ in it."""
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len({*lengths.values()}) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"{uri}: the arrays of {group} differ in their number of rows ({told}); export it again")
    return lengths["actions"]


def _joined(uri: str, name: str, parts: list[np.ndarray]) -> np.ndarray:
    """All demonstrations' rows of one array."""
    if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
        shapes = ", ".join(sorted({f"{part.shape[1:]} {part.dtype}" for part in parts}))
        raise InputError(f"{uri}: '{name}' differs between the episodes ({shapes}); all must share shape and dtype")
    return np.concatenate(parts)
