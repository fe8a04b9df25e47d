"""Reads config.json of format 1 (calql 0.1.0), which held options by flat names and only the name of the task.

`format1.json` keeps that version's table of tasks, so that its runs stay readable when the current table changes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec

from calql.methods import Method
from calql.paper.tasks import get_task
from calql.tasks import Task, load_attribute
from calql.training.experiment import Data, Experiment, Finetune, Measurement, Pretrain, decode, rule_name, rule_named
from calql.types import InputError

PHASES = {"offline": ("pretrain", Pretrain), "online": ("finetune", Finetune)}
ONLINE = {"cql_alpha_online": "cql_alpha", "iql_temperature_online": "iql_temperature"}
"""Options of fine-tuning alone, and what they were instead of."""


def experiment_of(raw: Mapping[str, Any]) -> Experiment:
    """The experiment of a record of format 1. Raises InputError if it is incomplete or names an unknown task."""
    try:
        settings, method, uri = raw["settings"], raw["method"], raw["data"]["reference"]
        known = json.loads(files("calql.training").joinpath("format1.json").read_text(encoding="utf-8"))
        record = {
            "task": msgspec.to_builtins(_task(raw["task"], known["tasks"], settings, uri)),
            "data": {"uri": uri} | _fields(Data, settings),
            "pretrain": None,
            "finetune": None,
            "measurement": _fields(Measurement, settings),
            "seed": raw["seed"],
            "method": method,
            "title": known["titles"].get(method, method),
            "scale": raw["scale"],
        }
        for phase in raw["phases"]:
            part, kind = PHASES[phase["name"]]
            own = _online(settings) if kind is Finetune else settings
            rule = _rule(method, phase)
            record[part] = {"rule": rule_name(rule), "algorithm": _fields(rule, own)} | _fields(kind, own)
    except (KeyError, TypeError) as error:
        raise InputError(f"the record of the run (format 1) is incomplete: {error!r}") from error
    return decode(record)


def _task(name: str, known: Mapping[str, Any], settings: Mapping[str, Any], uri: str | None) -> Task:
    task = msgspec.convert(known[name], Task) if name in known else get_task(name)
    task = task.for_data(uri)
    if settings.get("image_size") is not None:
        task = dataclasses.replace(task, env_options={**task.env_options, "image_size": settings["image_size"]})
    rewards = dataclasses.replace(task.rewards, scale=settings["reward_scale"], bias=settings["reward_bias"])
    own = {option: settings[option] for option in ("horizon", "stop_at_success", "score")}
    return dataclasses.replace(task, rewards=rewards, scales={}, **own)


def _online(settings: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: settings[option] for option, name in ONLINE.items() if settings.get(option) is not None}
    return {**settings, **own, **({"actor_every": settings["utd"]} if settings.get("actor_once_per_step") else {})}


def _rule(method: str, phase: Mapping[str, Any]) -> type:
    if ":" not in method:
        return rule_named(phase["algorithm"])
    row = load_attribute(method)
    if not isinstance(row, Method):
        raise InputError(f"'{method}' is a {type(row).__name__}; it must be a calql.methods.Method")
    return getattr(row, phase["name"])


def _fields(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are fields of a record class."""
    return {field.name: settings[field.name] for field in dataclasses.fields(kind) if field.name in settings}
