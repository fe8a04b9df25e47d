"""Loads an exported policy of either form, without JAX and without the run that it comes from."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from calql.export.contract import FORMAT
from calql.extras import MissingPackage
from calql.types import InputError, PyTree

FORMS = {".npz": "calql.export.numpy_form", ".onnx": "calql.export.onnx_form"}
"""Suffix → the module that writes and reads the form."""


class ExportedPolicy(Protocol):
    """What `load` returns."""

    contract: Mapping[str, Any]
    """See `calql.export.contract`."""

    def act(self, observation: PyTree) -> np.ndarray:
        """The deterministic action [A] float32 in the environment's own unit for one observation as the environment
        gives it. Raises ValueError if one of the two cannot be used."""
        ...


def form_of(path: Path) -> Any:
    """The module of the form that a file's name asks for. Raises InputError if there is none."""
    if path.suffix not in FORMS:
        raise InputError(f"'{path}' names no form of an export; end it in {' or '.join(FORMS)}")
    return import_module(FORMS[path.suffix])


def load(path: Path | str) -> ExportedPolicy:
    """The policy of an exported file. Raises InputError if it is missing, damaged, or of another version."""
    path = Path(path)
    form = form_of(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; write it with calql export")
    try:
        policy = form.load(path)
    except MissingPackage:
        raise
    except PermissionError as error:
        raise InputError(f"{path} may not be read; grant access (chmod), or give a copy that may") from error
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged, or no export of calql ({type(error).__name__}); write it again"
        ) from error
    except Exception as error:  # ONNX Runtime's own, which are plain exceptions
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise InputError(f"{path} is damaged, or no ONNX model ({type(error).__name__}); write it again") from error
    if (version := policy.contract.get("format")) != FORMAT:
        raise InputError(f"{path} is of format {version}, and this calql reads {FORMAT}; use the calql that wrote it")
    return policy


class Seconds(NamedTuple):
    """Time per action in seconds."""

    median: float
    p99: float


def time_per_action(policy: ExportedPolicy, actions: int = 200) -> Seconds:
    """Measures `act` at an observation of zeros."""
    observation = blank(policy.contract)
    policy.act(observation)  # the first one allocates
    taken = []
    for _ in range(actions):
        start = time.perf_counter()
        policy.act(observation)
        taken.append(time.perf_counter() - start)
    return Seconds(*(float(x) for x in np.percentile(taken, (50, 99))))


def blank(contract: Mapping[str, Any]) -> PyTree:
    """An observation of zeros."""
    tree: dict[str, Any] = {}
    for array in contract["observations"]["arrays"]:
        zeros = np.zeros(array["shape"], array["dtype"])
        if not array["path"]:
            return zeros
        *outer, key = array["path"]
        branch = tree
        for part in outer:
            branch = branch.setdefault(part, {})
        branch[key] = zeros
    return tree
