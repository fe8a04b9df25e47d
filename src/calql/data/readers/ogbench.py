"""`ogbench:FILE.npz`: OGBench's files (Park et al. 2025), read without OGBench.

`terminals` are the last rows of trajectories, whose actions lead to no recorded state; `masks` are 0 where the task is
solved, `valids` 0 in last rows. The published files have neither rewards nor masks: those belong to a task, and
OGBench computes them. Save what it makes, and `npz:` reads it, too:

    _, data, _ = ogbench.make_env_and_datasets("cube-single-play-singletask-v0")
    np.savez("cube.npz", **data)
"""

from __future__ import annotations

import os

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.files import split_options
from calql.data.readers.npz import read_archive
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.types import InputError


def read_ogbench(path: str | os.PathLike) -> Episodes:
    """The trajectories of a file, each cut at its end; its terminals are inside it, where `masks` are 0.

    Args:
        path: the file; `#success=last` after it says that every trajectory ends in success.

    Raises:
        InputError: the file is missing or damaged, has no `terminals`, or no rewards.
    """
    uri = f"ogbench:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str)
    arrays, unused, names = read_archive(uri, plain)
    if "rewards" not in arrays and "successes" not in arrays and not options:
        raise InputError(
            f"{uri}: the file has no rewards, which belong to a task; save what OGBench makes of it: np.savez(FILE, "
            "**ogbench.make_env_and_datasets('…-singletask-v0')[1])"
        )
    if "masks" not in arrays and "terminals" in arrays:  # they mark ends of trajectories; nothing marks the task's end
        ends = arrays.pop("terminals")
        if "valids" not in arrays:
            arrays["episode_ends"] = ends
        if not options:
            arrays["masks"] = np.ones_like(ends)
    return episodes_from_rows(arrays, uri, unused=unused, names=names, last_succeeds=ends_in_success(uri, options))
