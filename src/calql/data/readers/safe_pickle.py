"""Reads pickled NumPy arrays as data: an allow-list of array types; nothing else is ever imported or called.

A pickle is a program. This reader runs it with five harmless instructions: make an array, make a scalar, make a plain
container, name a plain dtype, turn text into bytes. Any other name in the file is refused, not skipped. The dtypes are
rebuilt from their short text, because NumPy trusts the state that a pickle gives to a dtype.
"""

from __future__ import annotations

import builtins
import collections
import io
import math
import os
import pickle
import pickletools
import re
from functools import partial
from typing import Any

import numpy as np

from calql.types import InputError


class _Dtype:
    """Stands for a dtype until its byte order is known; nothing else is taken from the pickled state."""

    def __init__(self, code: Any, *_: Any):
        code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if not re.fullmatch(r"[biufSU]\d+|O8?|\?", code):
            raise InputError(f"it holds an array of the unexpected dtype {code[:40]!r}; only plain numbers are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        order, size = state[1], state[5] if len(state) > 5 else -1
        if self.dtype.kind in "SU" and size > 0:  # the state may hold their length
            self.dtype = np.dtype(f"{self.dtype.kind}{size // (4 if self.dtype.kind == 'U' else 1)}")
        text: Any = order.decode() if isinstance(order, bytes) else order
        self.dtype = self.dtype.newbyteorder(text)


class _Array(np.ndarray):
    """An array that checks the state that a pickle gives it."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, descr, fortran, data = state
        dtype, size = descr.dtype, math.prod(shape)
        if (
            min(shape, default=0) < 0
            or dtype.hasobject != isinstance(data, list)
            or len(data) != size * (1 if dtype.hasobject else dtype.itemsize)
        ):
            raise InputError("it holds an array whose contents do not fit its shape; the file is damaged")
        if isinstance(data, str):  # written by Python 2
            data = data.encode("latin1")
        whole: Any = (1, tuple(shape), dtype, bool(fortran), data)  # NumPy's stub wants its own bool
        super().__setstate__(whole)


def _reconstruct(_subtype: Any, _shape: Any, _code: Any) -> _Array:
    return _Array(0, np.int8)


def _from_buffer(buffer: Any, descr: _Dtype, shape: tuple, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, descr.dtype).reshape(shape, order=order)


def _scalar(descr: _Dtype, data: Any) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, descr.dtype)[0]


def _encode(text: str, _encoding: str = "latin1") -> bytes:
    return text.encode("latin1")


def _bytes(kind: type, *arguments: Any) -> Any:
    if arguments and isinstance(arguments[0], int):  # so many zeros
        raise InputError("it asks for memory instead of giving contents; the file is damaged")
    return kind(*arguments)


_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _ALLOWED[(f"{_core}.multiarray", "scalar")] = _scalar
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _from_buffer
for _module in ("builtins", "__builtin__"):  # Python 3 and 2
    for _name in ("set", "frozenset", "list", "dict", "tuple"):
        _ALLOWED[(_module, _name)] = getattr(builtins, _name)
    for _name in ("bytes", "bytearray"):
        _ALLOWED[(_module, _name)] = partial(_bytes, getattr(builtins, _name))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            raise InputError(
                f"it asks for '{module}.{name}', which is no array type and is not loaded: files are data, never code; "
                "export the arrays to .npz"
            ) from None


def load_pickle(data: bytes) -> Any:
    """The lists, dicts and arrays in a pickle of Python 2 or 3. Raises InputError for anything else."""
    try:
        for code, argument, _ in pickletools.genops(data):
            if (
                "PUT" in code.name and isinstance(argument, int) and argument > len(data)
            ):  # room is made for so many objects
                raise InputError(f"it numbers an object {argument}, more than it can hold; the file is damaged")
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"it is truncated or damaged ({reason}); download it again") from error


def load_object_npy(path: str | os.PathLike) -> np.ndarray:
    """The object array in a .npy file, without NumPy's own unpickling. Raises InputError or OSError."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
        except OSError:
            raise
        except Exception as error:  # a damaged header can fail in any way
            raise InputError("it is not a .npy file of a known version; check which file this is") from error
        if dtype != np.dtype(object):
            raise InputError(f"it holds a plain array of {dtype}, not a list of trajectories; check which file this is")
        found = load_pickle(file.read())
    if not isinstance(found, np.ndarray) or found.shape != tuple(shape):
        raise InputError("its contents do not fit its header; download it again")
    return np.asarray(found)
