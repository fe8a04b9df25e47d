"""The table of formats. A data URI is `scheme:rest`; each scheme is a row here and a file of this folder.

Your own format needs no row: `package.module:function#ARGUMENT` is a data URI too. The function is called with
the text after `#` (without an argument if there is no `#`), and returns `Episodes`, or a sequence of `Episode`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from calql.data.episodes import Episodes
from calql.data.readers.awac import read_awac
from calql.data.readers.csv import read_csv
from calql.data.readers.d4rl import read_d4rl
from calql.data.readers.lerobot import read_lerobot
from calql.data.readers.local import read_local
from calql.data.readers.minari import read_minari
from calql.data.readers.npz import read_npz
from calql.data.readers.ogbench import read_ogbench
from calql.data.readers.parquet import read_parquet
from calql.data.readers.robomimic import read_robomimic


class Format(NamedTuple):
    """A row of the table."""

    read: Callable[..., Episodes]
    """Called with what follows the scheme, and the options of the task's `Source.reader`."""
    form: str
    """Form of the URI, for messages and help."""


READERS: dict[str, Format] = {
    "local": Format(read_local, "local:TASK"),
    "minari": Format(read_minari, "minari:ID"),
    "d4rl": Format(read_d4rl, "d4rl:FILE.hdf5"),
    "awac": Format(read_awac, "awac:DIR"),
    "npz": Format(read_npz, "npz:FILE.npz"),
    "csv": Format(read_csv, "csv:FILE.csv"),
    "parquet": Format(read_parquet, "parquet:FILE.parquet"),
    "lerobot": Format(read_lerobot, "lerobot:DIR"),
    "robomimic": Format(read_robomimic, "robomimic:FILE.hdf5"),
    "ogbench": Format(read_ogbench, "ogbench:FILE.npz"),
}

OWN_FORM = "package.module:reader#ARGUMENT"
FORMS = f"{', '.join(row.form for row in READERS.values())} or {OWN_FORM}"
"""Every form of a data URI, as one text."""
