"""Trackers: consumers of the loop's events. `eval.csv`, `train.csv` and `episodes.csv` are written without one."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calql.tasks import load_attribute, nearest
from calql.types import InputError

if TYPE_CHECKING:
    from calql.training.experiment import Experiment
    from calql.training.loop import Event

Tracker = Callable[["Event"], None]
"""Called with every event of a run, in order, while it runs. A method `close()`, if there is one, is called at the end,
also of a run that was stopped or failed."""
Factory = Callable[["Experiment", Path], Tracker]
"""Called with the experiment and the run directory, which the run has not written yet if it is a new one."""
BUILT_IN = {"tensorboard": "TensorBoard", "wandb": "WandB"}
"""Name on the command line, also of the module here → its factory. `package()` of the module imports what it needs."""


class Trackers:
    """The trackers of one run. One that fails is closed and left out from then on: the run and its tables go on."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def tell(self, event: Event) -> Iterator[str]:
        """Call every tracker with the event; yields a sentence for each that failed."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker(event)
            except Exception as error:
                yield _failed(name, error)
                del self._trackers[name]
                yield from _closed(name, tracker)

    def close(self) -> list[str]:
        """Close those that can be closed; returns a sentence for each that failed."""
        said = [text for name, tracker in self._trackers.items() for text in _closed(name, tracker)]
        self._trackers.clear()
        return said


def open_trackers(names: Sequence[str], experiment: Experiment, run_dir: Path) -> Trackers:
    """The named trackers of a run; InputError if one cannot be made."""
    made = {}
    for name, factory in factories(names).items():
        try:
            tracker = factory(experiment, run_dir)
        except Exception as error:
            raise InputError(f"the tracker '{name}' cannot be made ({_told(error)})") from error
        if not callable(tracker):
            raise InputError(f"the tracker '{name}' made a {type(tracker).__name__}; it must be callable with an event")
        made[name] = tracker
    return Trackers(made)


def factories(names: Sequence[str]) -> dict[str, Factory]:
    """name → factory of `tensorboard`, `wandb` and every `package.module:factory`, each once.

    Raises InputError for an unknown name, and where the package of a tracker is not installed.
    """
    found = {}
    for name in names:
        if name in BUILT_IN:
            module = importlib.import_module(f"calql.trackers.{name}")
            module.package()
            found[name] = getattr(module, BUILT_IN[name])
        elif ":" not in name:
            raise InputError(f"{nearest(name, BUILT_IN, 'tracker')}; or name your own as package.module:factory")
        else:
            found[name] = load_attribute(name)
    return found


def _closed(name: str, tracker: Tracker) -> Iterator[str]:
    try:
        if closes := getattr(tracker, "close", None):
            closes()
    except Exception as error:
        yield _failed(name, error)


def _failed(name: str, error: Exception) -> str:
    return (
        f"the tracker '{name}' failed ({_told(error)}) and is left out from here on; the run goes on, and its tables "
        "have every row"
    )


def _told(error: Exception) -> str:
    """An exception in one line, with the place that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {said}, {Path(last.filename).name} line {last.lineno}"
