"""`local:TASK`: the data built by `calql data build TASK`, a Minari data set on this machine."""

from __future__ import annotations

from calql.data.episodes import Episodes
from calql.data.readers.minari import read_minari, root
from calql.types import InputError


def local_id(task: str) -> str:
    """The Minari id under which `calql data build TASK` stores its data."""
    return f"calql/{task}-v0"


def is_built(task: str) -> bool:
    """Whether the task's local data set is on this machine."""
    return (root() / local_id(task) / "data").is_dir()


def read_local(task: str) -> Episodes:
    """The data built by `calql data build TASK`. Raises InputError if they have not been built."""
    if not is_built(task):
        raise InputError(f"local:{task}: there is no such data set in {root()}; run 'calql data build {task}'")
    return read_minari(local_id(task), uri=f"local:{task}")
