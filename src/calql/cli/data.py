"""`calql data`: build, list, inspect, check and convert recorded experience."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from calql.cli.hints import next_step
from calql.cli.options import Numbers, Settings, Texts, flat
from calql.data.readers import FORMS
from calql.tasks import Task
from calql.types import InputError

READ = {
    "list": (),
    "build": ("--transitions", "--seed", "--workers", "--set"),
    "info": ("--task", "--figures", "--set"),
    "check": ("--task", "--figures", "--set", "--no-clone"),
    "convert": ("--to",),
    "grade": ("--task", "--workers", "--methods", "--seeds", "--out", "--set"),
}
"""Options that each action uses; others are refused."""


def data(
    action: Annotated[Literal["build", "list", "info", "check", "convert", "grade"], tyro.conf.Positional],
    what: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(help=f"A task id (its data), or a data URI: {FORMS}."),
    ] = None,
    task: str | None = None,
    to: str | None = None,
    figures: Path | None = None,
    transitions: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    methods: Texts = (),
    seeds: Numbers = (),
    out: Path | None = None,
    clone: bool = True,
    options: Settings = (),
) -> int:
    """Recorded experience: list; build TASK; info, check or grade a TASK's data or a URI; convert URI --to URI.

    `check` tells before training whether a data set fits the task, how narrow it is, and what calibration can be
    expected to do. `grade` trains on it, with a fixed budget, and tells what was learned beside published scores, and
    how the policies fail; it continues if called again.

    Example: calql data check local:pointmaze-medium-narrow

    Args:
        action: What to do.
        task: Task whose reward map, horizon and environment the data are checked against; by default a local URI's own.
        to: Where `convert` writes the episodes: minari:ID or npz:FILE.npz, which must not exist yet.
        figures: Folder for figures of returns, lengths and coverage (info and check).
        transitions: Number of transitions to build.
        seed: Seed of the builder; by default 0.
        workers: Number of processes that build, or of a grade's runs at a time; by default one per core. Results do
            not depend on it.
        methods: Methods that a grade trains; by default bc and iql.
        seeds: Seeds of a grade; by default 0, 1 and 2.
        out: Folder of a grade; by default runs/grade/TASK.
        clone: Whether a check also measures how well the actions can be cloned, and whether more episodes would help
            (some seconds).
        options: Options by name, of the task's demonstrator (build … --set action_noise=0.3), of a grade's runs, or of
            the run that data are checked for (check … --set offline_steps=20000 action_unit=unit).
    """
    given = {
        "--task": task, "--to": to, "--figures": figures, "--transitions": transitions, "--seed": seed,
        "--workers": workers, "--methods": methods, "--seeds": seeds, "--out": out, "--set": options,
        "--no-clone": None if clone else True,
    }  # fmt: skip
    if idle := [name for name, value in given.items() if value not in (None, ()) and name not in READ[action]]:
        raise InputError(f"calql data {action} does not use {', '.join(idle)}; leave it out")
    if action == "list":
        return _list()
    if what is None:
        raise InputError(f"calql data {action} needs a task id or a data URI")
    if action == "build":
        return _build(what, seed or 0, transitions, workers, flat(options))
    if action == "convert":
        return _convert(what, to)
    if action == "grade":
        return _grade(what, task, flat(methods), flat(seeds) or (0, 1, 2), out, workers, flat(options))
    return _judge(what, task, figures, flat(options), with_env=action == "check", clone=action == "check" and clone)


def _list() -> int:
    from rich.table import Table

    from calql.cli.common import console
    from calql.data.readers.minari import list_local, root
    from calql.paper.tasks import DEFAULT_TASK, TASKS

    table = Table("URI", "episodes", "steps", "size")
    for found in list_local():
        table.add_row(f"minari:{found.id}", str(found.episodes), str(found.steps), f"{found.size / 1e6:.1f} MB")
    console.print(f"data sets in {root()}:")
    console.print(table if table.row_count else "  none yet")
    console.print("can be built here: " + ", ".join(task.id for task in TASKS.values() if task.builder))
    next_step("data", "check", DEFAULT_TASK)
    return 0


def _build(name: str, seed: int, transitions: int | None, workers: int | None, options: tuple[str, ...]) -> int:
    from calql.cli import common
    from calql.paper.tasks import with_data

    task = with_data(name)
    made = common.build(task, seed, transitions, workers, options)
    common.console.print(f"built minari:{made}", soft_wrap=True)
    next_step("data", "check", task.data)
    return 0


def _convert(what: str, to: str | None) -> int:
    from calql.cli.common import console, note
    from calql.data.convert import TARGETS, convert
    from calql.data.load import load
    from calql.paper.tasks import TASKS, with_data

    if to is None:
        raise InputError(f"calql data convert needs a place to write to: --to {TARGETS}")
    episodes = load(str(TASKS[what].data) if what in TASKS else what)
    for text in episodes.notes:
        note(text)
    written = convert(episodes, to)
    about = f"{episodes.num_episodes} episodes, {episodes.num_transitions} transitions"
    console.print(f"wrote {about} to {written}; use it as --data {to}", soft_wrap=True, markup=False)
    task = what if what in TASKS else with_data(what).id if what.startswith("local:") else "TASK"
    next_step("data", "check", to, "--task", task)
    return 0


def _judge(
    what: str, name: str | None, figures: Path | None, options: tuple[str, ...], with_env: bool, clone: bool
) -> int:
    from calql.cli.common import build_missing, console
    from calql.paper.methods import DEFAULT_METHOD
    from calql.training.options import experiment
    from calql.training.start import open_for

    task, uri = _task_and_data(what, name)
    made = experiment(task, DEFAULT_METHOD, data=uri, options=options)
    build_missing(uri, task)
    episodes, report = open_for(made, with_env=with_env, strict=False, clone=clone)
    console.print(report.text(), highlight=False, markup=False, soft_wrap=True)
    if figures is not None:
        from calql.reports.data_figures import draw_data

        print(f"drew {draw_data(episodes, made.task, figures, made.discount, made.data.tail_bootstrap)}")
    if report.errors:
        return 2
    asked = (*(("--data", uri) if uri != made.task.data else ()), *(("--set", *options) if options else ()))
    if with_env:
        next_step("train", "--task", name or made.task.id, *asked, "--out", "runs/first")
    else:
        next_step("data", "check", what, *(("--task", name) if name else ()), *(("--set", *options) if options else ()))
    return 0


def _task_and_data(what: str, name: str | None) -> tuple[Task, str]:
    """The task of data, which `--task` or a local set's own name tells, and their URI; `what` may be a task id."""
    from calql.paper.tasks import TASKS, get_task, with_data

    uri = str(TASKS[what].data) if what in TASKS else what
    if name is not None:
        return get_task(name), uri
    if not uri.startswith("local:"):
        raise InputError(f"{what} names no task; add --task (it gives rewards, horizon and environment)")
    return with_data(uri), uri


