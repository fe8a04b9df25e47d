"""`d4rl:FILE.hdf5`: D4RL's flat HDF5 files (Fu et al. 2020), read without D4RL.

AntMaze and Adroit files have `timeouts`; kitchen files have none and end each demonstration in a terminal. AntMaze v2
was relabelled: each step near the goal is rewarded and terminal while the recorded ant walks on, so that cutting at
terminals leaves many episodes of one step. They are kept, as the official loader keeps them.
"""

from __future__ import annotations

import os

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.rows import episodes_from_rows, known
from calql.extras import needed_for
from calql.types import InputError


def read_d4rl(path: str | os.PathLike) -> Episodes:
    """The episodes of a D4RL file.

    Raises InputError if the file is missing, is not HDF5, is truncated, or holds no such data.
    """
    uri, arrays = f"d4rl:{os.fspath(path)}", {}
    with needed_for(uri):
        import h5py  # here, because the import is slow and most runs do not need it

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if known(name) and isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item[()])

    if not os.path.isfile(path):
        raise InputError(f"{uri}: there is no such file; check the path")
    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except Exception as error:  # h5py fails on damaged bytes in many ways: KeyError, RuntimeError, MemoryError…
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(" :")
        raise InputError(f"{uri}: not a complete HDF5 file ({reason}); download or export it again") from error
    return episodes_from_rows(arrays, uri)
