"""Builds a task's local data set with the task's builder."""

from __future__ import annotations

from typing import Any

from calql.data.readers.local import is_built
from calql.tasks import Progress, Task, load_attribute
from calql.types import InputError


def build(
    task: Task,
    seed: int = 0,
    transitions: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> str:
    """Build and store the task's local data, replacing older ones; returns their Minari id.

    Args:
        task: the task, whose `builder` makes the data.
        seed: seed of all random numbers.
        transitions: number of transitions; None: the number in the task's recipe.
        workers: number of processes. The data do not depend on it. More than one needs an importable main module.
        progress: called as progress(done, total).
        **options: fields of the builder's `Recipe`.

    Raises:
        InputError: the task has no builder, an option is wrong, or a package is missing.
    """
    if task.builder is None:
        raise InputError(f"task '{task.id}' has no builder of local data; name a data set")
    return load_attribute(task.builder)(
        task, seed=seed, transitions=transitions, workers=workers, progress=progress, **options
    )


def build_if_missing(task: Task, uri: str | None = None, workers: int = 1, progress: Progress | None = None) -> bool:
    """Build the task's local data if `uri` (by default `task.data`) names them and they do not exist yet.

    Returns whether they were built. Arguments and errors are those of `build`.
    """
    if (uri or task.data) != f"local:{task.id}" or task.builder is None or is_built(task.id):
        return False
    build(task, workers=workers, progress=progress)
    return True
