"""The data sets of an HDF5 file by their full names; soft, external and hard links count like what they lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from calql.data.readers.files import existing_file, reason
from calql.extras import needed_for
from calql.types import InputError

T = TypeVar("T")


def read_hdf5(uri: str, path: str, take: Callable[[dict], T]) -> T:
    """What `take` makes of an open file's data sets, given as {name: h5py.Dataset} in natural order of the file.

    Raises InputError if the file is missing, is not HDF5, is truncated, or has a link that leads nowhere.
    """
    with needed_for(uri):
        import h5py  # here, because the import is slow and most runs do not need it
    full = existing_file(uri, path)
    try:
        with h5py.File(full, "r") as file:
            return take(_datasets(uri, file))
    except InputError:
        raise
    except Exception as error:  # h5py fails on damaged bytes in many ways: KeyError, RuntimeError, MemoryError…
        raise InputError(f"{uri}: not a complete HDF5 file ({reason(error)}); download or export it again") from error


class _Dangling:
    """Stands for a data set behind a link that leads nowhere: an error only if it is read."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __getitem__(self, _: object) -> NoReturn:
        raise InputError(self.message)


def _datasets(uri: str, file: Any) -> dict:
    """{full name: data set}. `visititems` of h5py follows no links and shows a data set with two names once."""
    import h5py

    found: dict[str, Any] = {}

    def walk(group: h5py.Group, prefix: str, above: tuple) -> None:
        here = h5py.h5o.get_info(group.id)  # pyright: ignore[reportAttributeAccessIssue] (compiled)
        if (here.fileno, here.addr) in above:  # a link back to a group that it lies in
            return
        for key in group:
            name = f"{prefix}{key}"
            try:
                item = group[key]
            except (KeyError, OSError):
                link = group.get(key, getlink=True)
                where = ":".join(str(getattr(link, part)) for part in ("filename", "path") if hasattr(link, part))
                found[name] = _Dangling(
                    f"{uri}: the link '{name}' leads to '{where}', which cannot be opened; copy the data there, or "
                    "delete the link"
                )
                continue
            if isinstance(item, h5py.Group):
                walk(item, f"{name}/", (*above, (here.fileno, here.addr)))
            elif isinstance(item, h5py.Dataset):
                found[name] = item

    walk(file, "", ())
    return found
