"""What several commands share: the run that the user asks for, loading data with checks, progress, the summary."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from calql import trackers as tracking
from calql.cli.signals import until_stopped
from calql.data.episodes import Episodes
from calql.machine import program, threads
from calql.paper.methods import DEFAULT_METHOD
from calql.paper.tasks import DEFAULT_TASK, TASKS
from calql.tasks import Task, load_attribute
from calql.training.experiment import Experiment
from calql.training.loop import Event
from calql.training.options import differs_from_paper, experiment, fields_of, read_options
from calql.training.run_dir import RunDir
from calql.types import InputError

console = Console()
UNIT = {"offline": "gradient", "online": "env"}
"""What the clock of a phase counts."""


class Asked(NamedTuple):
    """The run that a command's options ask for; None: not given."""

    task: str | None
    method: str | None
    scale: str | None
    seed: int | None
    data: str | None
    options: tuple[str, ...]

    def with_defaults(self) -> tuple[str, str, str, int, str | None, tuple[str, ...]]:
        """All fields, with the default task, method, scale and seed where none is given."""
        named = self.task or DEFAULT_TASK, self.method or DEFAULT_METHOD, self.scale or "laptop", self.seed or 0
        return (*named, self.data, self.options)

    def experiment(self) -> Experiment:
        """The experiment that the options describe."""
        return experiment(*self.with_defaults())

    def given(self) -> dict[str, str]:
        """The options of --set by name, as they were written."""
        return read_options(self.options)

    def default_folder(self) -> Path:
        """Run directory if --out is not given."""
        task, method, _, seed, *_ = self.with_defaults()
        return Path("runs") / task.replace(":", ".") / method.replace(":", ".") / f"seed-{seed}"

    def refuse_other(self, run_dir: RunDir, saved: Experiment) -> None:
        """Raise InputError if a given task, method, scale, seed or data URI differs from the saved run's."""
        there = {"task": saved.task.id, "method": saved.method, "scale": saved.scale, "seed": saved.seed}
        for name, value in (there | {"data": saved.data.uri}).items():
            asked = getattr(self, name)
            if asked is not None and asked != value:
                raise InputError(f"{run_dir.path} holds a run with {name} '{value}', not '{asked}'; leave it out")


def differs(made: Experiment) -> dict[str, dict[str, Any]]:
    """Options whose values differ from the same task and method at `paper` scale."""
    return differs_from_paper(made, made.task.id, made.method)


def note(text: str) -> None:
    """Print a note."""
    console.print(f"[yellow]note[/yellow] {text}", highlight=False)


def load_data(experiment: Experiment) -> Episodes:
    """The run's data, built first if they are local and missing, checked against the task and its environment.

    Raises InputError for every problem that makes training pointless; prints warnings.
    """
    from calql.training.start import open_for

    build_missing(experiment.data.uri, experiment.task)
    episodes, report = open_for(experiment)
    for warning in report.warnings:
        note(warning)
    return episodes


def build_missing(uri: str | None, task: Task) -> None:
    """Build the local data that the URI names, this task's or another's, with a progress bar, if they are missing."""
    from calql.data.load import is_missing

    name = (uri or "").removeprefix("local:")
    owner = task if task.id == name else TASKS.get(name)
    if owner is not None and is_missing(owner, uri):
        console.print(f"The data of {name} are not on this machine yet; building them.")
        build(owner)


def build(
    task: Task, seed: int = 0, transitions: int | None = None, workers: int | None = None, options: Sequence[str] = ()
) -> str:
    """Run the task's builder with a progress bar, by default on all cores; returns the Minari id."""
    assert task.builder is not None
    recipe = load_attribute(f"{task.builder.partition(':')[0]}:Recipe")
    of_recipe = fields_of(recipe, options)
    workers = threads() if workers is None else workers
    with bar() as progress:
        row = progress.add_task("data", total=None, note="")
        return load_attribute(task.builder)(
            task,
            seed=seed,
            transitions=transitions,
            workers=workers,
            progress=lambda done, total: progress.update(row, completed=done, total=total),
            **of_recipe,
        )


