"""What a checkpoint holds, and how a run goes on from one, its own or another's."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from calql.replay import newest, put_back
from calql.training import checkpoint
from calql.training.experiment import Experiment
from calql.training.run_dir import RunDir
from calql.training.schedule import Counters
from calql.types import InputError, PyTree

if TYPE_CHECKING:
    from calql.training.state import Training


def capacity(experiment: Experiment) -> tuple[int, bool]:
    """(room for online transitions, whether the data lie in it too)."""
    phase = experiment.finetune
    return (phase.replay_capacity, phase.one_buffer) if phase and phase.online_steps else (0, False)


def save(training: Training, milestone: bool) -> None:
    """Write a checkpoint of a run; the rows that it counts are on the disk first."""
    slots = newest(training.replay, training.counters.env_step)
    ring = jax.tree.map(lambda x: np.asarray(x[slots]), training.replay.storage)
    log = training.log
    training.run_dir.sync()
    checkpoint.save(
        training.run_dir.checkpoints,
        training.counters.total_grad_step,
        {"state": training.state, "replay": ring},
        {
            "counters": dataclasses.asdict(training.counters),
            "wall_s": training.wall_s,
            "sums": log.sums,
            "summed": log.summed,
            "rows": log.rows,
            "milestone": milestone,
        },
    )


def restore(training: Training) -> list[str]:
    """Continue a run from its newest complete checkpoint; returns what had to be passed over, one line each.

    Rows of the CSV files that were written after it are removed: they will be written again, the same.
    """
    path, complaints = checkpoint.newest(training.run_dir.checkpoints)
    log = training.log
    if path is None:
        complaints.append("no complete checkpoint; starting from the beginning")
        training.counters = Counters()
    else:
        meta = checkpoint.load_meta(path)
        meta = meta["counters"] | meta  # format 1 had all of it among the counters
        names = [field.name for field in dataclasses.fields(Counters)]
        training.counters = Counters(**{name: meta["counters"][name] for name in names})
        training.counters = dataclasses.replace(training.counters, before=tuple(training.counters.before))
        training.state = checkpoint.unflatten(training.state, checkpoint.load(path, "state"))
        rows = checkpoint.load(path, "replay")
        count = len(next(iter(rows.values())))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), training.replay.storage)
        training.replay = put_back(training.replay, checkpoint.unflatten(like, rows), training.counters.env_step)
        training.wall_s, log.sums, log.summed, log.rows = (meta[name] for name in ("wall_s", "sums", "summed", "rows"))
    for name, rows in log.rows.items():
        if missing := training.run_dir.truncate(name, rows):
            complaints.append(f"{name} lacks {missing} rows that were written before the checkpoint; they are lost")
    log.last_evaluation = (training.run_dir.read_rows("eval.csv") or [{}])[-1]
    return complaints


# -- from another run --------------------------------------------------------------------------------------------------


def end_of_pretraining(run_dir: RunDir, experiment: Experiment | None) -> Path | None:
    """The checkpoint at the end of a run's pre-training; None while that is not finished, or where there is none."""
    if experiment is None or experiment.pretrain is None:
        return None
    path = checkpoint.at(run_dir.checkpoints, experiment.pretrain.offline_steps)
    return path if checkpoint.is_complete(path) else None


def take_over(run_dir: RunDir, donor: RunDir, found: Path) -> None:
    """Copy rows and checkpoint of another run's pre-training; `restore` goes on from there.

    Stopped halfway, it leaves a run without a checkpoint, which begins at the beginning and becomes the same.
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
    """A complete checkpoint of a run: `newest`, `pretrained`, `best`, or that of a gradient step.

    `best` is the one whose evaluation has the highest score. Raises InputError where there is none, naming those that
    are there.
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
            raise InputError(f"{run_dir.path}: no evaluation falls on a checkpoint; name a step of {known}")
        return whole[int(max(rows, key=lambda row: float(row["score_mean"]))["grad_step"])]
    if not step.isdigit() or int(step) not in whole:
        raise InputError(f"{run_dir.path} has no checkpoint '{step}'; it has newest, best, pretrained, {known}")
    return whole[int(step)]


def borrowed(state: PyTree, arrays: Mapping[str, np.ndarray]) -> tuple[PyTree, list[str], list[str]]:
    """A fresh state with what another run's checkpoint has for it: (state, parts taken, parts left as they were).

    A part (a field of the state, such as `critic`) is taken whole, where all of its arrays are there in the same
    shapes. Raises InputError where the policy is not.
    """
    taken, left, parts = [], [], {}
    for name, fresh in state._asdict().items():
        if not jax.tree.leaves(fresh):
            continue
        try:
            parts[name] = checkpoint.unflatten(
                type(state)(**{n: fresh if n == name else None for n in state._fields}), arrays
            )
            parts[name] = getattr(parts[name], name)
            taken.append(name)
        except InputError as error:
            if name == "actor":
                raise InputError(f"the policy of that run does not fit this one: {error}") from error
            left.append(name)
    return state._replace(**parts), taken, left


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Step and checksum of a checkpoint's networks."""
    meta = checkpoint.load_meta(path)
    return {"step": meta["step"], "sha256": meta["checksums"]["state.safetensors"]}
