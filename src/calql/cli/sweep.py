"""`calql sweep`: many runs, resumable, on this machine or on a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from calql.cli.hints import next_step, without
from calql.cli.options import Numbers, Settings, Texts, flat
from calql.machine import refuse_workers
from calql.types import InputError, RunError

if TYPE_CHECKING:
    from calql.sweeps.engine import Engine

EngineOptions = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE …")]


def sweep(
    tasks: Texts = (),
    methods: Texts = (),
    plan: Path | None = None,
    seeds: Numbers = (),
    out: Path = Path("runs"),
    scale: str | None = None,
    data: str | None = None,
    engine: Literal["local", "slurm", "ray"] = "local",
    engine_options: EngineOptions = (),
    workers: int | None = None,
    eval_workers: int = 0,
    options: Settings = (),
    trackers: Texts = (),
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Run every task × method × seed; run the command again, with any engine, to continue where it stopped.

    Example: calql sweep --tasks pointmaze-medium-narrow --methods cal-ql cql --seeds 0 1 2 --out runs

    Args:
        tasks: Task ids; with --plan, only these of its tasks.
        methods: Method ids; with --plan, only these of its methods.
        plan: A TOML file with tasks, methods, seeds and options for some of the methods (see docs/sweep.md).
        seeds: Seeds; by default the plan's, or 0 to 4.
        out: Folder of the run directories: OUT/TASK/METHOD/seed-N.
        scale: smoke, laptop, desk or paper; by default the plan's, or laptop.
        data: Data URI; by default the task's own.
        engine: Where the runs are executed: on this machine, as a job array of SLURM, or as tasks of Ray (see
            docs/cluster.md).
        engine_options: What SLURM or Ray is asked for, e.g. partition=gpu time=240 mem=16GB gpus_per_task=1, or
            address=auto num_gpus=0.25.
        workers: Number of parallel runs; by default one per core, or one on a machine with a GPU; with SLURM or Ray, as
            many as there is room for.
        eval_workers: Processes per run that evaluate copies of its policy while training goes on; 0: it waits. On this
            machine's CPU they share the core of their run.
        options: Any option by name, for all runs (applied after the plan's).
        trackers: tensorboard, wandb, or package.module:factory, for all runs, besides the plan's (see
            docs/trackers.md).
        print_config: Print the resolved settings of every task × method, and stop.
        dry_run: List the runs, which of them are done, and stop.
    """
    from calql.cli import common
    from calql.sweeps import Plan, Variant, make_jobs, read_plan

    refuse_workers("eval_workers", eval_workers, least=0)
    if workers is not None and (workers < 1 or engine == "local"):
        refuse_workers("workers", workers)
    if plan is None and not (tasks and methods):
        raise InputError("nothing to run; give --tasks and --methods, or --plan FILE.toml")
    if plan is None:
        asked = Plan(flat(tasks), tuple(map(Variant, flat(methods))))
    else:
        asked = read_plan(plan).only(flat(tasks), flat(methods))
    given = {name: value for name, value in {"seeds": flat(seeds), "scale": scale, "data": data}.items() if value}
    added = {"options": (*asked.options, *flat(options)), "trackers": (*asked.trackers, *flat(trackers))}
    asked = dataclasses.replace(asked, **given, **added)
    chosen = None if print_config or dry_run else _engine(engine, flat(engine_options), out, workers, 1 + eval_workers)
    jobs = make_jobs(asked, out, eval_workers)
    if print_config:
        for job in jobs[: len(asked.tasks) * len(asked.variants)]:
            common.print_config(job.experiment)
    if dry_run:
        for job in jobs:
            print("done " if job.done else "to do", common.command_line(*job.arguments()))
        next_step(*without("--dry-run"))
    if chosen is None:
        return 0
    run_jobs(jobs, chosen)
    next_step("report", out, "--out", "report")
    return 0


def _engine(name: str, options: Sequence[str], out: Path, workers: int | None, cores: int) -> Engine:
    """The engine of that name. Raises InputError if it cannot be had here."""
    if name == "slurm":
        from calql.sweeps.slurm import Slurm

        return Slurm(options, out / "slurm", workers, cores)
    if name == "ray":
        from calql.sweeps.ray import Ray

        return Ray(options, workers, cores)
    from calql.sweeps.local import Local

    if options:
        raise InputError("--engine-options are for --engine slurm or ray; leave them out, or add one of these")
    return Local(workers)


def run_jobs(jobs: list, engine: Engine) -> None:
    """Run the jobs, one progress bar per job. Raises RunError, naming the log, if a run failed."""
    from calql.cli import common
    from calql.sweeps.process import log_path

    for job in jobs:
        common.build_missing(job.experiment.data.uri, job.experiment.task)
    several = len({job.experiment.task.id for job in jobs}) > 1
    bars: dict = {}
    ended: dict = {}
    try:
        with common.bar() as progress, closing(engine.run(jobs)) as statuses:
            whole = progress.add_task("runs", total=len(jobs), note="")
            for status in statuses:
                under_way = 0.0  # of the runs in progress, in runs: what is left is told before the first has ended
                for job in status.running:
                    done, total, note = common.run_progress(job.out)
                    under_way += done / total if total else 0.0
                    if job not in bars:
                        title = f"{job.experiment.task.id} {job.name}" if several else job.name
                        bars[job] = progress.add_task(title, total=total, note="")
                    progress.update(bars[job], completed=done, total=total, note=note)
                for job in bars.keys() - {*status.running}:  # ended, or queued again
                    progress.remove_task(bars.pop(job))
                if not common.console.is_terminal:
                    for job in status.ended.keys() - ended.keys():
                        said = common.run_progress(job.out)[2]
                        print(f"{len(status.ended)}/{len(jobs)} {job.name}: {said}", flush=True)
                ended = status.ended
                progress.update(whole, completed=len(ended) + under_way, note="")
    except (KeyboardInterrupt, SystemExit):
        common.note(engine.left())
        raise
    failed = [job for job in jobs if ended.get(job)]
    if failed:
        last = log_path(failed[0]).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RunError(
            f"{len(failed)} of {len(jobs)} runs failed; the first: {failed[0].name}: {''.join(last)} "
            f"(log: {log_path(failed[0])}); run the same command again to continue"
        )
