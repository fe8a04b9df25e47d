"""`calql list`: tasks, methods, data on this machine, and the runs in a folder with their state."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Literal

import tyro


def listing(
    what: Annotated[Literal["all", "tasks", "methods", "data", "runs"], tyro.conf.Positional] = "all",
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
) -> int:
    """What there is: tasks, methods, data on this machine, and the runs in a folder with their state.

    Example: calql list runs runs/sweep

    Args:
        what: One of the four, or all of them.
        folder: Where runs are looked for, at any depth.
    """
    from calql.cli.common import note
    from calql.cli.hints import next_step
    from calql.extras import MissingPackage
    from calql.paper.tasks import DEFAULT_TASK

    parts = {"tasks": _tasks, "methods": _methods, "data": _data}
    for name, tell in parts.items():
        if what not in (name, "all"):
            continue
        try:
            tell()
        except MissingPackage as error:
            if what == name:
                raise
            note(f"{name} not listed: {error}")  # the others need no extra
    found = _runs(folder) if what in ("runs", "all") else 0
    if found:
        next_step("report", folder, "--out", "report")
    elif what == "data":
        next_step("data", "check", DEFAULT_TASK)
    else:
        next_step("demo")
    return 0


def _tasks() -> None:
    from rich.table import Table

    from calql.cli.common import console
    from calql.paper.tasks import TASKS

    table = Table("task", "what", "data", box=None)
    for task in TASKS.values():
        table.add_row(task.id, task.summary, "can be made here" if task.builder else str(task.data))
    console.print(table)


def _methods() -> None:
    from rich.table import Table

    from calql.cli.common import console
    from calql.paper.methods import METHODS

    table = Table("method", "name", "pre-training", "fine-tuning", box=None)
    for method in METHODS.values():
        rules = ("–" if rule is None else rule.__name__ for rule in (method.offline, method.online))
        table.add_row(method.id, method.title, *rules)
    console.print(table)


def _data() -> None:
    from rich.table import Table

    from calql.cli.common import console
    from calql.extras import needed_for

    with needed_for("the list of data"):
        from calql.data.readers.minari import list_local, root

        table = Table("data", "episodes", "steps", "size", box=None)
        for found in list_local():
            table.add_row(f"minari:{found.id}", str(found.episodes), str(found.steps), f"{found.size / 1e6:.1f} MB")
    console.print(table if table.row_count else f"no data sets in {root()} yet")


def _runs(folder: Path) -> int:
    """Print the table; returns the number of runs."""
    from rich.table import Column, Table

    from calql.cli.common import console, run_progress
    from calql.training.run_dir import below

    run, last = (Column(name, overflow="fold") for name in ("run", "last"))  # a name is to be typed, all of it
    table = Table(run, Column("state", no_wrap=True), "progress", last, box=None)
    for path in below(folder, "config.json"):
        try:
            done, total, note = run_progress(path)
            progress = f"{done / total:.0%}" if total else ""
        except ValueError as error:  # a damaged file, a task that is not here, a CSV cell that is no number
            progress, note = "", str(error)
        table.add_row(str(path), state_of(path), progress, note)
    console.print(table if table.row_count else f"no runs in {folder} yet")
    return table.row_count


def state_of(path: Path) -> str:
    """Whether a run is done, runs now (on which machine), or was stopped, from the files of its directory alone."""
    if (path / "DONE").exists():
        return "done"
    try:
        words = (path / ".lock").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return "stopped"
    if len(words) < 4 or words[3] != platform.node():  # "process 12 on HOST", or not yet written
        return f"running on {words[3]}" if len(words) > 3 else "running"
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return "stopped"
    except PermissionError:  # it lives, and is another user's
        pass
    return "running"
