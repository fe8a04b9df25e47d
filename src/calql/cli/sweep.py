"""`calql sweep`: many runs, resumable, on this machine."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Literal

import tyro

from calql.cli.options import Numbers, Settings, Texts, flat
from calql.machine import refuse_workers
from calql.types import InputError, RunError


def sweep(
    tasks: Texts = (),
    methods: Texts = (),
    plan: Path | None = None,
    seeds: Numbers = (),
    out: Path = Path("runs"),
    scale: str | None = None,
    data: str | None = None,
    engine: Literal["local"] = "local",
    workers: int | None = None,
    eval_workers: int = 0,
    options: Settings = (),
    trackers: Texts = (),
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Run every task × method × seed; run the command again to continue where it stopped.

    Example: calql sweep --tasks pointmaze-medium-narrow --methods cal-ql cql --seeds 0 1 2 --out runs

    Args:
        tasks: Task ids.
        methods: Method ids.
        plan: A TOML file with tasks, methods, seeds and options for some of the methods (see results/plans).
        seeds: Seeds; by default the plan's, or 0 to 4.
        out: Folder of the run directories: OUT/TASK/METHOD/seed-N.
        scale: smoke, laptop, grade or paper; by default the plan's, or laptop.
        data: Data URI; by default the task's own.
        engine: Where the runs are executed.
        workers: Number of parallel runs; by default one per core, or one on a machine with a GPU.
        eval_workers: Processes per run that evaluate copies of its policy while training goes on; 0: it waits.
        options: Any option by name, for all runs (applied after the plan's).
        trackers: tensorboard, wandb, or package.module:factory, for all runs, besides the plan's (see
            docs/trackers.md).
        print_config: Print the resolved settings of every task × method, and stop.
        dry_run: List the runs, which of them are done, and stop.
    """
    from calql.cli import common
    from calql.sweeps import Plan, Variant, make_jobs, read_plan

    for name, count, least in (("workers", workers, 1), ("eval_workers", eval_workers, 0)):
        if count is not None:
            refuse_workers(name, count, least)
    if plan is None and not (tasks and methods):
        raise InputError("nothing to run; give --tasks and --methods, or --plan FILE.toml")
    if plan is not None and (tasks or methods):
        raise InputError("the plan names tasks and methods; leave --tasks and --methods out")
    asked = read_plan(plan) if plan else Plan(flat(tasks), tuple(map(Variant, flat(methods))))
    given = {name: value for name, value in {"seeds": flat(seeds), "scale": scale, "data": data}.items() if value}
    added = {"options": (*asked.options, *flat(options)), "trackers": (*asked.trackers, *flat(trackers))}
    asked = dataclasses.replace(asked, **given, **added)
    jobs = make_jobs(asked, out, eval_workers)
    if print_config:
        for job in jobs[: len(asked.tasks) * len(asked.variants)]:
            common.print_config(job.experiment)
        return 0
    if dry_run:
        for job in jobs:
            print("done " if job.done else "to do", common.command_line(*job.arguments()))
        return 0
    run_jobs(jobs, workers)
    common.console.print(f"next: {common.command_line('report', out, '--out', 'report')}", soft_wrap=True)
    return 0


def run_jobs(jobs: list, workers: int | None = None) -> None:
    """Run the jobs on this machine, one progress bar per job. Raises RunError, naming the log, if a run failed."""
    from calql.cli import common
    from calql.sweeps.local import log_path, run_local

    if workers is not None:
        refuse_workers("workers", workers)
    for job in jobs:
        common.build_missing(job.experiment.data.uri, job.experiment.task)
    several = len({job.experiment.task.id for job in jobs}) > 1
    with common.bar() as progress, closing(run_local(jobs, workers)) as engine:
        whole = progress.add_task("runs", total=len(jobs), note="")
        bars: dict = {}
        ended: dict = {}
        for status in engine:
            under_way = 0.0  # of the runs in progress, in runs: what is left is told before the first has ended
            for job in status.running:
                done, total, note = common.run_progress(job.out)
                under_way += done / total if total else 0.0
                if job not in bars:
                    title = f"{job.experiment.task.id} {job.name}" if several else job.name
                    bars[job] = progress.add_task(title, total=total, note="")
                progress.update(bars[job], completed=done, total=total, note=note)
            for job in status.ended.keys() - ended.keys():
                if job in bars:
                    progress.remove_task(bars.pop(job))
                if not common.console.is_terminal:
                    print(f"{len(status.ended)}/{len(jobs)} {job.name}: {common.run_progress(job.out)[2]}", flush=True)
            ended = status.ended
            progress.update(whole, completed=len(ended) + under_way, note="")
    failed = [job for job in jobs if ended.get(job)]
    if failed:
        last = log_path(failed[0]).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RunError(
            f"{len(failed)} of {len(jobs)} runs failed; the first: {failed[0].name}: {''.join(last)} "
            f"(log: {log_path(failed[0])}); run the same command again to continue"
        )
