"""Writes a policy as a file that acts without JAX, once the file has been shown to act as the policy does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms.acting import acting, normalised
from calql.algorithms.protocol import Acts, UpdateRule
from calql.export import act as standalone
from calql.export.contract import arrays_of
from calql.export.policy import ExportedPolicy, form_of, load
from calql.export.program import Program
from calql.export.trace import trace
from calql.files import replacing
from calql.types import InputError, PyTree, Spec

LIMIT = 1e-4
"""Largest accepted difference between an export and the policy, as a share of half the range of the action. Rounding of
float32 makes 1e-7 to 1e-5; a wrong order, scale or operation makes more."""


def write_policy(
    path: Path,
    rule: UpdateRule,
    spec: Spec,
    state: PyTree,
    contract: Mapping[str, Any],
    states: Sequence[PyTree],
    source: str,
) -> dict[str, Any]:
    """Write the deterministic policy; returns the contract with the result of its check. An older file is replaced.

    Args:
        path: ends in .npz or .onnx.
        rule, spec, state: the policy.
        contract: from `contract_of`; its bounds are those of the actions.
        states: observations to compare actions at.
        source: where the states come from, for the contract.

    Raises:
        InputError: the policy has a memory, computes what an export cannot hold, or the form does not exist.
        RunError: the export does not act as the policy, or cannot be written.
    """
    form = form_of(path)
    program = environment_program(rule, spec, state, contract)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        with replacing(trial) as file:
            form.save(file, program, contract)
        check = {"states": len(states), "from": source, **differences(load(trial), rule, spec, state, states)}
    if not check["worst_share"] <= LIMIT:
        raise InputError(
            f"the export differs from the policy by {check['worst_share']:.2g} of half the range of the actions at a "
            f"state of {source}, and rounding makes at most {LIMIT:g}; nothing was written; report this as a fault"
        )
    contract = {**contract, "check": check}
    with replacing(path) as file:
        form.save(file, program, contract)
    return contract


def environment_program(rule: UpdateRule, spec: Spec, state: PyTree, contract: Mapping[str, Any]) -> Program:
    """From an observation as the environment gives it to an action in the environment's own unit.

    The one place where an export scales what goes in and what comes out.
    """
    if rule.context or not isinstance(rule, Acts):
        raise InputError(
            f"{type(rule).__name__} acts from a memory of the episode, which an export does not hold; export a "
            "policy of the current observation"
        )
    low, high = (np.asarray(contract["actions"][name], np.float32) for name in ("low", "high"))
    structure = jax.tree.structure(spec.observation)
    names = [array["name"] for array in arrays_of(spec.observation)]

    def action(*leaves: jax.Array) -> jax.Array:
        observation = normalised(spec, jax.tree.unflatten(structure, leaves))
        unit = rule.act(state, jax.tree.map(lambda leaf: leaf[None], observation))[0]
        return jnp.clip(low + (unit + 1.0) * (0.5 * (high - low)), low, high)

    return trace(action, dict(zip(names, map(np.asarray, jax.tree.leaves(spec.observation)), strict=True)))


def differences(
    exported: ExportedPolicy, rule: UpdateRule, spec: Spec, state: PyTree, states: Sequence[PyTree]
) -> dict[str, float]:
    """Largest difference between the actions of the export and those that rollouts take with the policy.

    `worst_error` is in the unit of the action, `worst_share` a share of half its range.
    """
    low, high = (np.asarray(exported.contract["actions"][name], np.float64) for name in ("low", "high"))
    half = 0.5 * (high - low)
    with jax.default_matmul_precision("float32"):  # some accelerators round more by default
        policy = acting(rule, spec, state, 1)
        start = np.zeros(1, np.int32), np.zeros(1, np.float32)
        errors = []
        for observation in states:
            unit = policy(jax.tree.map(lambda x: np.asarray(x)[None], observation), *start)[0].astype(np.float64)
            errors.append(np.abs(exported.act(observation) - np.clip(low + (unit + 1.0) * half, low, high)))
    worst = np.max(errors, axis=0)
    return {"worst_error": float(worst.max()), "worst_share": float((worst / np.where(half > 0, half, 1.0)).max())}


def write_reader(path: Path) -> Path:
    """Copy the NumPy code that reads an .npz beside it, as STEM.py. Raises InputError as `refuse_taken`."""
    target = refuse_taken(path)
    with replacing(target) as file:
        file.write(Path(standalone.__file__).read_bytes())
    return target


def refuse_taken(path: Path) -> Path:
    """The name STEM.py beside an .npz. Raises InputError if a file that is not calql's has it."""
    target, ours = path.with_suffix(".py"), Path(standalone.__file__).read_bytes().splitlines()[0]
    if target.exists() and target.read_bytes().splitlines()[:1] != [ours]:
        raise InputError(f"{target} exists and is not calql's; choose another --out")
    return target
