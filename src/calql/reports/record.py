"""A run's configuration as one small record; the only module of reports that knows the formats of config.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from calql.paper.methods import METHODS
from calql.training.experiment import decode, encode
from calql.types import InputError

NOT_A_SETTING = {"seed", "out", "resume"}
"""Names in the settings of format 1 that may differ between the seeds of one method."""
NAMES_OF_A_RUN = {"seed", "method", "title", "task.id", "task.title"}
"""Paths in the experiment of format 2 that identify the run rather than set it."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One run's configuration."""

    task: str
    """Task id."""
    method: str
    """Method id."""
    seed: int
    task_title: str
    """Display name of the task; its id if it has no title."""
    title: str
    """Display name of the method: the run's own title, else the table's, else its id."""
    format: int
    scale: str | None
    settings: dict[str, Any]
    """Path → value of every setting, e.g. "cql_alpha" (format 1), "pretrain.algorithm.cql_alpha" (2). Like
    the other mappings here it is in alphabetical order, because the order in the file has no meaning."""
    schedule: dict[str, Any]
    """Path → value derived from the settings, e.g. "offline.gradient_steps"."""
    data: dict[str, Any]
    """The data: URI, fingerprint, episodes, transitions, as far as known."""
    differs: dict[str, Any]
    """Setting → {"paper": value, "here": value} if this run differs from the paper."""
    commands: tuple[str, ...]
    """The command of every start."""
    about: dict[str, tuple[Any, ...]]
    """Commit, versions and machine: name → the distinct values over the starts."""

    @property
    def bounded(self) -> bool:
        """Whether scores lie in [0, 1]: not if they are scaled returns."""
        return self.settings.get("task.score") != "return"

    def scale_of_values(self) -> frozenset[tuple[str, str]]:
        """The settings that determine the scale of Q: those of the rewards, and the discount of any phase."""
        return frozenset(
            (path.rpartition(".")[2], json.dumps(value))
            for path, value in self.settings.items()
            if "reward" in path or path.rpartition(".")[2] == "discount"
        )


def read_record(config: Any, where: object) -> Record:
    """The record of a configuration as read from JSON; messages of InputErrors start with `where`.

    Raises InputError, one line with cause and fix, for an unknown format and for parts of the wrong type.
    """
    form = config.get("format", 1) if isinstance(config, dict) else None
    if form not in (1, 2) or isinstance(form, bool):
        raise InputError(f"{where}: not a run configuration of format 1 or 2; read it with the version that wrote it")
    if not (config.keys() & {"experiment", "task", "method"}):
        raise InputError(f"{where}: not the configuration of a run; name the run directories without this folder")
    config = {name: value for name, value in config.items() if value is not None}
    for name in ("settings", "data", "packages", "differs_from_paper"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(f"{where}: '{name}' must be an object, not {config[name]!r}; correct or remove it")
    for name in ("phases", "starts"):
        listed = config.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise InputError(f"{where}: '{name}' must be a list of objects; correct or remove it")
    found = _format_1(config, where) if form == 1 else _format_2(config, where)
    method, starts = found["method"], found.pop("starts")
    pairs = config.get("differs_from_paper", {})
    found |= {
        "title": str(found["title"] or (METHODS[method].title if method in METHODS else method)),
        "task_title": str(found["task_title"] or found["task"]),
        "differs": {name: pair if isinstance(pair, dict) else {"here": pair} for name, pair in pairs.items()},
        "commands": tuple(start["command"] for start in starts if "command" in start),
        "about": _about(starts),
    }
    for name, value in found.items():
        if isinstance(value, dict):
            found[name] = dict(sorted(value.items()))
    return Record(format=form, **found)


def _format_1(config: dict[str, Any], where: object) -> dict[str, Any]:
    """A configuration that any program may have written: task, method and seed are enough."""
    _want(config, {"task": str, "method": str, "seed": int}, where)
    data, scale = config.get("data", {}), config.get("scale")
    settings = {"scale": scale, "data": data.get("reference")}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: value for name, value in config.get("settings", {}).items() if name not in NOT_A_SETTING}
    phases = config.get("phases", [])
    schedule = {f"{p.get('name')}.{name}": value for p in phases for name, value in p.items() if name != "name"}
    start = {
        name: config[name] for name in ("command", "git_commit", "python", "platform", "packages") if name in config
    }
    names = {name: config.get(name) for name in ("task", "method", "seed", "task_title", "title", "scale")}
    return names | {"settings": settings, "schedule": schedule, "data": data, "starts": [start]}


def _format_2(config: dict[str, Any], where: object) -> dict[str, Any]:
    """A tree of settings under `experiment`, and facts that were recorded when the run started."""
    _want(config, {"experiment": dict}, where)
    experiment = config["experiment"]
    _want(experiment, {"task": dict, "method": str, "seed": int}, where, "experiment.")
    task = experiment["task"]
    _want(task, {"id": str}, where, "experiment.task.")
    reference = experiment["data"].get("uri") if isinstance(experiment.get("data"), dict) else None
    names = {name: experiment.get(name) for name in ("method", "seed", "title", "scale")}
    return names | {
        "task": task["id"],
        "task_title": task.get("title"),
        "settings": {path: value for path, value in flat(_completed(experiment)) if path not in NAMES_OF_A_RUN},
        "schedule": {},
        "data": ({"reference": reference} if reference else {}) | config.get("data", {}),
        "starts": config.get("starts", []),
    }


def _completed(experiment: dict[str, Any]) -> dict[str, Any]:
    """With the fields that are younger than the run at their defaults, which are what runs did before: a run of an
    older version is another seed of the same curve. Not with rules of the user's own, whose code would be run."""
    rules = [phase.get("rule") for phase in map(experiment.get, ("pretrain", "finetune")) if isinstance(phase, dict)]
    if any(":" in str(rule) for rule in rules):
        return experiment
    try:
        return _with_defaults(experiment, encode(decode(experiment)))
    except (InputError, TypeError, KeyError, AttributeError):  # written by another program, with fields of its own
        return experiment


def _with_defaults(found: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    merged = known | found
    for name, value in found.items():
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            merged[name] = _with_defaults(value, known[name])
    return merged


def _about(starts: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Name → the distinct values over the starts, without their commands."""
    about: dict[str, list[Any]] = {}
    for start in starts:
        packages = start.get("packages")
        for name, value in {**start, **(packages if isinstance(packages, dict) else {})}.items():
            known = about.setdefault("git commit" if name == "git_commit" else name, [])
            known += [value] if value is not None and value not in known else []
    return {name: tuple(values) for name, values in about.items() if name not in ("command", "packages") and values}


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf of nested objects; lists are leaves, and an empty object has none."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _want(config: Mapping[str, Any], wanted: Mapping[str, type], where: object, above: str = "") -> None:
    for name, kind in wanted.items():
        value = config.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where}: '{above}{name}' must be there and be {kind.__name__}, not {value!r}; add it")
