"""`d4rl:FILE.hdf5`: D4RL's flat HDF5 files (Fu et al. 2020), read without D4RL.

AntMaze and Adroit files have `timeouts`; kitchen files have none and end each demonstration in a terminal. AntMaze v2
was relabelled: each step near the goal is rewarded and terminal while the recorded ant walks on, so that cutting at
terminals leaves many episodes of one step. They are kept, as the official loader keeps them.
"""

from __future__ import annotations

import os

from calql.data.episodes import Episodes
from calql.data.readers.files import split_options
from calql.data.readers.hdf5 import read_hdf5
from calql.data.readers.names import meaning, read_known
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.types import InputError


def read_d4rl(path: str | os.PathLike) -> Episodes:
    """The episodes of a D4RL file, or of your own with one row per step in the arrays of `npz:`.

    Args:
        path: the file; `#success=last` after it says that every episode ends in success.

    Raises:
        InputError: the file is missing, is not HDF5, is truncated, or holds no such data.
    """
    uri = f"d4rl:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str)

    def take(sets: dict) -> Episodes:
        if not any(meaning(name) for name in sets):
            _refuse_other_layout(uri, plain, sets)
        arrays, unused, names = read_known(uri, sets, lambda name: sets[name][()])
        return episodes_from_rows(
            arrays,
            uri,
            unused=unused,
            names=names,
            drop_unfinished=True,
            last_succeeds=ends_in_success(uri, options),
        )

    return read_hdf5(uri, plain, take)


def _refuse_other_layout(uri: str, path: str, sets: dict) -> None:
    """Raise InputError if the file has a group for every episode, as robomimic's and Minari's files do."""
    groups = {name.rpartition("/")[0] for name in sets if meaning(name.rpartition("/")[2]) == "actions"}
    if groups and all(group.startswith("episode_") for group in groups) and os.path.basename(path) == "main_data.hdf5":
        raise InputError(f"{uri}: this is the file of a Minari data set; name the set: minari:ID (see calql data list)")
    if groups:
        raise InputError(
            f"{uri}: it has a group for every episode ({sorted(groups)[0]}, …), as robomimic's files; "
            f"use robomimic:{path}"
        )
