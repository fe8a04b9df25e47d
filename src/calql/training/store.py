"""Checkpoints of a run directory: finding them, and using them in another run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from calql.algorithms.actor_critic import AVERAGES
from calql.training import checkpoint
from calql.training.experiment import Experiment
from calql.training.run_dir import RunDir
from calql.training.schedule import Counters
from calql.types import InputError, PyTree, Spec, is_image, map_leaves


def end_of_pretraining(run_dir: RunDir, experiment: Experiment) -> Path | None:
    """The checkpoint at the end of a run's pre-training; None if pre-training is unfinished, or the method has none."""
    if experiment.pretrain is None:
        return None
    path = checkpoint.at(run_dir.checkpoints, experiment.pretrain.offline_steps)
    return path if checkpoint.is_complete(path) else None


def take_over(run_dir: RunDir, donor: RunDir, found: Path) -> None:
    """Copy rows and checkpoint of another run's pre-training; `restore` continues from there.

    If this is interrupted, the run has no checkpoint, starts from the beginning and gives the same results.
    """
    for name in ("eval.csv", "train.csv", "slice.csv"):
        if (donor.path / name).exists():
            shutil.copyfile(donor.path / name, run_dir.path / name)
    run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
    temporary = run_dir.checkpoints / f".copying-{found.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(found, temporary)
    temporary.rename(run_dir.checkpoints / found.name)


def find_checkpoint(run_dir: RunDir, experiment: Experiment, step: str = "newest") -> Path:
    """A complete checkpoint of a run: `newest`, `pretrained`, `best` (the highest score), or a gradient step.

    Raises InputError, naming those that exist, if there is none.
    """
    there = {checkpoint.step_of(path): path for path in sorted(run_dir.checkpoints.glob("step-*"))}
    whole = {number: path for number, path in there.items() if checkpoint.is_complete(path)}
    known = ", ".join(map(str, whole)) or "none"
    if not whole:
        damaged = f" ({len(there)} damaged)" if there else ""
        raise InputError(f"{run_dir.path} has no complete checkpoint yet{damaged}; let it train on")
    if step == "newest":
        return whole[max(whole)]
    if step == "pretrained":
        found = end_of_pretraining(run_dir, experiment)
        if found is None:
            raise InputError(f"{run_dir.path} has no checkpoint of a finished pre-training; it has {known}")
        return found
    if step == "best":
        rows = [row for row in run_dir.read_rows("eval.csv") if row["score_mean"] and int(row["grad_step"]) in whole]
        if not rows:
            raise InputError(f"{run_dir.path}: no measured score falls on a checkpoint; name a step of {known}")
        return whole[int(max(rows, key=lambda row: float(row["score_mean"]))["grad_step"])]
    if not step.isdigit() or int(step) not in whole:
        raise InputError(f"{run_dir.path} has no checkpoint '{step}'; it has newest, best, pretrained, {known}")
    return whole[int(step)]


def counters_of(path: Path | None) -> Counters:
    """The position of a run at a checkpoint; the beginning if there is none."""
    return Counters() if path is None else msgspec.convert(checkpoint.load_meta(path)["counters"], Counters)


def statistics_of(path: Path) -> Mapping[str, np.ndarray] | None:
    """Mean and deviation by which a checkpoint's networks see observations; None if they see them as they are."""
    return checkpoint.load(path, "statistics") if (path / "statistics.safetensors").exists() else None


def with_stored(spec: Spec, statistics: Mapping[str, np.ndarray]) -> Spec:
    """The spec with the statistics of a checkpoint. Raises InputError if they belong to other observations."""
    like = {
        name: map_leaves(lambda x: np.zeros(1 if is_image(x) else x.shape, np.float32), spec.observation)
        for name in ("mean", "std")
    }
    return spec._replace(**checkpoint.unflatten(like, statistics, np.asarray))


def borrowed(state: PyTree, arrays: Mapping[str, np.ndarray]) -> tuple[PyTree, list[str], list[str]]:
    """A fresh state with the matching parts of another run's checkpoint: (state, parts taken, parts left fresh).

    A part (a field of the state, such as `critic`) is taken if the checkpoint has all of its arrays in the same
    shapes; an average that it lacks begins as a copy of what was taken. Raises InputError if the policy cannot be
    taken.
    """
    taken, left, parts = [], [], {}
    for name, fresh in state._asdict().items():
        if not jax.tree.leaves(fresh):
            continue
        try:
            alone = type(state)(**{n: fresh if n == name else None for n in state._fields})
            parts[name] = getattr(checkpoint.unflatten(alone, arrays), name)
            taken.append(name)
        except InputError as error:
            if name == "actor":
                raise InputError(f"the policy of that run does not fit this one: {error}") from error
            if AVERAGES.get(name) in parts:  # averages come after what they are averages of
                parts[name] = jax.tree.map(jnp.copy, parts[AVERAGES[name]])
            else:
                left.append(name)
    return state._replace(**parts), taken, left
