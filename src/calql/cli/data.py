"""`calql data`: build, list, inspect and check recorded experience."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from calql.types import InputError


def data(
    action: Annotated[Literal["build", "list", "info", "check"], tyro.conf.Positional],
    what: Annotated[str | None, tyro.conf.Positional] = None,
    task: str | None = None,
    figures: Path | None = None,
    transitions: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    options: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE …")] = (),
) -> int:
    """Recorded experience: build TASK, list, info REF, check REF.

    `check` says before any training whether a data set fits the task, how narrow it is, and what calibration can be
    expected to do. A REF is local:TASK, minari:ID, d4rl:FILE.hdf5, awac:DIR or npz:FILE.

    Example: calql data check local:pointmaze-medium-narrow

    Args:
        action: What to do.
        what: A task id for build, a data reference for info and check.
        task: Judge the data as this task's (reward map, horizon, environment); by default the one in a local REF.
        figures: Folder in which info and check draw returns, lengths and coverage.
        transitions: How many to build.
        seed: Seed of the builder.
        workers: Processes that build; as many as there are cores, unless given. The data do not depend on it.
        options: Knobs of the task's recipe by name, e.g. build … --set action_noise=0.3.
    """
    if action == "list":
        return _list()
    if what is None:
        raise InputError(f"calql data {action} needs {'a task id' if action == 'build' else 'a data reference'}")
    if action == "build":
        return _build(what, seed, transitions, workers, options)
    return _judge(what, task, figures, against_env=action == "check")


def _list() -> int:
    from rich.table import Table

    from calql.cli.common import console
    from calql.data.readers.minari import list_local, root
    from calql.paper.tasks import TASKS

    table = Table("reference", "episodes", "steps", "size")
    for found in list_local():
        table.add_row(f"minari:{found.id}", str(found.episodes), str(found.steps), f"{found.size / 1e6:.1f} MB")
    console.print(f"in {root()}:")
    console.print(table if table.row_count else "  nothing yet")
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


def _judge(reference: str, task: str | None, figures: Path | None, against_env: bool) -> int:
    from calql.cli.common import build_if_missing, console
    from calql.data.check.describe import check
    from calql.data.load import load_for
    from calql.envs.make import make_env
    from calql.paper.methods import METHODS
    from calql.paper.tasks import get_task
    from calql.training.config import resolve

    scheme, _, name = reference.partition(":")
    if task is None and scheme != "local":
        raise InputError(f"say which task {reference} is for: add --task (it gives rewards, horizon and environment)")
    config = resolve(get_task(task or name), next(iter(METHODS)), data=reference)
    build_if_missing(reference)
    row, algorithm = config.task, config.phases[0].algorithm
    env = make_env(row) if against_env else None
    episodes = load_for(row, reference)
    report = check(
        episodes,
        row,
        env,
        discount=algorithm.discount,
        target_rate=algorithm.tau,
        tail_bootstrap=config.protocol.tail_bootstrap,
    )
    if env is not None:
        env.close()
    console.print(report.text(), highlight=False, markup=False, soft_wrap=True)
    if figures is not None:
        from calql.reports.data_figures import draw_data

        print(f"drew {draw_data(episodes, row, figures, algorithm.discount, config.protocol.tail_bootstrap)}")
    return 2 if report.errors else 0