def bar() -> Progress:
    """The progress bar of every long command."""
    return Progress(
        TextColumn("{task.description:>22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def show(experiment: Experiment, out: Path, events: Generator[Event], tracker_names: Sequence[str] = ()) -> None:
    """Do a run with a progress bar (one line per evaluation if the output is no terminal)."""
    trackers = tracking.open_trackers(tracker_names, experiment, out)
    try:
        with bar() as progress:
            rows = {
                phase.name: progress.add_task(
                    f"{phase.name} ({'gradient' if phase.name == 'offline' else 'env'} steps)",
                    total=phase.length,
                    note="",
                )
                for phase in experiment.phases
            }
            said = ""
            for event in until_stopped(events, events.close, command_line("train", "--resume", "--out", out)):
                for tracker in trackers:
                    tracker(event)
                if event.kind == "evaluation":
                    said = f"score {float(event.info['score_mean']):.2f}"
                    if not console.is_terminal:
                        print(f"{event.phase:8s}{event.step:9d} / {event.total}   {said}", flush=True)
                elif event.kind == "notice":
                    progress.console.print(f"[yellow]note[/yellow] {event.info['text']}", highlight=False)
                progress.update(rows[event.phase], completed=event.step, note=said)
    finally:
        events.close()  # whatever stopped the run: close the environments, release the lock
        tracking.close(trackers)


def print_summary(run_dir: RunDir) -> None:
    """Print the results and the next command."""
    summary = json.loads((run_dir.path / "summary.json").read_text())

    def number(name: str) -> str:
        return "-" if summary.get(name) is None else f"{summary[name]:.2f}"

    console.print(
        f"\nscore {number('score_before')} → {number('score_after')}   regret {number('regret')}   dip {number('dip')}"
        f"   in {summary['wall_s']:.0f} s\nrun directory: {run_dir.path}"
    )
    console.print(f"next: calql report {run_dir.path} --out report    (or: calql eval {run_dir.path})")


def print_config(experiment: Experiment) -> None:
    """Print the experiment as JSON, with what differs from the paper."""
    from calql.training.experiment import encode
    from calql.training.run_dir import plain

    print(json.dumps({"experiment": encode(experiment), "differs_from_paper": plain(differs(experiment))}, indent=2))


def print_plan(experiment: Experiment, episodes: Episodes, run_dir: RunDir) -> None:
    """Print what a run would do."""
    table = Table("phase", "update rule", "gradient steps", "env steps", "offline share")
    for phase in experiment.phases:
        share = "union" if phase.mixing < 0 else f"{phase.mixing:g}"
        steps = phase.gradient_steps(experiment.task.horizon), phase.length if phase.name == "online" else 0
        table.add_row(phase.name, type(phase.algorithm).__name__, *map(str, steps), share)
    console.print(
        f"{experiment.task.id} · {experiment.title} · {experiment.scale} · seed {experiment.seed} → {run_dir.path}"
    )
    console.print(
        f"data: {experiment.data.uri}, {episodes.num_episodes} episodes, {episodes.num_transitions} transitions"
    )
    console.print(table)


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs, so that a sweep compiles once."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "calql" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def command_line(*arguments: object) -> str:
    """A `calql` command as it must be typed in this shell."""
    return shlex.join([*program(), *map(str, arguments)])


def run_progress(path: Path) -> tuple[int, int | None, str]:
    """(steps done, total steps, note) of a run in another process, read from its run directory."""
    from calql.training.record import read_record

    run_dir = RunDir(path)
    if not (path / "config.json").exists():
        return 0, None, "starting"
    made = read_record(run_dir).experiment
    total = sum(phase.gradient_steps(made.task.horizon) for phase in made.phases)
    evaluated, trained = run_dir.read_rows("eval.csv")[-1:], run_dir.read_rows("train.csv")[-1:]
    done = max([int(row["grad_step"]) for row in (*evaluated, *trained)], default=0)
    return done, total, f"{evaluated[0]['phase']}, score {float(evaluated[0]['score_mean']):.2f}" if evaluated else ""
