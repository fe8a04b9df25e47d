"""Combines tables and options: (task, method, scale, options) → `Experiment`. No other module does.

Every leaf of the record has a path, e.g. `finetune.algorithm.cql_alpha` or `task.env.image_size`. An option names a
leaf by any part of its path that ends with the leaf (`finetune.cql_alpha`, `cql_alpha`); both phases may have it.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

import calql.algorithms
from calql.algorithms import VARIANTS
from calql.algorithms.protocol import UpdateRule
from calql.limits import Limits
from calql.machine import refuse_unusable_jax
from calql.methods import Method
from calql.paper.methods import get_method
from calql.paper.scales import SCALES
from calql.paper.tasks import get_task
from calql.rewards import Rewards
from calql.tasks import Task, nearest
from calql.training.continuity import refuse_other_state
from calql.training.experiment import Data, Experiment, Finetune, Measurement, Pretrain, refuse_seed, unusable
from calql.training.fields import described
from calql.training.synonyms import unknown_option
from calql.types import InputError, Spec

HIDDEN = {
    "task": {"id", "env", "data", "builder", "recipe", "earlier", "sources", "scales", "domain", "summary"},
    "data": {"uri"},
}
"""Fields of the record that are not options: choosing a task and its data sets them."""
SHORTHANDS = {"variant", "target_q_clamp", "actor_once_per_step"}
"""Names that stand for several options:

* `variant`: a named set of sampled actions (`calql.algorithms.VARIANTS`), which every other layer overrides.
* `target_q_clamp`: `target_q_range` is [r_min, r_max]/(1 − γ) of the task.
* `actor_once_per_step`: in fine-tuning the policy moves only with the last of the `utd` updates (`actor_every = utd`).
"""


class Leaf(NamedTuple):
    """One option of a run."""

    path: tuple[str, ...]
    value: Any
    kind: Any
    """Its type."""
    doc: str
    """What it means."""

    @property
    def name(self) -> str:
        """Its path as text."""
        return ".".join(self.path)


def experiment(
    task: str | Task,
    method: str | Method,
    scale: str = "laptop",
    seed: int = 0,
    data: str | None = None,
    options: Mapping[str, Any] | Sequence[str] = (),
) -> Experiment:
    """The record of a run: official defaults, overridden by the scale, the task, the method and `options`, in turn.

    Options are values by name, or texts `name=value` as on the command line. Raises InputError for an unknown task,
    method, scale or option, for an option that this run does not read, and for values out of bounds.
    """
    return resolve(task, method, scale, seed, data, options)[0]


def resolve(
    task: str | Task,
    method: str | Method,
    scale: str = "laptop",
    seed: int = 0,
    data: str | None = None,
    options: Mapping[str, Any] | Sequence[str] = (),
) -> tuple[Experiment, dict[str, str]]:
    """The record of a run, and the layer that set each option, {path: layer}; options of no layer have their defaults.

    Arguments and errors: as `experiment`.
    """
    refuse_unusable_jax(devices=False)
    row = task if isinstance(task, Task) else get_task(task)
    method_row = method if isinstance(method, Method) else get_method(method)
    if scale not in SCALES:
        raise nearest(scale, SCALES, "scale")
    refuse_seed(seed)
    given = read_options(options)
    layers = [
        (f"scale {scale}", SCALES[scale]),
        (f"task {row.id} at scale {scale}", row.scales.get(scale, {})),
        *((f"method {method_row.id}{place}", values) for place, values in method_row.settings_at(scale, row.domain)),
        ("you", given),
    ]
    short = {name: values[name] for _, values in layers for name in SHORTHANDS if name in values}
    variant = short.get("variant", "official")
    if variant not in VARIANTS:
        raise nearest(variant, VARIANTS, "variant")
    uri = data or row.data
    made = Experiment(
        row.for_data(uri),
        Data(uri),
        method_row.offline and Pretrain(method_row.offline()),
        method_row.online and Finetune(method_row.online()),
        Measurement(),
        seed,
        method_row.id,
        method_row.title,
        scale,
    )
    set_by: dict[str, str] = {}
    for who, values in [(f"variant {variant}", VARIANTS[variant]), *layers]:
        for name in sorted(values.keys() - SHORTHANDS, key=lambda name: name.count(".")):  # the more specific last
            found = chosen(made, name) if who == "you" else matching(made, name)
            if not found and name.split(".")[-1] not in _names():
                raise InputError(f"{who}: {nearest(name, _names(), 'option')}")  # not only unread here: a misspelt row
            made = _replaced(made, found, values[name])
            set_by |= {leaf.name: who for leaf in found}
    return _checked(_expanded(made, short, given)), set_by


def changed(experiment: Experiment, options: Mapping[str, Any] | Sequence[str]) -> Experiment:
    """The experiment with some options changed. Raises InputError as `experiment` does."""
    given = read_options(options)
    for name in sorted(given, key=lambda name: name.count(".")):
        if name in SHORTHANDS:
            raise InputError(f"{name} stands for other options; set those")
        experiment = _replaced(experiment, chosen(experiment, name), given[name])
    return _checked(experiment)


def read_options(options: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Options by name; of a text `name=value` that is given twice, the last counts. InputError if one is malformed."""
    if isinstance(options, Mapping):
        return dict(options)
    given = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=VALUE, not '{text}'")
        given[name] = value
    return given


