"""`local:TASK`: the data built by `calql data build TASK`, a Minari data set on this machine."""

from __future__ import annotations

import re

from calql.data.episodes import Episodes
from calql.data.readers.minari import read_minari, root
from calql.types import InputError


def local_id(name: str) -> str:
    """The Minari id of `local:TASK-vN`; without a version, that of the first."""
    return f"calql/{name}" if re.search(r"-v\d+$", name) else f"calql/{name}-v0"


def is_built(name: str) -> bool:
    """Whether the data set of `local:NAME` is on this machine."""
    return (root() / local_id(name) / "data").is_dir()


def read_local(name: str) -> Episodes:
    """The data built by `calql data build local:NAME`. Raises InputError if they have not been built."""
    if not is_built(name):
        raise InputError(f"local:{name}: there is no such data set in {root()}; run 'calql data build local:{name}'")
    return read_minari(local_id(name), uri=f"local:{name}")
