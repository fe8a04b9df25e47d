"""The search space of a plan: a table [space] with a range or choices for each option.

[space]
cql_alpha = { low = 0.5, high = 20.0, log = true }
utd = { choices = [1, 2, 4] }
"finetune.mixing" = { low = 0.1, high = 0.9 }
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Annotated, Any

import msgspec

from calql.training.experiment import Experiment
from calql.training.options import experiment, matching
from calql.types import InputError

FEW = 100
"""Combinations that are tried with a value that does not fit the others as they are."""
Choice = bool | int | float | str | tuple[int | float | str, ...]


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every value between two ends, which belong to it."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether equal ratios, not equal differences, are equally likely."""

    def texts(self) -> tuple[str, ...]:
        """Both ends, as option values."""
        return str(self.low), str(self.high)


class Choices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of some values."""

    choices: Annotated[tuple[Choice, ...], msgspec.Meta(min_length=2)]

    def texts(self) -> tuple[str, ...]:
        """All of them, as option values."""
        return tuple(_text(value) for value in self.choices)


Space = dict[str, Range | Choices]
"""Option → what it may be."""


def read_space(table: Mapping[str, Any]) -> Space:
    """The table [space] of a plan file. Raises InputError, naming the option, for what is neither range nor choices."""
    return dict(_parts(table, ""))


def _parts(table: Mapping[str, Any], above: str) -> Iterator[tuple[str, Range | Choices]]:
    for key, value in table.items():
        name = above + key
        if not isinstance(value, Mapping):
            raise InputError(f"[space] {name} is {value!r}; write {{ low = …, high = … }} or {{ choices = [ … ] }}")
        if value and all(isinstance(part, Mapping) for part in value.values()):  # finetune.utd, without quotes
            yield from _parts(value, f"{name}.")
            continue
        try:
            part = msgspec.convert(value, Choices if "choices" in value else Range)
        except msgspec.ValidationError as error:
            raise InputError(
                f"[space] {name}: {error}; write {{ low = …, high = …, log = false }} or {{ choices = [ … ] }}"
            ) from error
        yield name, _sound(name, part)


def _sound(name: str, part: Range | Choices) -> Range | Choices:
    """The part, if there is something to choose. Raises InputError if not."""
    if isinstance(part, Choices):
        if len(set(part.texts())) < len(part.choices):
            raise InputError(f"[space] {name} has a choice twice; remove one")
    elif not (math.isfinite(part.low) and math.isfinite(part.high) and part.low < part.high):
        raise InputError(f"[space] {name}: low must be below high, and both finite, not {part.low} and {part.high}")
    elif part.log and part.low <= 0:
        raise InputError(f"[space] {name}: with log = true, low must be above 0, not {part.low}")
    return part


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One option of a search, checked against a run."""

    name: str
    part: Range | Choices
    whole: bool
    """Whether the values of a range are integers."""

    def __str__(self) -> str:
        if isinstance(self.part, Choices):
            return f"one of {', '.join(self.part.texts())}"
        how = ", whole numbers" * self.whole + ", logarithmic" * self.part.log
        return f"{self.part.low} to {self.part.high}{how}"

    def suggest(self, trial: Any) -> str:
        """The value of an optuna.trial.Trial, as the text of an option."""
        if isinstance(self.part, Choices):
            return trial.suggest_categorical(self.name, self.part.texts())
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.part.low), int(self.part.high), log=self.part.log))
        return str(trial.suggest_float(self.name, self.part.low, self.part.high, log=self.part.log))


def dimensions(space: Space, task: str, method: str, scale: str, data: str | None, options: tuple) -> list[Dimension]:
    """The options of the space, for runs of a method on a task.

    Every end and choice is tried in the record of a run. Raises InputError for an option that the run does not read,
    that `options` set as well, and for a value of the wrong type or out of bounds.
    """

    def works(name: str, text: str) -> Experiment:
        """The run with this value; perhaps it takes other values of the other options, too."""
        others = [[f"{key}={x}" for x in part.texts()] for key, part in space.items() if key != name]
        refusals = []
        for rest in [(), *islice(product(*others), FEW)]:
            try:
                return experiment(task, method, scale, 0, data, [*options, f"{name}={text}", *rest])
            except InputError as error:
                refusals.append(error)
        raise InputError(f"[space] {name}: {refusals[0]}") from refusals[0]

    if fixed := [option for option in options if option.partition("=")[0] in space]:
        raise InputError(f"'{fixed[0].partition('=')[0]}' is both set and in [space]; leave one out")
    found = []
    for name, part in space.items():
        leaves = [leaf for text in part.texts() for leaf in matching(works(name, text), name)]
        if isinstance(part, Range) and not (leaves and all(isinstance(leaf.value, int | float) for leaf in leaves)):
            raise InputError(f"[space] {name} is no number; give {{ choices = [ … ] }}")
        found.append(Dimension(name, part, all(isinstance(leaf.value, int) for leaf in leaves)))
    return found
