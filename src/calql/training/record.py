"""config.json: the experiment of a run, its origin, and an entry for every start.

{"format": 2, "experiment": {…}, "options": {…}, "data": {"fingerprint": …, …}, "interface": {…}, "code": {…},
 "differs_from_paper": {…}, "starts": [{"command": …, "git_commit": …, "device": …, …}, …]}

`interface`, of observations and actions at the environment's side: {"observations": [{"name": "observations/joints",
"shape": [2], "dtype": "float32"}, …], "actions": {"low": […], "high": […], "names": null}, "rate_hz": 50.0}. Older runs
have none, or one without rate and names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from calql.data.arrays import named_leaves, nest
from calql.data.episodes import Episodes
from calql.export.contract import Interface
from calql.machine import start_record
from calql.training import format1
from calql.training.experiment import FORMAT, Experiment, decode, encode, own_code, unknown
from calql.training.run_dir import RunDir
from calql.types import InputError, Spec
from calql.units import ActionBounds


class Saved(NamedTuple):
    """A run's record, as read from config.json."""

    experiment: Experiment
    raw: dict[str, Any]
    """config.json."""
    notes: list[str]
    """Notes for the user: the user's own code has changed, or there are fields that this version does not know."""

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the data that the run learned from."""
        return self.raw["data"].get("fingerprint")

    def interface(self) -> Interface | None:
        """What policy and environment exchange, without opening either; None in runs that did not record all of it."""
        found = self.raw.get("interface", {})
        if "rate_hz" not in found:
            return None
        leaves = {leaf["name"]: np.zeros(leaf["shape"], leaf["dtype"]) for leaf in found["observations"]}
        bounds = ActionBounds(found["actions"]["low"], found["actions"]["high"])
        spec = Spec(nest(leaves, "observations"), bounds.size)
        return Interface(spec, bounds, found["rate_hz"], found["actions"]["names"])


def new_record(experiment: Experiment, data: Episodes, told: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a new run; `told`: the user's `options`, and what `differs_from_paper`."""
    about = {"fingerprint": data.fingerprint(), "episodes": data.num_episodes, "transitions": data.num_transitions}
    return {
        "format": FORMAT,
        "experiment": encode(experiment),
        "options": {},
        "data": about,
        **({"interface": interface_of(data)} if data.unit_actions and data.bounds else {}),
        "code": own_code(experiment),
        **told,
        "starts": [start_record()],
    }


def interface_of(data: Episodes) -> dict[str, Any]:
    """The `interface` of data that were opened for an environment."""
    assert data.bounds is not None
    leaves = named_leaves("observations", data.spec().observation)
    return {
        "observations": [{"name": name, "shape": list(x.shape), "dtype": str(x.dtype)} for name, x in leaves],
        "actions": {"low": data.bounds.low.tolist(), "high": data.bounds.high.tolist(), "names": data.action_names},
        "rate_hz": data.rate,
    }


def read_record(run_dir: RunDir) -> Saved:
    """The record of a run directory, in any format so far, without today's tables. InputError if it cannot be read."""
    raw = run_dir.read_config()
    if raw.get("format", 1) == 1:
        return Saved(format1.experiment_of(raw), raw, [])
    if raw["format"] != FORMAT or not isinstance(raw.get("experiment"), dict):
        raise InputError(f"{run_dir.path}/config.json is of format {raw['format']}; use a newer calql")
    experiment = decode(raw["experiment"])
    notes = [f"'{path}' in config.json is unknown to this version" for path in unknown(raw["experiment"], experiment)]
    now = own_code(experiment)
    changed = [module for module, digest in raw.get("code", {}).items() if now.get(module, digest) != digest]
    notes += [f"the code of {module} has changed since the run began" for module in changed]
    return Saved(experiment, raw, notes)


def go_on(run_dir: RunDir, saved: Saved, experiment: Experiment) -> None:
    """Record another start of a run, and as which experiment. A record of format 1 is rewritten in the current one."""
    raw = saved.raw
    if raw.get("format", 1) != FORMAT:
        first = {name: raw[name] for name in ("command", "git_commit", "packages", "python", "platform") if name in raw}
        kept = {name: raw.get(name, {}) for name in ("data", "differs_from_paper")}
        raw = {"format": FORMAT, "experiment": {}, "options": raw.get("overrides", {}), **kept, "starts": [first]}
    raw = raw | {"experiment": encode(experiment), "code": own_code(experiment)}
    run_dir.write_json("config.json", raw | {"starts": [*raw["starts"], start_record()]})
