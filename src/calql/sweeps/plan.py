"""A sweep is plain data: a list of runs, each fully described and with its own directory.

A plan file (TOML) can express what a command line cannot: options for single methods.

    tasks = ["pointmaze-medium-narrow"]
    seeds = [0, 1, 2]
    scale = "laptop"

    [[runs]]
    methods = ["cal-ql", "cql"]

    [[runs]]
    methods = ["iql"]
    set = ["iql_temperature=10"]

    [[figures]]
    title = "Before and after"
    draws = ["score", "q"]
    runs = ["cal-ql", "iql,iql_temperature=10"]

A `set` before the first [[runs]] holds for all of them, and none of them may set the same option again. [[figures]] say
what `calql report --plan` draws, each for some of the runs, which are named by their folders. `trackers` are those of
all runs. [space] says what `calql tune` searches (`calql.sweeps.space`).
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from calql.sweeps.space import Space, read_space
from calql.tasks import nearest
from calql.trackers import factories
from calql.training import store
from calql.training.experiment import Experiment, before_fine_tuning, differences, refuse_seed
from calql.training.options import experiment
from calql.training.record import read_record
from calql.training.run_dir import RunDir
from calql.types import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep."""

    experiment: Experiment
    options: tuple[str, ...]
    """`name=value` texts."""
    out: Path
    """Its run directory."""
    siblings: tuple[Path, ...] = ()
    """Run directories of the plan whose pre-training is the same."""
    eval_workers: int = 0
    """Processes that evaluate the run's policies (see `calql.events`)."""
    trackers: tuple[str, ...] = ()
    """Names of its trackers (`calql.trackers.factories`)."""

    @property
    def name(self) -> str:
        """`METHOD seed N`, with the method's folder name (without the task)."""
        return f"{self.out.parent.name} seed {self.experiment.seed}"

    @property
    def done(self) -> bool:
        """Whether the run directory holds DONE, which any engine on any machine may have written."""
        return (self.out / "DONE").exists()

    def arguments(self) -> list[str]:
        """The arguments of `calql` that start this run, or continue it if it has been started.

        If a sibling has finished the same pre-training by then, it is reused: the run is the same, but faster.
        """
        apart = ["--eval-workers", str(self.eval_workers)] if self.eval_workers else []
        apart += ["--trackers", *self.trackers] if self.trackers else []
        if (self.out / "config.json").exists():
            return ["train", "--resume", "--out", str(self.out), *apart]
        e = self.experiment
        arguments = ["train", "--task", e.task.id, "--method", e.method, "--seed", str(e.seed)]
        arguments += ["--scale", e.scale, "--out", str(self.out)]
        arguments += ["--data", e.data.uri] if e.data.uri != e.task.data else []
        donor = next((path for path in self.siblings if pretrained(path)), None)
        arguments += ["--pretrained", str(donor)] if donor else []
        return arguments + apart + (["--set", *self.options] if self.options else [])

    def command(self) -> list[str]:
        """The command of this machine that does so: `calql`, except that it ends with the process that started it."""
        return [sys.executable, "-m", "calql.cli.child", *self.arguments()]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method, possibly with options of its own."""

    method: str
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Folder name: `iql`, or `iql,iql_temperature=10`."""
        return ",".join((self.method.replace(":", "."), *self.options)).replace("/", "_")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Some of the runs, and the figures of only these runs."""

    title: str
    draws: tuple[str, ...]
    """Names of drawings (`calql.reports.report.DRAWINGS`)."""
    run_dirs: frozenset[Path]
    """In a plan, below the folder of the sweep."""

    def below(self, out: Path) -> Comparison:
        """The same comparison, with paths below the folder `out` of a sweep."""
        return dataclasses.replace(self, run_dirs=frozenset(out / path for path in self.run_dirs))


@dataclasses.dataclass(frozen=True)
class Plan:
    """The runs of a sweep: every task × variant × seed."""

    tasks: tuple[str, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    scale: str = "laptop"
    data: str | None = None
    """Data URI; None: the task's own."""
    options: tuple[str, ...] = ()
    """Options of all runs."""
    trackers: tuple[str, ...] = ()
    """Trackers of all runs."""
    figures: tuple[Comparison, ...] = ()
    space: Space = dataclasses.field(default_factory=dict)
    """What `calql tune` searches; {}: a sweep."""

    def folders(self, out: Path) -> dict[tuple[int, str, Variant], Path]:
        """(seed, task, variant) → run directory below `out`.

        Ordered by seed, so that the first finished runs already compare all methods.
        """
        return {
            (seed, task, variant): out / task.replace(":", ".") / variant.folder / f"seed-{seed}"
            for seed, task, variant in itertools.product(self.seeds, self.tasks, self.variants)
        }

    def only(self, tasks: Sequence[str], methods: Sequence[str]) -> Plan:
        """The part of the plan with these tasks and methods; all of either if none is named.

        A method is its id, or the folder of one of its variants. Raises InputError for names that are not in the plan.
        """
        for name in tasks:
            if name not in self.tasks:
                raise nearest(name, self.tasks, "task of the plan")
        for name in methods:
            if name not in (known := {name for variant in self.variants for name in (variant.method, variant.folder)}):
                raise nearest(name, known, "method of the plan")
        kept = tuple(v for v in self.variants if not methods or {v.method, v.folder} & {*methods})
        return dataclasses.replace(self, tasks=tuple(tasks) or self.tasks, variants=kept)