def fields_of(record: type, texts: Sequence[str]) -> dict[str, Any]:
    """`name=value` texts as values of a dataclass's fields (e.g. a recipe). Raises InputError for other names."""
    given, known = read_options(texts), described(record)
    for name in given:
        if name not in known:
            raise nearest(name, known, "option")
    return {name: _read(Leaf((name,), None, *known[name]), value) for name, value in given.items()}


# -- leaves ------------------------------------------------------------------------------------------------------------


def leaves(record: Any, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Every option of a record, in the order of its fields."""
    hidden = HIDDEN.get(".".join(path), ())
    for name, (kind, doc) in described(type(record)).items():
        value, here = getattr(record, name), (*path, name)
        if name in hidden:
            continue
        if dataclasses.is_dataclass(value):
            yield from leaves(value, here)
        elif here == ("task", "env_options"):
            yield from (_env_leaf(option, part) for option, part in value.items())
        elif path:
            yield Leaf(here, value, kind, doc)


def _env_leaf(name: str, value: Any) -> Leaf:
    return Leaf(("task", "env", name), value, Any, "Keyword argument of the environment's factory.")


def matching(experiment: Experiment, name: str) -> list[Leaf]:
    """The leaves that an option's name refers to; none if this run does not read it."""
    *above, last = name.split(".")

    def named(leaf: Leaf) -> bool:
        rest = iter(leaf.path[:-1])
        return leaf.path[-1] == last and all(part in rest for part in above)  # in this order

    return list(filter(named, leaves(experiment)))


def chosen(experiment: Experiment, name: str) -> list[Leaf]:
    """The leaves of an option that the user names. Raises InputError if there are none, or if their values differ."""
    found = matching(experiment, name)
    if not found and name.split(".")[:-1] in (["env"], ["task", "env"]):
        found = [_factory_option(experiment.task, name.split(".")[-1])]
    if not found:
        rules = " and ".join(dict.fromkeys(type(phase.algorithm).__name__ for phase in experiment.phases))
        known = {leaf.path[-1] for leaf in leaves(experiment)} | {leaf.name for leaf in leaves(experiment)}
        told = unknown_option(name, known | SHORTHANDS)
        raise InputError(f"{told} (a run of {rules} reads no option of that name)")
    alike = len({leaf.path[1:] for leaf in found}) == 1 and {leaf.path[0] for leaf in found} <= {"pretrain", "finetune"}
    if len(found) > 1 and not (alike and all(leaf.value == found[0].value for leaf in found)):
        values = " and ".join(f"{leaf.name} (now {_text(leaf.value)})" for leaf in found)
        raise InputError(f"'{name}' means {values}; set one or each")
    return found


def _factory_option(task: Task, name: str) -> Leaf:
    """A keyword argument of the environment's factory that the task does not set itself."""
    known = {
        parameter.name: parameter.default
        for parameter in inspect.signature(task.factory()).parameters.values()
        if parameter.default is not parameter.empty and parameter.name != "render_mode"
    }
    if not known:
        raise InputError(f"the environment of '{task.id}' takes no options; leave '{name}' out")
    if name not in known:
        raise nearest(name, known, "argument of the environment")
    return _env_leaf(name, known[name])


def _replaced(record: Experiment, found: Iterable[Leaf], value: Any) -> Experiment:
    """The record with a value, or its text, at each of the leaves."""

    def inside(part: Any, path: Sequence[str], value: Any) -> Any:
        head, *rest = path
        if isinstance(part, Task) and head == "env":
            return dataclasses.replace(part, env_options={**part.env_options, rest[0]: value})
        return dataclasses.replace(part, **{head: inside(getattr(part, head), rest, value) if rest else value})

    for leaf in found:
        record = inside(record, leaf.path, _read(leaf, value))
    return record


def _read(leaf: Leaf, value: Any) -> Any:
    """A value, or its text, converted to the option's type and checked against its bounds."""
    given, kind = value, leaf.kind
    if kind is Any and leaf.value is not None:
        kind = type(leaf.value)
    if isinstance(value, str):
        if not value.strip():
            raise InputError(f"option '{leaf.name}' has no value; write {leaf.name}=VALUE")
        if value.strip().lower() in ("none", "null"):
            value = None
        elif _holds_tuple(kind):
            value = [part for part in value.strip("()[] ").replace(" ", "").split(",") if part]
    try:
        read = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at")[0].replace("`", "")
        raise InputError(f"option '{leaf.name}' cannot be '{_text(given)}': {reason[0].lower()}{reason[1:]}") from error
    for part in read if isinstance(read, tuple) else (read,):
        if reason := unusable(part):
            raise InputError(f"option '{leaf.name}' cannot be '{_text(given)}': {reason}")
    return read


def _holds_tuple(kind: Any) -> bool:
    return kind is tuple or typing.get_origin(kind) is tuple or any(map(_holds_tuple, typing.get_args(kind)))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@cache
def _names() -> frozenset[str]:
    """Last names of the options of any run with the library's rules."""
    rules = filter(dataclasses.is_dataclass, vars(calql.algorithms).values())
    records = (Task, Rewards, Limits, Data, Pretrain, Finetune, Measurement, *rules)
    return frozenset(field.name for record in records for field in dataclasses.fields(record))


# -- options that depend on each other ---------------------------------------------------------------------------------


def _expanded(made: Experiment, short: Mapping[str, Any], given: Mapping[str, Any]) -> Experiment:
    """The experiment with the shorthands applied. Raises InputError if one that the user gave does not apply."""

    def on(name: str) -> bool:
        return name in short and _read(Leaf((name,), None, bool, ""), short[name])

    if "variant" in given and not any(matching(made, name) for name in VARIANTS[given["variant"]]):
        raise InputError("variant names a set of sampled actions, and this method samples none; leave it out")
    if on("target_q_clamp"):
        ranges = matching(made, "target_q_range")
        if "target_q_clamp" in given and not ranges:
            raise InputError("target_q_clamp clamps the critics' targets, and this method has none; leave it out")
        bounds = made.task.rewards.q_bounds(made.discount)
        if bounds is None:
            raise InputError("target_q_clamp needs the range of the rewards; set rewards.low and rewards.high")
        made = _replaced(made, [leaf for leaf in ranges if leaf.value is None], bounds)
    if on("actor_once_per_step"):
        periods = matching(made, "finetune.actor_every")
        if "actor_once_per_step" in given and not periods:
            raise InputError("actor_once_per_step delays the policy of fine-tuning; this method cannot: leave it out")
        made = _replaced(made, periods, made.finetune and made.finetune.utd)
    return made


def _checked(made: Experiment) -> Experiment:
    """The experiment, if its parts are compatible. Raises InputError if they are not."""
    if made.task.score == "return":
        bounds = made.task.score_range
        if bounds is None:
            raise InputError(
                "score=return needs the raw returns that score 0 and 1, e.g. of a random policy and of an expert: "
                "--set score_range=LOW,HIGH"
            )
        if not (np.isfinite(bounds).all() and bounds[0] < bounds[1]):
            raise InputError(f"score_range is {_text(bounds)}; it must be two finite numbers, the smaller one first")
    if made.finetune and (capacity := made.finetune.replay_capacity) < made.task.horizon:
        raise InputError(f"replay_capacity {capacity} is below the horizon {made.task.horizon}; raise it")
    if made.data.normalise_observations and made.phases[0].algorithm.context:
        name = type(made.phases[0].algorithm).__name__
        raise InputError(f"{name} normalises observations by itself; leave normalise_observations out")
    for phase in made.phases:
        group = getattr(phase.algorithm, "group", 1)  # a rule of the user's own need not have one
        if phase.batch_size % group:
            raise InputError(
                f"batch_size {phase.batch_size} is no multiple of {group} (cql_every_nth_state); change one"
            )
    if made.pretrain and made.finetune:
        before, after = made.pretrain.algorithm, made.finetune.algorithm
        if type(before) is not type(after):  # a run checks all networks, with its true observations
            _refuse_other_state(before, after)
    return made


@cache
def _refuse_other_state(before: UpdateRule, after: UpdateRule) -> None:
    """A sweep asks the same of many runs, and it takes a tenth of a second."""
    refuse_other_state(before, after, Spec(np.zeros(2, np.float32), 1))


# -- explaining --------------------------------------------------------------------------------------------------------


def differs_from_paper(made: Experiment, task: str | Task, method: str | Method) -> dict[str, dict[str, Any]]:
    """{path: {paper, here}} of every option that differs from the same task and method at `paper` scale."""
    paper = _values(experiment(task, method, "paper", made.seed, made.data.uri))
    return {
        name: {"paper": paper.get(name), "here": value}
        for name, value in _values(made).items()
        if name not in paper or value != paper[name]
    }


def _values(made: Experiment) -> dict[str, Any]:
    return {leaf.name: leaf.value for leaf in leaves(made)}


def explained(
    name: str, task: str | Task, method: str | Method, scale: str, seed: int, data: str | None, options: Sequence[str]
) -> str:
    """An option of a run in words: its value, its meaning, who set it, and its value at `paper` scale."""
    made, set_by = resolve(task, method, scale, seed, data, options)
    paper = _values(experiment(task, method, "paper", seed, data))
    lines = []
    for leaf in matching(made, name) or chosen(made, name):
        who = set_by.get(leaf.name, "the library's default")
        lines += [f"{leaf.name} = {_text(leaf.value)}", f"  {leaf.doc}", f"  set by: {who}"]
        lines += [f"  paper: {_text(paper[leaf.name]) if leaf.name in paper else 'not part of it'}"]
    return "\n".join(lines)
