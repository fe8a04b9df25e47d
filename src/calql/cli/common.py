"""What several commands share: the run that the user asks for, loading data with checks, progress, the summary."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Generator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from calql import trackers as tracking
from calql.cli.hints import next_step, or_step
from calql.cli.live import Bars, Live
from calql.cli.signals import until_stopped
from calql.data.episodes import Episodes
from calql.data.load import missing_from
from calql.machine import cache, program, threads
from calql.paper.tasks import TASKS
from calql.tasks import Task, load_attribute
from calql.training.duration import Pace, measure, spoken
from calql.training.experiment import Experiment, encode
from calql.training.loop import Event
from calql.training.options import differs_from_paper, fields_of
from calql.training.record import Saved, read_record
from calql.training.run_dir import RunDir, plain
from calql.training.schedule import Counters, Schedule
from calql.training.start import open_again, open_for

console = Console()


def note(text: str) -> None:
    """Print a note."""
    console.print(f"[yellow]note[/yellow] {escape(text)}", highlight=False, soft_wrap=True)


def load_data(experiment: Experiment, again: Saved | None = None) -> Episodes:
    """The run's data, built first if they are local and missing, and checked (see `open_for`); prints all notes.

    `again`: the record of a run that goes on while another process has its environment (see `open_again`).
    """
    build_missing(experiment.data.uri, experiment.task)
    episodes, report = open_for(experiment) if again is None else open_again(experiment, again)
    for text in (*episodes.notes, *report.warnings):
        note(text)
    return episodes


def build_missing(uri: str | None, task: Task) -> None:
    """Build the local data that the URI names, this task's or another's, with a progress bar, if they are missing."""
    owners = (missing_from(owner, uri) for owner in (task, *TASKS.values()) if uri)
    if (owner := next(filter(None, owners), None)) is not None:
        console.print(f"{owner.data} is not on this machine yet; building it.")
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
        tenths = 0

        def show_progress(done: int, total: int) -> None:
            nonlocal tenths
            progress.update(row, completed=done, total=total)
            if not console.is_terminal and 10 * done // total > tenths:
                tenths = 10 * done // total
                left = progress.tasks[row].time_remaining
                told = f"   {spoken(left)} left" if left else ""
                print(f"{done:9d} / {total}{told}", flush=True)

        return load_attribute(task.builder)(
            task, seed=seed, transitions=transitions, workers=workers, progress=show_progress, **of_recipe
        )


def bar(remaining: bool = True) -> Bars:
    """The progress bar of every long command; `remaining`: each row tells the time to its own end."""
    return Bars(
        TextColumn("{task.description:>22}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *((TextColumn("left"), TimeRemainingColumn()) if remaining else ()),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def show(experiment: Experiment, out: Path, events: Generator[Event], tracker_names: Sequence[str] = ()) -> None:
    """Do a run with a progress bar and a line on its newest losses and episodes; if the output is no terminal, with one
    line per evaluation."""
    trackers = tracking.open_trackers(tracker_names, experiment, out)
    try:
        with bar(remaining=False) as progress:
            rows = {}
            for phase in experiment.phases:
                title = f"{phase.name} ({'gradient' if phase.name == 'offline' else 'env'} steps)"
                rows[phase.name] = progress.add_task(title, total=phase.length, note="")
            said, pace, live = "", Pace(experiment), Live()
            how_to_continue = command_line("train", "--resume", "--out", out)
            for event in until_stopped(pace.timed(events), events.close, how_to_continue):
                for failure in trackers.tell(event):
                    note(failure)
                live.saw(event)
                if event.kind == "evaluation":
                    said = scored(event.info["score_mean"])
                elif event.kind == "notice":
                    note(event.info["text"])
                left = pace.left()
                now = f"{said}   {spoken(left)} left" if left else said
                if event.kind == "evaluation" and not console.is_terminal:
                    print(f"{event.phase:8s}{event.step:9d} / {event.total}   {now}   {live}".rstrip(), flush=True)
                for phase in experiment.phases[: [p.name for p in experiment.phases].index(event.phase)]:
                    progress.update(rows[phase.name], completed=phase.length)  # before a run that was resumed
                over = event.step == event.total  # of this phase: its row stays as it is
                progress.below = str(live)
                progress.update(rows[event.phase], completed=event.step, note=said if over else now)
    finally:
        events.close()  # whatever stopped the run: close the environments, release the lock
        for failure in trackers.close():
            note(failure)


def print_summary(run_dir: RunDir) -> None:
    """Print the results and the next command."""
    summary = json.loads((run_dir.path / "summary.json").read_text())

    def number(name: str) -> str:
        return "-" if summary.get(name) is None else f"{summary[name]:.2f}"

    measured = f"score {number('score_before')} → {number('score_after')}   regret {number('regret')}"
    unknown = summary["score_before"] is None and summary["score_after"] is None
    measured = "score not measured" if unknown else f"{measured}   dip {number('dip')}"
    console.print(f"\n{measured}   in {summary['wall_s']:.0f} s\nrun directory: {run_dir.path}", soft_wrap=True)
    next_step("report", run_dir.path, "--out", "report")
    or_step("eval", run_dir.path)


def print_config(experiment: Experiment, task: Task | None = None) -> None:
    """Print the experiment as JSON, with what differs from the paper; `task`: its row, if it was looked up already."""
    differs = differs_from_paper(experiment, task or experiment.task.id, experiment.method)
    print(json.dumps({"experiment": encode(experiment), "differs_from_paper": plain(differs)}, indent=2))


def print_plan(experiment: Experiment, episodes: Episodes, run_dir: RunDir, at: Counters) -> None:
    """Print what a run would do from a position on."""
    with console.status("measuring how long it would take"):
        pace = measure(experiment, episodes, at)

    def about(part: str) -> str:
        seconds = pace.seconds(part)
        return "" if seconds is None else spoken(seconds)

    table = Table("phase", "update rule", "gradient steps", "env steps", "offline share", "takes about")
    for phase in experiment.phases:
        share = "union" if phase.mixing < 0 else f"{phase.mixing:g}"
        steps = phase.gradient_steps(experiment.task.horizon), phase.length if phase.name == "online" else 0
        table.add_row(phase.name, type(phase.algorithm).__name__, *map(str, steps), share, about(phase.name))
    table.add_row("evaluation", "", "", "", "", about("evaluation"))
    e = experiment
    console.print(f"{e.task.id} · {e.title} · {e.scale} · seed {e.seed} → {run_dir.path}")
    console.print(f"data: {e.data.uri}, {episodes.num_episodes} episodes, {episodes.num_transitions} transitions")
    console.print(table)
    if begun := at != Counters():
        schedule = Schedule(e)
        phase = schedule.phase(at)
        console.print(
            f"goes on at {phase.name} step {schedule.now(at)} of {phase.length}; the times are of what is left"
        )
    if (left := pace.left()) is not None:
        console.print(f"{'in all' if not begun else 'still'} about {spoken(left)} on this machine as it is now")


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs, so that a sweep compiles once; the user's own settings of JAX win."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache() / "jax"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def command_line(*arguments: object) -> str:
    """A `calql` command as it must be typed in this shell."""
    return shlex.join([*program(), *map(str, arguments)])


def run_progress(path: Path) -> tuple[int, int | None, str]:
    """(steps done, total steps, note) of a run in another process, read from its run directory."""
    run_dir = RunDir(path)
    if not (path / "config.json").exists():
        return 0, None, "starting"
    made = read_record(run_dir).experiment
    total = sum(phase.gradient_steps(made.task.horizon) for phase in made.phases)
    evaluated, trained = run_dir.read_rows("eval.csv")[-1:], run_dir.read_rows("train.csv")[-1:]
    done = max([int(row["grad_step"]) for row in (*evaluated, *trained)], default=0)
    return done, total, f"{evaluated[0]['phase']}, {scored(evaluated[0]['score_mean'])}" if evaluated else ""


def scored(value: float | str | None) -> str:
    """A score, possibly from a CSV file, in words."""
    return "score not measured" if value in (None, "") else f"score {float(value):.2f}"
