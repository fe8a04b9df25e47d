"""A sweep is plain data: a list of runs, each fully described, each with its own directory."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from calql.tracking import RunDir
from calql.tracking.run_dir import plain
from calql.training.config import RunConfig, parse_options, resolve
from calql.training.pretrained import border, differences
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
    siblings: tuple[Path, ...] = ()
    """Run directories of the plan whose pre-training is the same."""

    @property
    def name(self) -> str:
        """`method seed` (with the task in front where a sweep has several, the caller's choice)."""
        return f"{self.method} seed {self.seed}"

    @property
    def done(self) -> bool:
        """A run is done when its directory holds DONE: any engine, any machine, may have made it."""
        return (self.out / "DONE").exists()

    def arguments(self) -> list[str]:
        """The arguments of `calql` that begin this run, or continue it where it was begun.

        Where a sibling has finished the same pre-training by now, it is taken over: the run is the same, but sooner.
        """
        if (self.out / "config.json").exists():
            return ["train", "--resume", "--out", str(self.out)]
        arguments = ["train", "--task", self.task, "--method", self.method, "--seed", str(self.seed)]
        arguments += ["--scale", self.scale, "--out", str(self.out)]
        arguments += ["--data", self.data] if self.data else []
        donor = next((path for path in self.siblings if border(RunDir(path))), None)
        arguments += ["--pretrained", str(donor)] if donor else []
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
    if data and len(tasks) > 1:
        raise InputError("--data names one data set; sweep its task alone")
    configs = {
        (task, method): resolve(task, method, scale, 0, data, overrides)
        for task, method in itertools.product(tasks, methods)
    }

    def folder(task: str, method: str, seed: int) -> Path:
        return out / task.replace(":", ".") / method / f"seed-{seed}"

    plan = []
    for seed, task, method in itertools.product(seeds, tasks, methods):
        config, here = configs[task, method], folder(task, method, seed)
        _refuse_another_run(here, config, seed)
        same = [m for m in methods if m != method and not differences(config, configs[task, m])]
        siblings = tuple(folder(task, m, seed) for m in same)
        plan.append(Job(task, method, seed, scale, data, tuple(options), here, siblings))
    return plan


def _refuse_another_run(folder: Path, config: RunConfig, seed: int) -> None:
    if not (folder / "config.json").exists():
        return
    saved = RunDir(folder).read_config()
    here = {"task": config.task.id, "method": config.method.id, "scale": config.scale, "seed": seed}
    different = [name for name, value in here.items() if saved[name] != value]
    different += ["data"] if saved["data"]["reference"] != config.data else []
    different += ["overrides"] if saved["overrides"] != plain(config.overrides) else []
    if different:
        raise InputError(f"{folder} holds another run ({', '.join(different)}); sweep into another --out")
