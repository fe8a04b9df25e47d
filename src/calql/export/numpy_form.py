"""`policy.npz`: arrays, a program and the contract in plain NumPy; `calql.export.act` reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from calql.export.act import NumpyPolicy
from calql.export.program import Program


def save(file: BinaryIO, program: Program, contract: Mapping[str, Any]) -> None:
    """Write the policy to an open file."""
    text = {
        "contract": json.dumps(contract, allow_nan=False),
        "program": json.dumps({"operations": program.operations, "output": program.output.name}, allow_nan=False),
    }
    arrays = program.constants | {name: np.asarray(value) for name, value in text.items()}
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] (no array has an option's name)


def load(path: Path) -> NumpyPolicy:
    """The policy of a file."""
    return NumpyPolicy(path)
