"""Pre-train once, fine-tune often: a run may start at the end of the pre-training of another that is the same so far.

The result is that of a run which did it all itself, bit for bit, because a run is decided by its configuration alone.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from calql.data.episodes import Episodes
from calql.training import checkpoint
from calql.training.config import Protocol, RunConfig, resolve_saved
from calql.training.run_dir import RunDir
from calql.types import InputError

FINE_TUNING = {
    "online_steps", "utd", "updates_per_episode", "actor_once_per_step", "start_steps", "mixing", "replay_capacity",
    "one_buffer", "cql_alpha_online", "iql_temperature_online", "eval_every_online",
}  # fmt: skip
"""Fields of the protocol that pre-training does not know."""


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Names of what makes two runs differ before fine-tuning; none: with the same data they are one until then."""
    found = [name for name in ("row", "seed", "data") if getattr(one, name) != getattr(other, name)]
    if one.phases[0] != other.phases[0]:
        found.append("offline phase")
    names = {field.name for field in dataclasses.fields(Protocol)} - FINE_TUNING
    return found + sorted(n for n in names if getattr(one.protocol, n) != getattr(other.protocol, n))


def border(run_dir: RunDir) -> Path | None:
    """The run's checkpoint at the end of its pre-training; None where it has not come so far, or never will."""
    if not (run_dir.path / "config.json").exists():
        return None
    first = run_dir.read_config()["phases"][0]
    path = checkpoint.at(run_dir.checkpoints, first["gradient_steps"])
    return path if first["name"] == "offline" and checkpoint.is_complete(path) else None


def take_over(run_dir: RunDir, donor: RunDir) -> None:
    """Copy rows and checkpoint of the donor's pre-training; `Trainer.restore` goes on from there.

    Stopped halfway, it leaves a run without a checkpoint, which begins at the beginning and becomes the same.
    """
    found = border(donor)
    for name in ("eval.csv", "train.csv", "slice.csv"):
        if (donor.path / name).exists():
            shutil.copyfile(donor.path / name, run_dir.path / name)
    run_dir.checkpoints.mkdir(parents=True, exist_ok=True)
    temporary = run_dir.checkpoints / f".copying-{found.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(found, temporary)
    temporary.rename(run_dir.checkpoints / found.name)


def require(config: RunConfig, data: Episodes, donor: RunDir) -> None:
    """Raises InputError where this run cannot start from the donor's pre-training."""
    saved = donor.read_config()
    different = differences(config, resolve_saved(saved))
    if saved["data"].get("fingerprint") != data.fingerprint():
        different.append("data fingerprint")
    if different:
        raise InputError(
            f"the pre-training of {donor.path} is another one ({', '.join(different)}); leave --pretrained out"
        )
    if border(donor) is None:
        raise InputError(f"{donor.path} has not finished its pre-training; finish it: calql train --resume --out ...")
