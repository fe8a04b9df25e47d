"""Blocks of the reference pages, written from the code: options, commands and public names (see keep.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

import calql
import calql.algorithms
from calql.algorithms.bounds import LARGEST
from calql.cli import main
from calql.limits import Limits
from calql.paper.methods import DEFAULT_METHOD, METHODS, get_method
from calql.paper.tasks import TASKS
from calql.reports.tables import pipe_table
from calql.rewards import Rewards
from calql.tasks import Task
from calql.training.experiment import Data, Finetune, Measurement, Pretrain
from calql.training.fields import described
from calql.training.options import HIDDEN, experiment, leaves

WIDTH = 92
"""Columns of the commands' help."""
PARTS: dict[str, type] = {
    "task": Task,
    "task.rewards": Rewards,
    "task.limits": Limits,
    "data": Data,
    "pretrain": Pretrain,
    "finetune": Finetune,
    "measurement": Measurement,
}
"""Path in the record of a run → what is there. Update rules are at `pretrain.algorithm` and `finetune.algorithm`."""
PHASES = {"pretrain": "offline", "finetune": "online"}
RULES_AT = ["pretrain.algorithm", "finetune.algorithm"]
UPDATE_RULES = """## Update rules

Their paths are `pretrain.algorithm.NAME` and `finetune.algorithm.NAME`. A rule has the options of its own table and of
the tables that it inherits from.
"""
Places = dict[tuple[str, str], list[Any]]
"""(phase or "", domain of tasks) → values there."""


# -- options -----------------------------------------------------------------------------------------------------------


def options() -> str:
    """A table for every part of the record of a run, then one for every class of update rules."""
    parts = [_section(path, _first_line(part), part, [path]) for path, part in PARTS.items()]
    rules = [_section(rule.__name__, _family(rule), rule, RULES_AT) for rule in _rules()]
    return "\n" + "\n".join(filter(None, [*parts, UPDATE_RULES, *rules])) + "\n"


def _section(title: str, text: str, owner: type, paths: list[str]) -> str:
    """A heading with the table of a class's own options; "" if it has none."""
    hidden = {"algorithm", "env_options"} | HIDDEN.get(paths[0], set())
    paper, rows = _at_paper_scale(owner), []
    for field in dataclasses.fields(owner):
        kind, doc = described(owner)[field.name]
        if field.name in hidden or field.name not in inspect.get_annotations(owner) or dataclasses.is_dataclass(kind):
            continue
        places = {place: value for path in paths for place, value in paper.get(f"{path}.{field.name}", {}).items()}
        meaning = doc.replace("|", "\\|")
        rows.append([f"`{field.name}`", _default(field), _kind(kind), _places(places), meaning])
    if not rows:
        return ""
    table = pipe_table(["option", "default", "values", "`paper`", "meaning"], rows)
    return f"### {title}\n\n{text}\n\n{table}\n"


def _rules() -> list[type]:
    """The library's update rules and the classes that they inherit options from, parents first."""
    rules = [rule for rule in vars(calql.algorithms).values() if dataclasses.is_dataclass(rule)]
    return list(dict.fromkeys(part for rule in rules for part in reversed(rule.__mro__) if part in _ancestors(rule)))


def _ancestors(rule: Any) -> list[type]:
    """The rule and those of its parents that define options."""
    return [part for part in rule.__mro__ if "__dataclass_params__" in vars(part)]


def _family(owner: type) -> str:
    """What a class is, which options it inherits, and which rules inherit its own."""
    heirs = [f"`{rule.__name__}`" for rule in _rules() if owner in _ancestors(rule)[1:]]
    parents = [f"`{part.__name__}`" for part in _ancestors(owner)[1:]]
    said = [_first_line(owner)]
    said += [f"Inherits the options of {', '.join(parents)}."] if parents else []
    said += [f"Inherited by {', '.join(heirs)}."] if heirs else []
    return " ".join(said)


