"""Episodes from many attempts: in parallel, in order, resumable, and the same for any number of workers.

An *attempt* depends only on its number. Attempts are made one shard at a time, in this process or in others, and
every shard is kept on disk until the data set is stored, so that an interrupted build can continue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import calql
from calql.commit import git_commit
from calql.data.arrays import named_leaves, nest
from calql.data.minari_writer import write_minari
from calql.data.readers.local import local_id
from calql.data.readers.minari import root
from calql.envs.make import make_env
from calql.machine import refuse_workers
from calql.tasks import Task
from calql.types import Episode, InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Attempt = Callable[[int], Episode | None]
"""Attempt number i; None if there is nothing to record. Picklable by reference, and dependent only on i."""
Keep = Callable[[Episode, Sequence[Episode]], bool]
"""Whether to keep an episode, given the episodes kept so far."""
Progress = Callable[[int, int], None]
"""Called as progress(done, total), in transitions or in episodes."""
Recipe = TypeVar("Recipe", bound="DataclassInstance")

SHARD = 4
"""Attempts per shard, which a worker reports together; an interruption loses at most one shard per worker."""
MOST_REJECTED = 100
"""Maximum number of attempts per kept episode; beyond it a recipe counts as impossible."""


def build(
    kind: type,
    demonstrate: Callable[[Any, int, int], Episode | None],
    task: Task,
    seed: int = 0,
    transitions: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> str:
    """Collect and store the task's data set, replacing an older one; return its Minari id.

    A builder binds `kind`, its `Recipe` with the fields `options`, and `demonstrate(recipe, seed, index)`,
    which makes attempt number `index`. Raises InputError for an unknown or impossible option, and as `stream`.
    """
    recipe = make_recipe(kind, task, transitions, options)
    attempt = partial(demonstrate, recipe, seed)
    made = stream(attempt, recipe.transitions, workers=workers, progress=progress, resume=(task, recipe, seed))
    with contextlib.closing(made) as episodes:
        return store(task, episodes, recipe, seed)


def _refuse_unwritable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"the data folder {folder} cannot be written ({error.strerror}); set MINARI_DATASETS_PATH to a folder of "
            "yours"
        ) from error


def make_recipe(kind: type[Recipe], task: Task, transitions: int | None, options: dict[str, Any]) -> Recipe:
    """The task's recipe, overridden by the caller's options; `env_options` of the same name hold
    for both.

    Raises InputError for an unknown option.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    chosen = {"horizon": task.horizon} | dict(task.env_options)
    chosen = {name: value for name, value in chosen.items() if name in names}
    chosen |= dict(task.recipe) | ({} if transitions is None else {"transitions": transitions}) | options
    if unknown := sorted(chosen.keys() - names):
        raise InputError(f"the recipe has no option {', '.join(unknown)}; the options are {', '.join(sorted(names))}")
    return kind(**chosen)


def collect(*arguments: Any, **options: Any) -> list[Episode]:
    """All episodes of `stream`, with its arguments, as a list."""
    return list(stream(*arguments, **options))


def stream(
    attempt: Attempt,
    total: int,
    *,
    unit: str = "transitions",
    keep: Keep | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    resume: tuple[Task, Any, int] | None = None,
) -> Generator[Episode, None, None]:
    """Episodes, in the order of their attempts, until there are `total` transitions (or episodes).

    One at a time: with images, a data set may be larger than memory. Only `keep` gets all kept episodes.

    Args:
        attempt: makes attempt number i.
        total: minimum number of transitions or episodes.
        unit: `transitions` or `episodes`.
        keep: which episodes to keep; None: all.
        workers: number of processes; 1: make the attempts in this process.
        progress: called as progress(done, total) after every kept episode.
        resume: (task, recipe, seed), the key under which shards are kept until `store`; None: keep none.

    Raises:
        InputError: `total` below 1, an impossible number of workers, a data folder that cannot be written, or a recipe
            with hardly any attempt that can be kept.
    """
    if total < 1:
        raise InputError(f"{unit} is {total}; it must be at least 1")
    refuse_workers("workers", workers)
    kept: list[Episode] = []
    done = number_kept = 0
    if resume:
        _refuse_unwritable(root())
    folder = _folder(*resume) if resume else None
    with _timed(folder), contextlib.closing(_attempts(attempt, workers, folder)) as made:
        for number, episode in enumerate(made, 1):
            if episode is not None and (keep is None or keep(episode, kept)):
                kept += [episode] if keep else []
                number_kept += 1
                done += episode.length if unit == "transitions" else 1
                if progress is not None:
                    progress(min(done, total), total)
                yield episode
                if done >= total:
                    return
            if number > MOST_REJECTED * (number_kept + 1):
                raise InputError(f"only {number_kept} of {number} attempts could be kept; relax the recipe")
    raise AssertionError("attempts never end")


