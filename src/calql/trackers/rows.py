"""The rows of a run's tables as named numbers, which trackers copy: from the events of a run, and from its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from calql.training.experiment import Experiment
from calql.training.loop import Event
from calql.training.run_dir import RunDir

TABLES = {"evaluation": ("eval.csv", "eval"), "update": ("train.csv", "train"), "episode": ("episodes.csv", "online")}
"""Kind of event → the table that its row is in, and the group of its numbers."""
NOT_NUMBERS = {"phase", "env_step", "grad_step", "wall_s", "episodes", "episode", "file"}
"""Columns that say where a row belongs, and what it was made of."""


class Row(NamedTuple):
    """A row of a table."""

    table: str
    phase: str
    step: int
    """On the phase's own clock: gradient steps offline, environment steps online."""
    place: dict[str, int]
    """`env_step` and, but for episodes, `grad_step` over all phases."""
    numbers: dict[str, float]
    """`train/critic_loss`, `eval/score_mean`, `online/return`, …: what was measured. `train/steps_per_s` and
    `online/steps_per_s` are gradient and environment steps per second since the last evaluation, everything included.
    """


class Rows:
    """The rows of one run, each once: with the first event all that its tables hold, which is what a resumed run has
    kept, and then the row of every event."""

    def __init__(self, experiment: Experiment, run_dir: Path) -> None:
        self._run_dir, self._phases = RunDir(run_dir), [phase.name for phase in experiment.phases]
        self._begun = False
        self._evaluated: Mapping[str, Any] = {}
        self.newest: dict[str, list[int]] = {}
        """Table → place of its newest row that was given: rows up to it are not given again."""

    def of(self, event: Event) -> Iterator[Row]:
        """The rows that come with an event."""
        found = [(event.kind, event.row)] if event.row is not None else []
        if not self._begun:
            self._begun = True
            found = [(kind, row) for kind, (table, _) in TABLES.items() for row in self._run_dir.read_rows(table)]
        for kind, row in found:
            made = self._row(kind, row)
            # Gradient steps tell rows apart, but the two of the policy between the phases; episodes have none.
            place = [self._phases.index(made.phase), made.place.get("grad_step", made.step)]
            if place > self.newest.get(made.table, []):
                yield made
                self.newest[made.table] = place

    def _row(self, kind: str, row: Mapping[str, Any]) -> Row:
        (table, group), phase = TABLES[kind], row.get("phase", "online")
        place = {name: int(row[name]) for name in ("env_step", "grad_step") if name in row}
        numbers = {f"{group}/{name}": _number(row[name]) for name in row if name not in NOT_NUMBERS}
        if kind == "evaluation":
            numbers |= self._speed(row)
        step = place["env_step" if phase == "online" else "grad_step"]
        return Row(table, phase, step, place, {name: x for name, x in numbers.items() if x is not None})

    def _speed(self, row: Mapping[str, Any]) -> dict[str, float | None]:
        before, self._evaluated = self._evaluated, row
        if not before or (seconds := float(row["wall_s"]) - float(before["wall_s"])) <= 0:
            return {}
        steps = {"train": "grad_step"} | ({"online": "env_step"} if row["phase"] == "online" else {})
        return {f"{group}/steps_per_s": (int(row[x]) - int(before[x])) / seconds for group, x in steps.items()}


def _number(value: Any) -> float | None:
    """A cell, possibly text of a CSV file; None if nothing was measured."""
    if value in (None, ""):
        return None
    return {"True": 1.0, "False": 0.0}.get(str(value)) if str(value) in ("True", "False") else float(value)
