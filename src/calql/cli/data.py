"""`calql data`: build, list, inspect and check recorded experience."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from calql.cli.options import Settings, flat
from calql.data.readers import FORMS
from calql.types import InputError


def data(
    action: Annotated[Literal["build", "list", "info", "check"], tyro.conf.Positional],
    what: Annotated[
        str | None,
        tyro.conf.Positional,
        tyro.conf.arg(help=f"A task id for build, a data URI for info and check: {FORMS}."),
    ] = None,
    task: str | None = None,
    figures: Path | None = None,
    transitions: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    options: Settings = (),
) -> int:
    """Recorded experience: build TASK, list, info URI, check URI.

    `check` tells before training whether a data set fits the task, how narrow it is, and what calibration can be
    expected to do.

    Example: calql data check local:pointmaze-medium-narrow

    Args:
        action: What to do.
        task: Task whose reward map, horizon and environment the data are checked against; by default a local URI's own.
        figures: Folder for figures of returns, lengths and coverage (info and check).
        transitions: Number of transitions to build.
        seed: Seed of the builder.
        workers: Number of processes that build; by default one per core. The data do not depend on it.
        options: Options of the task's demonstrator by name, e.g. build … --set action_noise=0.3.
    """
    if action == "list":
        return _list()
    if what is None:
        raise InputError(f"calql data {action} needs {'a task id' if action == 'build' else 'a data URI'}")
    if action == "build":
        return _build(what, seed, transitions, workers, flat(options))
    return _judge(what, task, figures, with_env=action == "check")


def _list() -> int:
    from rich.table import Table

    from calql.cli.common import console
    from calql.data.readers.minari import list_local, root
    from calql.paper.tasks import TASKS

    table = Table("URI", "episodes", "steps", "size")
    for found in list_local():
        table.add_row(f"minari:{found.id}", str(found.episodes), str(found.steps), f"{found.size / 1e6:.1f} MB")
    console.print(f"data sets in {root()}:")
    console.print(table if table.row_count else "  none yet")
    console.print("can be built here: " + ", ".join(task.id for task in TASKS.values() if task.builder))
    return 0


def _build(name: str, seed: int, transitions: int | None, workers: int | None, options: tuple[str, ...]) -> int:
    from calql.cli import common
    from calql.paper.tasks import get_task

    task = get_task(name)
    if task.builder is None:
        raise InputError(f"task '{name}' has no local builder; give its data with --data")
    made = common.build(task, seed, transitions, workers, options)
    common.console.print(f"built minari:{made}; look at it with: calql data check local:{task.id}")
    return 0


def _judge(uri: str, task: str | None, figures: Path | None, with_env: bool) -> int:
    from calql.cli.common import build_missing, console
    from calql.paper.methods import DEFAULT_METHOD
    from calql.paper.tasks import get_task
    from calql.training.options import experiment
    from calql.training.start import open_for

    scheme, _, name = uri.partition(":")
    if task is None and scheme != "local":
        raise InputError(f"{uri} names no task; add --task (it gives rewards, horizon and environment)")
    made = experiment(get_task(task or name), DEFAULT_METHOD, data=uri)
    build_missing(uri, made.task)
    episodes, report = open_for(made, with_env=with_env, strict=False)
    console.print(report.text(), highlight=False, markup=False, soft_wrap=True)
    if figures is not None:
        from calql.reports.data_figures import draw_data

        print(f"drew {draw_data(episodes, made.task, figures, made.discount, made.data.tail_bootstrap)}")
    return 2 if report.errors else 0
