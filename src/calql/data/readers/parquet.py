"""`parquet:FILE.parquet`, or a folder of them: tables with one row per step; the files of a folder are one long table.

The names of the columns say what they are (`calql.data.readers.columns`). A cell may be a number, a list of numbers (an
observation, an action) or an image as Hugging Face's `datasets` stores it (a struct with the file's `bytes`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.columns import action_names, arrays_of, group_columns, own_names
from calql.data.readers.files import existing_files, reason, split_options
from calql.data.readers.frames import decode_images
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.extras import needed_for
from calql.types import InputError


def read_parquet(path: str | os.PathLike) -> Episodes:
    """The episodes of a file, or of all files of a folder in the order of their names.

    Args:
        path: file or folder, and options as in `#keys=state,images.top#image_size=84`: `keys` reads these keys of the
            observations alone, `image_size` scales images to so many pixels in height and width, and `success=last`
            says that every episode ends in success.

    Raises:
        InputError: there is no such file, it is damaged, or a column that is used does not hold numbers or images.
    """
    uri = f"parquet:{os.fspath(path)}"
    with needed_for(uri):
        import pyarrow.parquet  # noqa: F401 (before anything else is said about the file)
    plain, options = split_options(uri, path, success=str, keys=str, image_size=int)
    table = Table(uri, existing_files(uri, plain, "parquet"), options.get("image_size"))
    leaves, unused = group_columns(uri, table.names, table.vectors, options.get("keys"))
    arrays, notes = arrays_of(uri, leaves, table.read)
    won, stated = ends_in_success(uri, options), {"action_names": action_names(leaves)}
    return episodes_from_rows(
        arrays, uri, unused=unused, names=own_names(leaves), told=notes, last_succeeds=won, stated=stated
    )


class Table:
    """Parquet files with the same columns, read column by column."""

    def __init__(self, uri: str, files: Sequence[Path], image_size: Any = None) -> None:
        """Raise InputError if a file is no Parquet file or has other columns than the first."""
        with needed_for(uri):
            import pyarrow.parquet  # here, because the import is slow and most runs do not need it
        self.uri, self.files, self.image_size = uri, files, image_size
        try:
            schemas = [pyarrow.parquet.read_schema(file) for file in files]
        except Exception as error:  # pyarrow fails on damaged files in many ways
            raise self._damaged(error) from error
        for file, schema in zip(files, schemas, strict=True):
            if other := sorted({*schema.names} ^ {*schemas[0].names}):
                raise InputError(f"{uri}: '{other[0]}' is a column of only one of {files[0].name} and {file.name}")
        self.names: list[str] = schemas[0].names
        self.vectors = [field.name for field in schemas[0] if _is_vector(field.type)]

    def read(self, name: str) -> np.ndarray:
        """[N, …] one column. Raises InputError if its cells are empty, lists of several lengths or damaged images."""
        import pyarrow
        import pyarrow.parquet

        try:
            parts = [pyarrow.parquet.ParquetFile(file).read(columns=[name]).column(name) for file in self.files]
        except Exception as error:
            raise self._damaged(error) from error
        cells = [chunk for part in parts for chunk in part.chunks if len(chunk)]
        arrays = [self._array(name, chunk) for chunk in cells]
        if len({array.shape[1:] for array in arrays}) > 1:
            shapes = ", ".join(sorted({str(array.shape[1:]) for array in arrays}))
            raise InputError(f"{self.uri}: '{name}' holds arrays of several shapes ({shapes}); all must be alike")
        return np.concatenate(arrays) if arrays else np.zeros(0)

    def _array(self, name: str, cells: Any) -> np.ndarray:
        import pyarrow
        import pyarrow.compute

        kind = cells.type
        if isinstance(kind, pyarrow.BaseExtensionType):
            return self._array(name, cells.storage)
        if pyarrow.types.is_dictionary(kind):
            return self._array(name, cells.dictionary_decode())
        if cells.null_count:
            raise InputError(f"{self.uri}: '{name}' has {cells.null_count} empty cells; fill them or drop those rows")
        if _is_image(kind):
            found = [cell["bytes"] for cell in cells.to_pylist()]
            return decode_images(f"{self.uri}: '{name}'", found, self.image_size)
        if _is_list(kind):
            lengths = pyarrow.compute.call_function("list_value_length", [cells]).unique().to_pylist()
            if len(lengths) > 1:
                raise InputError(f"{self.uri}: '{name}' holds lists of {min(lengths)} to {max(lengths)} numbers")
            inner = self._array(name, cells.flatten())
            return inner.reshape(len(cells), *(lengths or [0]), *inner.shape[1:])
        array = cells.to_numpy(zero_copy_only=False)
        return array.astype(str) if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) else array

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.uri}: not a complete Parquet file ({reason(error)}); download or export it again")


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    return types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_vector(kind: Any) -> bool:
    return _is_list(getattr(kind, "storage_type", kind)) or _is_image(kind)