def _grade(
    what: str,
    name: str | None,
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    out: Path | None,
    workers: int | None,
    options: tuple[str, ...],
) -> int:
    from rich.table import Table

    from calql.cli.common import console
    from calql.cli.sweep import run_jobs
    from calql.evaluation.endings import in_words
    from calql.paper.methods import GRADING, get_method
    from calql.reports.grade import grade, write_grades
    from calql.sweeps import Plan, Variant, make_jobs
    from calql.sweeps.local import Local

    task, uri = _task_and_data(what, name)
    if idle := [method for method in methods if get_method(method).offline is None]:
        raise InputError(f"{', '.join(idle)}: no pre-training; grade methods that learn from data alone")
    out = out or Path("runs/grade") / (name or task.id).replace(":", ".")
    jobs = []
    for method in methods or GRADING:
        alone = () if get_method(method).online is None else ("online_steps=0",)
        plan = Plan((name or task.id,), (Variant(method),), seeds, "desk", uri, (*alone, *options))
        jobs += make_jobs(plan, out)
    run_jobs(jobs, Local(workers))
    grades = grade(out, jobs[0].experiment.task)
    written = write_grades(grades, jobs[0].experiment.task, out)

    def told(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    table = Table("method", "seeds", "updates", "score", "min to max", "paper, offline", "on D4RL's data")
    for row in (found.row for found in grades):
        score = told(row["score"]), f"{row['low']:.2f} to {row['high']:.2f}"
        others = map(told, (row["paper"], row["d4rl"]))
        table.add_row(row["method"], str(row["seeds"]), str(row["updates"]), *score, *others)
    console.print(table)
    for found in grades:
        for row in found.endings():
            console.print(f"{row['method']}: {in_words(row)}")
    console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    next_step("report", out, "--out", out / "report")
    return 0
