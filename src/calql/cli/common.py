"""What several commands share: options, data with its checks, the progress bar, the summary."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from calql.data.episodes import Episodes
from calql.paper.methods import METHODS, get_method
from calql.paper.tasks import TASKS
from calql.tasks import Task, load_attribute
from calql.training.config import RunConfig, option_owners, parse_options, resolve, resolve_saved
from calql.training.loop import Trainer
from calql.training.run_dir import RunDir, plain
from calql.types import InputError

console = Console()


def resolve_options(
    task: str | None, method: str | None, scale: str | None, seed: int, data: str | None, options: Sequence[str]
) -> RunConfig:
    """The configuration of command-line options; task and method default to the demo's."""
    return resolve(task or next(iter(TASKS)), method or next(iter(METHODS)), scale or "laptop", seed, data, options)


def saved_config(run_dir: RunDir, **given: Any) -> RunConfig:
    """The configuration a run was started with. Raises InputError where an option given now contradicts it."""
    saved = run_dir.read_config()
    for name, value in given.items():
        if name == "options":
            known = saved.get("overrides", {})
            asked = parse_options(value, option_owners(get_method(saved["method"])))
            different = {k: v for k, v in asked.items() if plain(v) != known.get(k)}
            if different:
                raise InputError(f"{run_dir.path} was started with other options than {different}; leave --set out")
        else:
            before = saved["data"]["reference"] if name == "data" else saved[name]
            if value is not None and value != before:
                raise InputError(f"{run_dir.path} holds a run with {name} '{before}', not '{value}'; leave it out")
    return resolve_saved(saved)


def load_data(config: RunConfig) -> Episodes:
    """The run's data, built first where they are local and absent, checked against the task and its environment.

    Raises InputError for every problem that makes training senseless; prints warnings.
    """
    from calql.data.check.describe import check
    from calql.data.load import load_for
    from calql.envs.make import make_env

    if config.data is None:
        raise InputError(
            f"task '{config.task.id}' has no data of its own; name some with --data (see calql data --help)"
        )
    build_if_missing(config.data, config.task)
    episodes = load_for(config.task, config.data, config.protocol.cut_at_horizon)
    env = make_env(config.task)
    algorithm = config.phases[0].algorithm
    tail = config.protocol.tail_bootstrap
    report = check(episodes, config.task, env, algorithm.discount, tail_bootstrap=tail)
    env.close()
    if report.errors:
        raise InputError("; ".join(report.errors))
    for warning in report.warnings:
        console.print(f"[yellow]note[/yellow] {warning}", highlight=False)
    return episodes


def build_if_missing(reference: str, task: Task | None = None) -> None:
    """Build the local data set that the reference names, if it is one of ours and not there yet.

    `task`: the row to build it for, where options have changed the table's.
    """
    from calql.data.load import local_id
    from calql.data.readers.minari import root

    scheme, _, name = reference.partition(":")
    task = task if task is not None and task.id == name else TASKS.get(name)
    if scheme == "local" and task is not None and task.builder and not (root() / local_id(name)).exists():
        console.print(f"The data of {name} are not on this machine yet; building them.")
        build(task)


def build(
    task: Task, seed: int = 0, transitions: int | None = None, workers: int | None = None, options: Sequence[str] = ()
) -> str:
    """Run the task's builder with a progress bar, on all cores unless told otherwise; returns the Minari id."""
    recipe = load_attribute(f"{task.builder.partition(':')[0]}:Recipe")
    knobs = parse_options(options, [recipe])
    with bar() as progress:
        row = progress.add_task("data", total=None, note="")
        return load_attribute(task.builder)(
            task,
            seed=seed,
            transitions=transitions,
            workers=len(os.sched_getaffinity(0)) if workers is None else workers,
            progress=lambda done, total: progress.update(row, completed=done, total=total),
            **knobs,
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


def show(trainer: Trainer) -> None:
    """Run the trainer to its end with a progress bar (a line an evaluation where there is no terminal)."""
    with bar() as progress:
        rows = {
            phase.name: progress.add_task(
                f"{phase.name} ({'gradient' if phase.name == 'offline' else 'env'} steps)",
                total=phase.gradient_steps if phase.name == "offline" else phase.env_steps,
                note="",
            )
            for phase in trainer.config.phases
        }
        note = ""
        for event in trainer.run():
            if event.event == "evaluation":
                note = f"score {event.info['score_mean']:.2f}"
                if not console.is_terminal:
                    print(f"{event.phase:8s}{event.step:9d} / {event.total}   {note}", flush=True)
            elif event.event == "notice":
                progress.console.print(f"[yellow]note[/yellow] {event.info['text']}", highlight=False)
            progress.update(rows[event.phase], completed=event.step, note=note)
    trainer.close()


def print_summary(run_dir: RunDir) -> None:
    """What came out, and what to do next."""
    summary = json.loads((run_dir.path / "summary.json").read_text())

    def number(name: str) -> str:
        return "-" if summary.get(name) is None else f"{summary[name]:.2f}"

    console.print(
        f"\nscore {number('score_before')} → {number('score_after')}   regret {number('regret')}   dip {number('dip')}"
        f"   in {summary['wall_s']:.0f} s\nrun directory: {run_dir.path}"
    )
    console.print(f"next: calql report {run_dir.path} --out report    (or: calql eval {run_dir.path})")


def print_config(config: RunConfig) -> None:
    """The resolved settings as JSON: task, method, phases, every option, and what differs from the paper."""
    from calql.training.config import describe

    print(json.dumps(plain(describe(config, None)), indent=2))


def print_plan(config: RunConfig, episodes: Episodes, run_dir: RunDir) -> None:
    """What a run would do."""
    table = Table("phase", "update rule", "gradient steps", "env steps", "offline share")
    for phase in config.phases:
        share = "union" if phase.mixing < 0 else f"{phase.mixing:g}"
        table.add_row(
            phase.name, type(phase.algorithm).__name__, str(phase.gradient_steps), str(phase.env_steps), share
        )
    console.print(f"{config.task.id} · {config.method.title} · {config.scale} · seed {config.seed} → {run_dir.path}")
    console.print(
        f"data: {episodes.reference}, {episodes.num_episodes} episodes, {episodes.num_transitions} transitions"
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
    """A `calql` command as text."""
    return shlex.join(["calql", *map(str, arguments)])


def run_progress(path: Path) -> tuple[int, int | None, str]:
    """(steps done, steps in all, note) of a run that another process is doing, read from its run directory."""
    run_dir = RunDir(path)
    if not (path / "config.json").exists():
        return 0, None, "starting"
    total = sum(phase["gradient_steps"] for phase in run_dir.read_config()["phases"])
    evaluated, trained = run_dir.read_rows("eval.csv")[-1:], run_dir.read_rows("train.csv")[-1:]
    done = max([int(row["grad_step"]) for row in (*evaluated, *trained)], default=0)
    return done, total, f"{evaluated[0]['phase']}, score {float(evaluated[0]['score_mean']):.2f}" if evaluated else ""
