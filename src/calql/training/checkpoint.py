"""Checkpoints: arrays as safetensors, the rest as JSON, written atomically, verified before they are used.

    checkpoints/step-000012000/   state.safetensors · replay.safetensors · meta.json (written last, with checksums)
    checkpoints/step-000012000+001/   the same gradient step later: more episodes were collected in between

A folder gets its final name when everything in it is on disk; checksums detect that the disk failed afterwards.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from calql import files
from calql.types import InputError, PyTree


def flatten(tree: PyTree) -> dict[str, np.ndarray]:
    """{path: array} of every leaf, in a form that safetensors stores."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def unflatten(
    like: PyTree, arrays: Mapping[str, np.ndarray], convert: Callable[[np.ndarray], Any] = jax.numpy.asarray
) -> PyTree:
    """A tree like `like` with leaves from `arrays`, converted.

    Raises InputError if an array is missing or has another shape or dtype.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    leaves = [arrays.get(jax.tree_util.keystr(path)) for path, _ in paths]
    for (path, wanted), leaf in zip(paths, leaves, strict=True):
        if leaf is None or (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            found = "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
            raise InputError(
                f"the checkpoint belongs to another configuration or version: for {jax.tree_util.keystr(path)} "
                f"({wanted.dtype}{list(wanted.shape)}) it holds {found}; resume with the settings that made it"
            )
    return jax.tree.unflatten(structure, [convert(leaf) for leaf in leaves if leaf is not None])


def save(folder: Path, step: int, trees: dict[str, PyTree], meta: dict[str, Any], keep: int = 2) -> Path:
    """Write `folder/step-…` atomically, then remove all but the newest `keep` checkpoints (milestones are kept).

    A complete checkpoint of the same step gets the new meta if its arrays are equal; other arrays, and anything after a
    milestone, get a name of their own. Raises RunError if it cannot be written; older checkpoints then stay.
    """
    with files.writing(folder, SafetensorError):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".writing-{step:09d}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            checksums = _write(temporary, step, trees, meta)
            final = _place(at(folder, step), checksums, bool(meta.get("milestone")))
            if is_complete(final):
                os.replace(temporary / "meta.json", final / "meta.json")
                files.sync(final)
            else:
                shutil.rmtree(final, ignore_errors=True)  # damaged
                os.rename(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        files.sync(folder)
    _prune(final, keep)
    return final


def _place(path: Path, checksums: dict[str, str], milestone: bool) -> Path:
    """The first of step-…, step-…+001, … that is free or damaged, or has the same arrays."""
    names = itertools.chain([path.name], (f"{path.name}+{number:03d}" for number in itertools.count(1)))

    def fits(here: Path) -> bool:
        if not is_complete(here):
            return True
        meta = load_meta(here)
        return meta["checksums"] == checksums and (milestone or not meta.get("milestone"))

    return next(filter(fits, map(path.with_name, names)))


def _write(folder: Path, step: int, trees: dict[str, PyTree], meta: dict[str, Any]) -> dict[str, str]:
    folder.mkdir()
    checksums = {}
    for name, tree in trees.items():
        path = folder / f"{name}.safetensors"
        save_file(flatten(tree), path)
        checksums[path.name] = _digest(path)
        files.sync(path)
    path = folder / "meta.json"
    path.write_text(json.dumps(meta | {"step": step, "checksums": checksums}))
    files.sync(path)
    files.sync(folder)
    return checksums


def at(folder: Path, step: int) -> Path:
    """Path of the (first) checkpoint of a gradient step, whether it exists or not."""
    return folder / f"step-{step:09d}"


def step_of(path: Path) -> int:
    """The gradient step of a checkpoint's folder."""
    return int(path.name.removeprefix("step-").partition("+")[0])


def is_complete(path: Path) -> bool:
    """Whether a checkpoint exists and is undamaged."""
    return path.exists() and _verify(path) is None


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest complete checkpoint, or None, and one message for each newer checkpoint that is damaged."""
    complaints = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        problem = _verify(path)
        if problem is None:
            return path, complaints
        complaints.append(f"checkpoint {path.name} is damaged ({problem}); falling back to the one before it")
    return None, complaints


def load(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of one safetensors file of a checkpoint."""
    return load_file(path / f"{name}.safetensors")


def load_meta(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    return json.loads((path / "meta.json").read_text())


def _verify(path: Path) -> str | None:
    meta = _meta(path)
    if meta is None:
        return "meta.json is missing or unreadable"
    for name, expected in meta["checksums"].items():
        if not (path / name).exists():
            return f"{name} is missing"
        if _digest(path / name) != expected:
            return f"{name} does not match its checksum"
    return None


def _prune(written: Path, keep: int) -> None:
    """Keep the last `keep` checkpoints up to the one just written; newer ones are damaged and get written again."""
    metas = {path: _meta(path) for path in sorted(written.parent.glob("step-*")) if path <= written}
    for path in [path for path, meta in metas.items() if meta is not None and not meta.get("milestone")][:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def _meta(path: Path) -> dict[str, Any] | None:
    """The JSON part of a checkpoint, if it is there and whole."""
    try:
        meta = load_meta(path)
    except PermissionError:  # not damaged
        raise
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and "checksums" in meta else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
