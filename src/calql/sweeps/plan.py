"""A sweep is plain data: a list of runs, each fully described, each with its own directory.

A plan file (TOML) names what one line of arguments cannot: methods with options of their own.

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

A `set` before the first [[runs]] holds for all of them; what it names, none of them may name again. [[figures]] say
what `calql report --plan` draws, each of some of the runs, by the names of their folders.
"""

from __future__ import annotations

import dataclasses
import itertools
import tomllib
from collections.abc import Mapping
from pathlib import Path

from calql.tasks import nearest
from calql.training.config import RunConfig, resolve
from calql.training.pretrained import border, differences
from calql.training.run_dir import RunDir, plain
from calql.types import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep."""

    config: RunConfig
    options: tuple[str, ...]
    """The texts that its overrides were read from."""
    out: Path
    """Its run directory."""
    siblings: tuple[Path, ...] = ()
    """Run directories of the plan whose pre-training is the same."""

    @property
    def name(self) -> str:
        """`method seed`, the method as its folder names it (the task is the caller's choice)."""
        return f"{self.out.parent.name} seed {self.config.seed}"

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
        c = self.config
        arguments = ["train", "--task", c.task.id, "--method", c.method.id, "--seed", str(c.seed)]
        arguments += ["--scale", c.scale, "--out", str(self.out)]
        arguments += ["--data", c.data] if c.data != c.row.data else []
        donor = next((path for path in self.siblings if border(RunDir(path))), None)
        arguments += ["--pretrained", str(donor)] if donor else []
        return arguments + (["--set", *self.options] if self.options else [])


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method, with options of its own where a plan gives it some."""

    method: str
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its name on the disk: `iql`, or `iql,iql_temperature=10`."""
        return ",".join((self.method.replace(":", "."), *self.options)).replace("/", "_")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Some of the runs, and what the report draws of them alone."""

    title: str
    draws: tuple[str, ...]
    """Names of drawings (`calql.reports.report.DRAWINGS`)."""
    run_dirs: frozenset[Path]
    """In a plan, below the folder of the sweep."""

    def below(self, out: Path) -> Comparison:
        """The same of a sweep into `out`."""
        return dataclasses.replace(self, run_dirs=frozenset(out / path for path in self.run_dirs))


@dataclasses.dataclass(frozen=True)
class Plan:
    """What shall be run: every task × variant × seed."""

    tasks: tuple[str, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    scale: str = "laptop"
    data: str | None = None
    """Data reference, where it is not the task's own."""
    options: tuple[str, ...] = ()
    """Options of all runs."""
    figures: tuple[Comparison, ...] = ()

    def folders(self, out: Path) -> dict[tuple[int, str, Variant], Path]:
        """(seed, task, variant) → run directory below `out`.

        Seed by seed, so that the first finished runs already compare all methods.
        """
        return {
            (seed, task, variant): out / task.replace(":", ".") / variant.folder / f"seed-{seed}"
            for seed, task, variant in itertools.product(self.seeds, self.tasks, self.variants)
        }


def read_plan(path: Path) -> Plan:
    """A plan file. Raises InputError where it is not one, with what is wrong."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a plan ({error})") from error

    def texts(name: str, where: Mapping, kind: type = str) -> tuple:
        value = where.get(name)
        if not isinstance(value, list) or not value or not all(type(entry) is kind for entry in value):
            raise InputError(f"{path}: '{name}' must be a list of {kind.__name__}, not {value!r}")
        return tuple(value)

    def name_of(option: str) -> str:
        return option.partition("=")[0]

    runs, figures = said.get("runs"), said.get("figures", [])
    if not isinstance(runs, list) or not runs or not all(isinstance(entry, dict) for entry in runs):
        raise InputError(f"{path}: there must be [[runs]], each with its methods")
    if not isinstance(figures, list) or not all(isinstance(entry, dict) for entry in figures):
        raise InputError(f"{path}: 'figures' must be [[figures]], each with a title, draws and runs")
    known = {"tasks", "seeds", "scale", "data", "set", "runs", "figures"}
    tables = [(known, said), *(({"methods", "set"}, entry) for entry in runs)]
    for names, table in tables + [({"title", "draws", "runs"}, entry) for entry in figures]:
        if unknown := sorted(table.keys() - names):
            raise InputError(f"{path}: '{unknown[0]}' is not part of a plan; here it has {', '.join(sorted(names))}")
    for name in ("scale", "data"):
        if not isinstance(said.get(name, ""), str):
            raise InputError(f"{path}: '{name}' must be a text, not {said[name]!r}")
    variants = [
        Variant(method, texts("set", entry) if "set" in entry else ())
        for entry in runs
        for method in texts("methods", entry)
    ]
    if len(set(variants)) < len(variants):
        raise InputError(f"{path}: two [[runs]] are the same; leave one out")
    given = {"seeds": texts("seeds", said, int)} if "seeds" in said else {}
    given |= {"options": texts("set", said)} if "set" in said else {}
    own = {name_of(option) for variant in variants for option in variant.options}
    if twice := sorted(own & {name_of(option) for option in given.get("options", ())}):
        raise InputError(f"{path}: '{twice[0]}' is set for all runs and for some; say it in one place")
    given |= {name: said[name] for name in ("scale", "data") if name in said}
    plan = Plan(texts("tasks", said), tuple(variants), **given)

    def comparison(entry: Mapping) -> Comparison:
        title, draws, wanted = entry.get("title"), texts("draws", entry), texts("runs", entry)
        if not isinstance(title, str):
            raise InputError(f"{path}: the 'title' of [[figures]] must be a text, not {title!r}")
        known = [variant.folder for variant in variants]
        for unknown in sorted(set(wanted) - set(known)):
            raise nearest(unknown, known, "run of the plan")
        chosen = (place for (_, _, v), place in plan.folders(Path()).items() if v.folder in wanted)
        return Comparison(title, draws, frozenset(chosen))

    return dataclasses.replace(plan, figures=tuple(map(comparison, figures)))


def make_jobs(plan: Plan, out: Path) -> list[Job]:
    """Every combination, in the plan's order.

    Each task and variant is resolved once, so a wrong name or option is an InputError before anything runs; so is a
    directory that holds a different run.
    """
    if plan.data and len(plan.tasks) > 1:
        raise InputError("--data names one data set; sweep its task alone")
    options = {variant: (*variant.options, *plan.options) for variant in plan.variants}
    configs = {
        (task, variant): resolve(task, variant.method, plan.scale, plan.seeds[0], plan.data, options[variant])
        for task, variant in itertools.product(plan.tasks, plan.variants)
    }

    folders, jobs = plan.folders(out), []
    for (seed, task, variant), here in folders.items():
        config = configs[task, variant]
        same = [v for v in plan.variants if v != variant and not differences(config, configs[task, v])]
        siblings = tuple(folders[seed, task, v] for v in same)
        job = Job(dataclasses.replace(config, seed=seed), options[variant], here, siblings)
        _refuse_another_run(job)
        jobs.append(job)
    return jobs


def _refuse_another_run(job: Job) -> None:
    if not (job.out / "config.json").exists():
        return
    saved, config = RunDir(job.out).read_config(), job.config
    here = {"task": config.task.id, "method": config.method.id, "scale": config.scale, "seed": config.seed}
    different = [name for name, value in here.items() if saved[name] != value]
    different += ["data"] if saved["data"]["reference"] != config.data else []
    different += ["overrides"] if saved["overrides"] != plain(config.overrides) else []
    if different:
        raise InputError(f"{job.out} holds another run ({', '.join(different)}); sweep into another --out")