Text = Annotated[str, msgspec.Meta(min_length=1)]
Texts = Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
Seeds = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=1)]


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """A table of a plan file; the names of the fields are those of the file."""


class _Runs(_Table):
    methods: Texts
    set: Texts = ()


class _Figure(_Table):
    title: Text
    draws: Texts
    runs: Texts


class _File(_Table):
    tasks: Texts
    methods: Texts = ()
    runs: tuple[_Runs, ...] = ()
    seeds: Seeds = Plan.seeds
    scale: Text = Plan.scale
    data: Text | None = None
    set: Texts = ()
    trackers: Texts = ()
    figures: tuple[_Figure, ...] = ()
    space: dict[str, Any] = {}


def read_plan(path: Path) -> Plan:
    """Read a plan file. Raises InputError, naming the fault, if it is not a valid one."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {_what_is_wrong(str(error))}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a plan ({error})") from error
    variants = (*map(Variant, file.methods), *(Variant(m, runs.set) for runs in file.runs for m in runs.methods))
    if not variants:
        raise InputError(f"{path}: names no methods; add methods = [...], or [[runs]] with methods and a set")
    if len(set(variants)) < len(variants):
        raise InputError(f"{path}: a method is there twice with the same options; remove one")
    own = {option.partition("=")[0] for variant in variants for option in variant.options}
    common = {option.partition("=")[0] for option in file.set}
    if twice := sorted(own & common):
        raise InputError(f"{path}: '{twice[0]}' is set both for all runs and for some; set it in one place")
    plan = Plan(file.tasks, variants, file.seeds, file.scale, file.data, file.set, file.trackers)
    known, figures = [variant.folder for variant in variants], []
    for figure in file.figures:
        if unknown := sorted(set(figure.runs) - set(known)):
            raise nearest(unknown[0], known, "run of the plan")
        chosen = (place for (_, _, v), place in plan.folders(Path()).items() if v.folder in figure.runs)
        figures.append(Comparison(figure.title, figure.draws, frozenset(chosen)))
    try:
        space = read_space(file.space)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return dataclasses.replace(plan, figures=tuple(figures), space=space)


def _what_is_wrong(said: str) -> str:
    """msgspec's message, with the place in the file's terms and, for a wrong name, the valid names."""
    sentence, _, place = said.partition(" - at `$")
    place = place.strip("`.")
    if "field `" in sentence:
        table = {"runs": _Runs, "figures": _Figure}.get(place.partition("[")[0], _File)
        sentence += f"; valid names here: {', '.join(sorted(table.__struct_fields__))}"
    return f"'{place}': {sentence}" if place else sentence


def make_jobs(plan: Plan, out: Path, eval_workers: int = 0) -> list[Job]:
    """Every combination, in the plan's order.

    Each task and variant is resolved once, so a wrong name or option is an InputError before anything runs, and so is a
    directory that holds a different run, and a tracker that cannot be used.
    """
    factories(plan.trackers)
    if plan.space:
        raise InputError("the plan has a [space] to be searched: use calql tune --plan, or leave [space] out")
    if plan.data and len(plan.tasks) > 1:
        raise InputError("--data names one data set; sweep only its task")
    for seed in plan.seeds:
        refuse_seed(seed)
    options = {variant: (*variant.options, *plan.options) for variant in plan.variants}
    made = {
        (task, variant): experiment(task, variant.method, plan.scale, plan.seeds[0], plan.data, options[variant])
        for task, variant in itertools.product(plan.tasks, plan.variants)
    }
    folders, jobs = plan.folders(out), []
    for (seed, task, variant), here in folders.items():
        mine = dataclasses.replace(made[task, variant], seed=seed)
        if (here / "config.json").exists() and (different := differences(read_record(RunDir(here)).experiment, mine)):
            raise InputError(f"{here} holds another run ({', '.join(different)}); sweep into another --out")
        first = before_fine_tuning(made[task, variant])
        same = [v for v in plan.variants if v != variant and before_fine_tuning(made[task, v]) == first]
        siblings = tuple(folders[seed, task, v] for v in same)
        jobs.append(Job(mine, options[variant], here, siblings, eval_workers, plan.trackers))
    return jobs


def pretrained(path: Path) -> bool:
    """Whether a run directory holds a finished pre-training."""
    if not (path / "config.json").exists():
        return False
    run_dir = RunDir(path)
    return store.end_of_pretraining(run_dir, read_record(run_dir).experiment) is not None
