"""One page per task with its figures, written by `python tools/cards`.

A page is made from three sources: the task's row, its line in `data.csv` (written when its data are measured), and
the prose of its family, `notes/FAMILY.md`, where the family is the environment's module. So pages can be rewritten
without data, and a test compares them with the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from data_table import data_row, read_table, write_table
from matplotlib.image import imsave
from task_page import card, index

from calql.data.load import load_for
from calql.envs.make import make_env
from calql.paper.methods import DEFAULT_METHOD
from calql.paper.tasks import TASKS, get_task
from calql.reports.data_figures import data_figure
from calql.reports.style import LOOK
from calql.tasks import Task
from calql.training.options import experiment
from calql.types import InputError

PLAIN = {"Software": None}
"""Keeps version numbers out of images, so that equal images are equal files."""


def write_card(name: str, out: Path) -> Path:
    """Measure the task's data, draw them and the environment, and write its page and the index; returns the page.

    Raises InputError for an unknown task, or one without data of its own.
    """
    task = get_task(name)
    if task.data is None:
        raise InputError(f"task '{name}' has no data of its own, and so no page; inspect its data with calql data info")
    episodes = load_for(task, task.data)
    row = data_row(episodes, task)
    made = experiment(task, DEFAULT_METHOD)
    figure = data_figure(episodes, task, float(row["discount"]), made.data.tail_bootstrap)
    with _writing(out):
        imsave(out / f"{task.id}.png", _image(task), metadata=PLAIN, pil_kwargs={"optimize": True})
        with mpl.rc_context(LOOK):
            figure.savefig(out / f"{task.id}-data.png", dpi=130, metadata=PLAIN)
        write_table(out / "data.csv", {**read_table(out / "data.csv"), task.id: row})
    write_pages(out, [task])
    return out / f"{task.id}.md"


def _image(task: Task) -> np.ndarray:
    """[H, W, 3] the environment after a reset.

    In a separate function: while one rendered environment is kept, the next one in the process can come out black.
    """
    with make_env(task, render_mode="rgb_array") as env:
        env.reset(seed=0)
        return env.render()


def write_pages(out: Path, tasks: Sequence[Task] = tuple(TASKS.values())) -> None:
    """Write the tasks' pages and the index, from the table of tasks, `data.csv` and the notes."""
    with _writing(out):
        for name, text in pages(out, tasks).items():
            (out / name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Create the folder. Raises InputError if it or a file inside the block cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def pages(out: Path, tasks: Sequence[Task] = tuple(TASKS.values())) -> dict[str, str]:
    """File name → text, as `write_pages` writes them."""
    rows = read_table(out / "data.csv")
    texts = {f"{task.id}.md": card(task, rows.get(task.id), out / "notes" / f"{family(task)}.md") for task in tasks}
    return texts | {"README.md": index(rows)}


def family(task: Task) -> str:
    """The last part of the name of the module that makes the task's environment."""
    module = task.env.partition(":")[0] if isinstance(task.env, str) else task.env.__module__
    return module.rpartition(".")[2]
