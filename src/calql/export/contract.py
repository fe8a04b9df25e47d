"""The contract inside every export: what the policy takes, what it gives, how fast, and where it comes from.

    {"format": 1,
     "observations": {"arrays": [{"name", "path", "shape", "dtype"}, …], "unit", "scaling"},
     "actions": {"shape", "dtype", "low", "high", "names", "unit", "limits": {"low", "high", "change", "rest"}},
     "rate_hz": 50.0,
     "task": {"id", "env", "env_options", "horizon", "stop_at_success", "before_episode"},
     "provenance": {"run", "method", "step", "checkpoint_sha256", "git_commit", "data", "data_fingerprint", "calql"},
     "check": {"states", "from", "worst_error", "worst_share"}}

Lists keep the order in which the policy takes and gives numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from calql.limits import Limits
from calql.tasks import Task, import_name
from calql.types import InputError, PyTree, Spec, is_image
from calql.units import ActionBounds

FORMAT = 1
RAW = "the environment's own: give observations as the environment does"
BOUNDED = "the environment's own: between low and high"


class Interface(NamedTuple):
    """What a policy and its environment exchange."""

    spec: Spec
    """Of the observations; with the mean and deviation by which the policy normalises them, if it does."""
    bounds: ActionBounds
    """Those of the environment's own action space."""
    rate: float | None = None
    """Control rate in Hz; None: unknown."""
    action_names: Sequence[str] | None = None
    """Names of the A actions; None: unknown."""


def contract_of(interface: Interface, *, task: Task, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The contract, but for its `check`, of a policy that was trained for `task`; `provenance`: where it comes from.

    Raises InputError if the rate is not positive.
    """
    spec, bounds, rate, names = interface
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise InputError(f"the control rate is {rate} Hz; it must be a positive number")
    env = task.env if isinstance(task.env, str) else import_name(task.env)
    return {
        "format": FORMAT,
        "observations": {
            "arrays": arrays_of(spec.observation),
            "unit": RAW,
            "scaling": None if spec.mean is None else scaling_of(spec.observation, spec.mean, spec.std),
        },
        "actions": {
            "shape": [bounds.size],
            "dtype": "float32",
            "low": bounds.low.tolist(),
            "high": bounds.high.tolist(),
            "names": None if names is None else list(names),
            "unit": BOUNDED,
            "limits": {name: value if value is None else _plain(value) for name, value in vars(task.limits).items()},
        },
        "rate_hz": rate,
        "task": {
            "id": task.id,
            "env": None if "<" in env else env,
            "env_options": dict(task.env_options),
            "horizon": task.horizon,
            "stop_at_success": task.stop_at_success,
            "before_episode": task.before_episode,
        },
        "provenance": dict(provenance or {}),
    }


def _plain(numbers: Any) -> Any:
    """A number, or a list of them."""
    return np.asarray(numbers, np.float64).tolist()


def limits_of(contract: Mapping[str, Any]) -> Limits:
    """The limits of a contract, which the process that acts holds; older contracts state none."""
    stated = contract["actions"].get("limits") or {}
    return Limits(**{name: tuple(x) if isinstance(x, list) else x for name, x in stated.items()})


def arrays_of(observation: PyTree, path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Name, path of keys, shape and dtype of every array of an observation, keys sorted as the policy reads them."""
    if isinstance(observation, Mapping):
        return [row for key in sorted(observation) for row in arrays_of(observation[key], (*path, key))]
    array = np.asarray(observation)
    name = "/".join(("observation", *path))
    return [{"name": name, "path": list(path), "shape": list(array.shape), "dtype": array.dtype.name}]


def scaling_of(observation: PyTree, mean: PyTree, std: PyTree, path: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Name, mean and deviation of every array that is normalised as (x − mean) / std; images are not."""
    if isinstance(observation, Mapping):
        return [r for k in sorted(observation) for r in scaling_of(observation[k], mean[k], std[k], (*path, k))]
    if is_image(observation):
        return []
    numbers = {"mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}
    return [{"name": "/".join(("observation", *path))} | numbers]


def refuse_other(known: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise InputError if a policy takes or gives something else than another one."""
    for part in ("observations", "actions"):
        both = dict.fromkeys([*known[part], *new[part]])
        different = [key for key in both if known[part].get(key) != new[part].get(key)]
        if different:
            raise InputError(f"the new policy has other {part} ({', '.join(different)}); start another actor for it")