def store(task: Task, episodes: Iterable[Episode], recipe: Any, seed: int) -> str:
    """Write the task's local data set, replacing an older one, and delete the shards; returns its Minari id."""
    env, folder = make_env(task), _folder(task, recipe, seed)

    def provenance() -> dict[str, Any]:
        about = {"builder": task.builder, "seed": seed, "recipe": dataclasses.asdict(recipe)}
        return about | {"build_s": _seconds(folder), "git_commit": git_commit()}

    name = str(task.data).removeprefix("local:") if task.building(task.data) else task.id
    made = write_minari(local_id(name), episodes, env, provenance)
    env.close()
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
    return made


# -- attempts, in order ------------------------------------------------------------------------------------------------


def _attempts(attempt: Attempt, workers: int, folder: Path | None) -> Generator[Episode | None, None, None]:
    """attempt(0), attempt(1), … without end."""
    shard = partial(_shard, attempt, folder)
    if workers == 1:
        for index in count():
            yield from shard(index)
    with _one_thread_each():
        # Not a fork: a process with compiled programs or an open GL context does not survive one.
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_let_the_parent_stop)
        try:
            upcoming = count()
            running = deque(pool.submit(shard, next(upcoming)) for _ in range(2 * workers))
            while True:
                yield from running.popleft().result()
                running.append(pool.submit(shard, next(upcoming)))
        finally:
            pool.shutdown(cancel_futures=True)


def _shard(attempt: Attempt, folder: Path | None, index: int) -> list[Episode | None]:
    """The attempts of one shard, from disk if they are there."""
    numbers = range(index * SHARD, (index + 1) * SHARD)
    if folder is None:
        return [attempt(number) for number in numbers]
    path = folder / f"{index:06d}.npz"
    # Absent or truncated: made again.
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return _read(path, numbers)
    episodes = [attempt(number) for number in numbers]
    _write(path, dict(zip(numbers, episodes, strict=True)))
    return episodes


def _write(path: Path, episodes: dict[int, Episode | None]) -> None:
    arrays = {}
    for number, episode in episodes.items():
        if episode is not None:
            fields = {name: value for name, value in episode._asdict().items() if value is not None}
            arrays |= dict(named_leaves(str(number), fields))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_suffix(".partial")
    with open(partial_path, "wb") as file:
        np.savez(file, **arrays)
    os.replace(partial_path, path)


def _read(path: Path, numbers: range) -> list[Episode | None]:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    trees = [nest(arrays, str(number)) for number in numbers]
    return [tree and Episode(**tree | {"truncated": bool(tree["truncated"])}) for tree in trees]


@contextlib.contextmanager
def _timed(folder: Path | None) -> Iterator[None]:
    """Add the wall time of the block to that of earlier parts of the build."""
    started = time.monotonic()
    try:
        yield
    finally:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "seconds").write_text(str((_seconds(folder) or 0.0) + round(time.monotonic() - started, 3)))


def _seconds(folder: Path) -> float | None:
    """Wall time of a build so far; None if it was not measured."""
    with contextlib.suppress(OSError, ValueError):
        return float((folder / "seconds").read_text())
    return None


def _folder(task: Task, recipe: Any, seed: int) -> Path:
    """Folder for the shards of a build; Minari ignores hidden folders."""
    what = json.dumps([task.builder, dataclasses.asdict(recipe), seed, calql.__version__], sort_keys=True)
    return root() / ".calql-building" / f"{task.id}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside use one linear-algebra thread each: there is already one process per core."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _let_the_parent_stop() -> None:
    """Ignore Ctrl-C, which reaches all processes of a terminal; the parent shuts the workers down."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
