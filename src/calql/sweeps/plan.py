"""A sweep is plain data: a list of runs, each fully described, each with its own directory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from calql.training.config import parse_options, resolve
from calql.types import InputError


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    task: str
    method: str
    seed: int
    scale: str
    data: str | None
    options: tuple[str, ...]
    out: Path
    """Its run directory."""

    @property
    def name(self) -> str:
        """`method seed` (with the task in front where a sweep has several, the caller's choice)."""
        return f"{self.method} seed {self.seed}"

    @property
    def done(self) -> bool:
        """A run is done when its directory holds DONE: any engine, any machine, may have made it."""
        return (self.out / "DONE").exists()

    def arguments(self) -> list[str]:
        """The arguments of `calql` that begin this run, or continue it where it was begun."""
        if (self.out / "config.json").exists():
            return ["train", "--resume", "--out", str(self.out)]
        arguments = ["train", "--task", self.task, "--method", self.method, "--seed", str(self.seed)]
        arguments += ["--scale", self.scale, "--out", str(self.out)]
        arguments += ["--data", self.data] if self.data else []
        return arguments + (["--set", *self.options] if self.options else [])


def make_plan(
    tasks: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    scale: str,
    out: Path,
    data: str | None = None,
    options: Sequence[str] = (),
) -> list[Job]:
    """Every combination, seed by seed so that the first finished runs already compare all methods.

    Every combination is resolved once, so a wrong name or option is an InputError before anything runs; so is a
    directory that holds a different run.
    """
    overrides = parse_options(options)
    for task, method in itertools.product(tasks, methods):
        resolve(task, method, scale, 0, data, overrides)
    if data and len(tasks) > 1:
        raise InputError("--data names one data set; sweep its task alone")
    return [
        Job(task, method, seed, scale, data, tuple(options), out / task.replace(":", ".") / method / f"seed-{seed}")
        for seed, task, method in itertools.product(seeds, tasks, methods)
    ]
