"""One text names any recording: `minari:ID`, `d4rl:FILE.hdf5`, `awac:DIR#TASK`, `npz:FILE.npz` or `local:TASK`."""

from __future__ import annotations

from typing import Any

from calql.datasets.awac_npy import read_awac
from calql.datasets.d4rl_hdf5 import read_d4rl
from calql.datasets.episodes import Episodes
from calql.datasets.minari_reader import list_local, read_minari, root
from calql.datasets.npz import read_npz
from calql.datasets.success import end_at_success
from calql.tasks import Task
from calql.types import InputError

__all__ = ["list_local", "load", "local_id"]


def local_id(task: str) -> str:
    """The Minari id under which `calql data build TASK` stores its data."""
    return f"calql/{task}-v0"


def read_local(task: str, **options: Any) -> Episodes:
    """The data that `calql data build TASK` made. Raises InputError where it has not been run."""
    if not (root() / local_id(task) / "data").is_dir():
        raise InputError(f"local:{task}: there is no such data set in {root()}; run 'calql data build {task}'")
    return read_minari(local_id(task), download=False, reference=f"local:{task}", **options)


READERS = {
    "minari": read_minari,
    "d4rl": read_d4rl,
    "awac": read_awac,
    "npz": read_npz,
    "local": read_local,
}


def load_for(task: Task, reference: str, cut_at_horizon: bool = False) -> Episodes:
    """The episodes as the task would have cut them: at the first success where it ends there (a note says so).

    Episodes beyond the horizon are kept whole, and `check` warns of them, unless `cut_at_horizon`.
    """
    episodes = load(reference)
    if cut_at_horizon:
        episodes = episodes.truncate_at_horizon(task.horizon)
    return end_at_success(episodes, task) if task.stop_at_success else episodes


def load(reference: str, **options: Any) -> Episodes:
    """The episodes that `reference` names; `options` go to its reader. Raises InputError on bad input."""
    scheme, colon, rest = reference.partition(":")
    if scheme not in READERS or not colon or not rest:
        known = "minari:ID, d4rl:FILE.hdf5, awac:DIR, npz:FILE.npz, local:TASK"
        raise InputError(f"'{reference}' is no data reference; write one of {known}")
    return READERS[scheme](rest, **options)
