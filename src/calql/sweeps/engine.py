"""An engine executes the jobs of a plan. All state is in the run directories: any engine continues another's work."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from calql.sweeps.plan import Job
from calql.tasks import nearest
from calql.types import InputError


class Status(NamedTuple):
    """What an engine yields at each poll."""

    running: list[Job]
    """Jobs under way, without those that wait for a machine."""
    ended: dict[Job, int]
    """Exit codes of the ended jobs; 0 for those that were done before."""


class Engine(Protocol):
    """Where and when jobs are executed is all that engines differ in."""

    def run(self, jobs: Sequence[Job]) -> Generator[Status, None, None]:
        """Run the jobs that are not done, and continue those that were begun, until all have ended.

        Closing the generator is leaving it: see `left`. Raises InputError if the engine cannot be had here.
        """
        ...

    def left(self) -> str:
        """What has become of the jobs after `run` was left before its end, in one sentence for the user."""
        ...


def read_engine_options(texts: Sequence[str], known: Iterable[str], engine: str) -> dict[str, Any]:
    """`name=value` texts by name; a value in the form of JSON (4, 0.5, true, ["a"]) is read as such.

    Raises InputError for a text of another form, and for a name that is not known.
    """
    given = {}
    known = set(known)
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--engine-options takes NAME=VALUE, not '{text}'")
        if name not in known:
            raise nearest(name, known, f"option of --engine {engine}")
        try:
            given[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            given[name] = value
    return given