def _first_line(owner: type) -> str:
    return (owner.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


def _at_paper_scale(owner: type) -> dict[str, Places]:
    """path → values at `paper` scale: of the default method, or of the first method whose rules have the options."""
    methods = [get_method(name) for name in dict.fromkeys([DEFAULT_METHOD, *METHODS])]
    rule = owner if owner in _rules() else object
    method = next(m for m in methods if any(issubclass(part, rule) for part in (m.offline, m.online) if part))
    found: dict[str, Places] = {}
    for task in TASKS.values():
        for leaf in leaves(experiment(task, method, "paper")):
            place = PHASES.get(leaf.path[0], ""), task.domain
            values = found.setdefault(leaf.name, {}).setdefault(place, [])
            values += [] if leaf.value in values else [leaf.value]
    return found


def _places(places: Places) -> str:
    """`5; online 0.5 in pointmaze`: values with where they hold, the most frequent one without."""
    texts = {place: " or ".join(map(_value, values)) for place, values in places.items()}
    if not texts:
        return "–"
    common = max(texts.values(), key=list(texts.values()).count)
    others: dict[str, list[tuple[str, str]]] = {}
    for place, text in texts.items():
        if text != common:
            others.setdefault(text, []).append(place)
    phases = {phase for phase, _ in texts}
    said = [common]
    for text, where in others.items():
        by_domain: dict[str, list[str]] = {}
        for phase, domain in where:
            by_domain.setdefault(domain, []).append(phase)
        names = [domain if set(of) == phases else f"{domain} {'/'.join(of)}" for domain, of in by_domain.items()]
        said.append(f"{text} ({', '.join(names)})")
    return "; ".join(said)


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return _value(field.default)
    return "the task's" if field.default_factory is dataclasses.MISSING else _value(field.default_factory())


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool | str):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`"
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _kind(kind: Any) -> str:
    """The values that a type allows, in words: `whole ≥ 1`, `number in (0, 1]`, `true or false`, `a, b`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return " ".join(
            [_kind(parts[0]), *(_bounds(part) for part in parts[1:] if isinstance(part, msgspec.Meta))]
        ).strip()
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return ", or ".join("none" if part is type(None) else _kind(part) for part in parts)
    if origin is tuple:
        return f"{'list' if Ellipsis in parts else 'pair'} of {_kind(parts[0])}"
    return {bool: "true or false", int: "whole", float: "number", str: "text"}[kind]


def _bounds(meta: msgspec.Meta) -> str:
    """`≥ 0`, `in [0, 1)`; a bound that only excludes infinity is left out."""
    low, high = (_finite(meta.ge, meta.gt), _finite(meta.le, meta.lt))
    if low is not None and high is not None:
        return f"in {'[' if meta.gt is None else '('}{low:,}, {high:,}{']' if meta.lt is None else ')'}"
    if low is not None:
        return f"{'≥' if meta.gt is None else '>'}\N{NO-BREAK SPACE}{low:,}"
    return "" if high is None else f"{'≤' if meta.lt is None else '<'}\N{NO-BREAK SPACE}{high:,}"


def _finite(*bounds: float | None) -> float | None:
    return next((bound for bound in bounds if bound is not None and abs(bound) < LARGEST), None)


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    listed = re.search(r"\{([\w,]+)\}", _help())
    assert listed is not None
    return "\n" + "".join(f"## calql {name}\n\n```text\n{_help(name)}\n```\n\n" for name in listed[1].split(","))


def _help(*command: str) -> str:
    """The output of `--help`."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return "\n".join(map(str.rstrip, out.getvalue().strip().splitlines()))


# -- public names ------------------------------------------------------------------------------------------------------


def names() -> str:
    """Directives of mkdocstrings for every public name, and for update rules that are in `calql.algorithms` only."""
    groups: dict[str, list[str]] = {"Functions": [], "Classes": [], "Update rules": [], "Tables": [], "Errors": []}
    for name in sorted(calql.__all__, key=str.lower):
        groups[_group(getattr(calql, name))].append(f"calql.{name}")
    groups["Update rules"] += [
        f"calql.algorithms.{r.__name__}" for r in _named_rules() if not hasattr(calql, r.__name__)
    ]
    return "\n" + "".join(f"## {title}\n\n" + "".join(f"::: {name}\n\n" for name in of) for title, of in groups.items())


def _named_rules() -> list[type]:
    return [rule for rule in _rules() if hasattr(calql.algorithms, rule.__name__)]


def _group(thing: Any) -> str:
    if isinstance(thing, Mapping):
        return "Tables"
    if not isinstance(thing, type):
        return "Functions"
    if issubclass(thing, Exception):
        return "Errors"
    return "Update rules" if thing in _rules() or thing is calql.UpdateRule else "Classes"
