"""Trackers: consumers of the loop's events. `eval.csv` and `train.csv` are written without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calql.tasks import load_attribute
from calql.types import InputError

if TYPE_CHECKING:
    from calql.training.experiment import Experiment
    from calql.training.loop import Event

Tracker = Callable[["Event"], None]
"""Called with every event of a run, in order, while it runs. A method `close()`, if there is one, is called at the end,
also of a run that was stopped or failed."""


def open_trackers(names: Sequence[str], experiment: Experiment, run_dir: Path) -> list[Tracker]:
    """What each `package.module:factory`, called as `factory(experiment, run_dir)`, makes; InputError if it cannot."""
    made = []
    for name in names:
        factory = load_attribute(name)
        try:
            tracker = factory(experiment, run_dir)
        except Exception as error:
            raise InputError(f"the tracker '{name}' cannot be made ({type(error).__name__}: {error})") from error
        if not callable(tracker):
            raise InputError(f"the tracker '{name}' made a {type(tracker).__name__}; it must be callable with an event")
        made.append(tracker)
    return made


def close(trackers: Sequence[Tracker]) -> None:
    """Close those that can be closed."""
    for tracker in trackers:
        if closes := getattr(tracker, "close", None):
            closes()
