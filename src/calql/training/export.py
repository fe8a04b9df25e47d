"""Exports the policy of a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import calql
from calql.data.actions import in_unit
from calql.data.arrays import spread_states
from calql.data.load import load_for
from calql.export.contract import contract_of
from calql.export.write import write_policy
from calql.training import card as cards
from calql.training import checkpoint, store
from calql.training.policy import SEED, Policy, interface_of, load_policy
from calql.training.record import Saved, read_record
from calql.training.run_dir import RunDir
from calql.types import InputError, PyTree, Spec, is_image, map_leaves

STATES = 256
"""Observations at which an export is compared with the policy."""


class Exported(NamedTuple):
    """What was written."""

    contract: dict[str, Any]
    """See `calql.export.contract`."""
    notes: list[str]
    """Anything that the user should know."""


def export_run(
    run: Path | str,
    out: Path | str,
    step: str = "newest",
    rate: float | None = None,
    card: Path | str | None = None,
    licence: str = cards.UNKNOWN,
) -> Exported:
    """Write the policy of a run's checkpoint to OUT.npz or OUT.onnx, and its model card.

    Args:
        run: a run directory.
        out: the file; an older one is replaced atomically.
        step: `newest`, `best`, `pretrained` or a gradient step.
        rate: control rate in Hz; None: that of the environment or the data, if one of them states it.
        card: file of the model card; None: OUT.md.
        licence: identifier of the policy's licence, for the card.

    Raises:
        InputError: there is no such checkpoint or form, the policy cannot be exported, or the card's name is taken.
        RunError: a file cannot be written.
    """
    run_dir, about = RunDir(run), cards.card_beside(Path(out)) if card is None else Path(card)
    cards.refuse_taken(about)
    saved, policy = read_record(run_dir), load_policy(run, step)
    exchanged = saved.interface() or interface_of(policy.task)
    exchanged = exchanged._replace(spec=policy.spec, rate=exchanged.rate if rate is None else rate)
    contract = contract_of(exchanged, task=policy.task, provenance=provenance(run_dir, saved, step))
    states, source, notes = states_of(saved, policy)
    written = write_policy(Path(out), policy.algorithm, policy.spec, policy.state, contract, states, source)
    cards.write_card(about, run_dir, written, Path(out), licence)
    return Exported(written, notes)


def provenance(run_dir: RunDir, saved: Saved, step: str) -> dict[str, Any]:
    """Where a policy comes from: run, method, checkpoint, commit, data."""
    experiment = saved.experiment
    meta = checkpoint.load_meta(store.find_checkpoint(run_dir, experiment, step))
    return {
        "run": str(run_dir.path),
        "method": experiment.method,
        "seed": experiment.seed,
        "step": meta["step"],
        "checkpoint_sha256": meta["checksums"]["state.safetensors"],
        "git_commit": saved.raw.get("starts", [saved.raw])[-1].get("git_commit"),
        "data": experiment.data.uri,
        "data_fingerprint": saved.fingerprint,
        "calql": calql.__version__,
    }


def states_of(saved: Saved, policy: Policy) -> tuple[list[PyTree], str, list[str]]:
    """Observations to compare at, where they come from, and notes: from the run's data, or else random ones."""
    experiment, notes = saved.experiment, []
    uri = experiment.data.uri
    try:
        if uri is None:
            raise InputError("the run has no data")
        episodes = load_for(experiment.task.for_data(uri), uri, experiment.data.cut_at_horizon)
        if in_unit(episodes, policy.bounds, experiment.data.action_unit).fingerprint() != saved.fingerprint:
            notes.append(f"the data at {uri} have changed since the run began")
        return spread_states(episodes.episodes, STATES), f"the data {uri}", notes
    except InputError as error:
        notes.append(f"checked on random observations, as the run's data cannot be opened: {error}")
    rng = np.random.default_rng(SEED)
    return [random_observation(policy.spec, rng) for _ in range(STATES)], "random observations", notes


def random_observation(spec: Spec, rng: np.random.Generator) -> PyTree:
    """Numbers with the mean and deviation that the policy normalises by (else 0 and 1), and pixels from 0 to 255."""

    def draw(like: np.ndarray, mean: Any = 0.0, std: Any = 1.0) -> np.ndarray:
        if is_image(like):
            return rng.integers(0, 256, like.shape, np.uint8)
        return np.asarray(mean + std * rng.normal(size=like.shape), like.dtype)

    leaves = (spec.observation,) if spec.mean is None else (spec.observation, spec.mean, spec.std)
    return map_leaves(draw, *leaves)
