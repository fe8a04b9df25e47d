"""A run's configuration as one small record; the only module of reports that knows the formats of config.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from calql.paper.methods import METHODS
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
    config = {name: value for name, value in config.items() if value is not None}
    record = _format_1(config, where) if form == 1 else _format_2(config, where)
    mappings = {name: value for name, value in vars(record).items() if isinstance(value, dict)}
    return dataclasses.replace(record, **{name: dict(sorted(value.items())) for name, value in mappings.items()})


def _format_1(config: dict[str, Any], where: object) -> Record:
    """A configuration that any program may have written: task, method and seed are enough."""
    _want(config, {"task": str, "method": str, "seed": int}, where)
    for name in ("settings", "data", "packages", "differs_from_paper"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(f"{where}: '{name}' must be an object, not {config[name]!r}; correct or remove it")
    phases = config.get("phases", [])
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        raise InputError(f"{where}: 'phases' must be a list of objects; correct or remove it")
    data = config.get("data", {})
    settings = {"scale": config.get("scale"), "data": data.get("reference")}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= {name: value for name, value in config.get("settings", {}).items() if name not in NOT_A_SETTING}
    schedule = {f"{p.get('name')}.{name}": value for p in phases for name, value in p.items() if name != "name"}
    about = {"git commit": config.get("git_commit"), "python": config.get("python")}
    about |= {"platform": config.get("platform")} | config.get("packages", {})
    return Record(
        **_names(config["task"], config["method"], config["seed"], config.get("task_title"), config.get("title")),
        format=1, scale=config.get("scale"), settings=settings, schedule=schedule, data=data,
        differs=_differs(config), commands=(config["command"],) if "command" in config else (),
        about={name: (value,) for name, value in about.items() if value is not None},
    )  # fmt: skip


def _format_2(config: dict[str, Any], where: object) -> Record:
    """A tree of settings under `experiment`, and facts that were recorded when the run started."""
    _want(config, {"experiment": dict}, where)
    experiment = config["experiment"]
    _want(experiment, {"task": dict, "method": str, "seed": int}, where, "experiment.")
    task = experiment["task"]
    _want(task, {"id": str}, where, "experiment.task.")
    for name in ("data", "differs_from_paper"):
        if not isinstance(config.get(name, {}), dict):
            raise InputError(f"{where}: '{name}' must be an object, not {config[name]!r}; correct or remove it")
    starts = config.get("starts", [])
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise InputError(f"{where}: 'starts' must be a list of objects; correct or remove it")
    about: dict[str, list[Any]] = {}
    for start in starts:
        facts = start | (start["packages"] if isinstance(start.get("packages"), dict) else {})
        for name, value in facts.items():
            known = about.setdefault("git commit" if name == "git_commit" else name, [])
            known += [value] if value is not None and value not in known else []
    reference = experiment["data"].get("uri") if isinstance(experiment.get("data"), dict) else None
    return Record(
        **_names(task["id"], experiment["method"], experiment["seed"], task.get("title"), experiment.get("title")),
        format=2, scale=experiment.get("scale"),
        settings={path: value for path, value in flat(experiment) if path not in NAMES_OF_A_RUN}, schedule={},
        data=({"reference": reference} if reference else {}) | config.get("data", {}),
        differs=_differs(config), commands=tuple(start["command"] for start in starts if "command" in start),
        about={name: tuple(values) for name, values in about.items() if name not in ("command", "packages") and values},
    )  # fmt: skip


def flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf of nested objects; lists are leaves, and an empty object has none."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _names(task: str, method: str, seed: int, task_title: Any, title: Any) -> dict[str, Any]:
    titles = {
        "task_title": str(task_title or task),
        "title": str(title or (METHODS[method].title if method in METHODS else method)),
    }
    return {"task": task, "method": method, "seed": seed} | titles


def _differs(config: Mapping[str, Any]) -> dict[str, Any]:
    pairs = config.get("differs_from_paper", {})
    return {name: pair if isinstance(pair, dict) else {"here": pair} for name, pair in pairs.items()}


def _want(config: Mapping[str, Any], wanted: Mapping[str, type], where: object, above: str = "") -> None:
    for name, kind in wanted.items():
        value = config.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{where}: '{above}{name}' must be there and be {kind.__name__}, not {value!r}; add it")
