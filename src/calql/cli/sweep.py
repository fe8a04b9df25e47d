"""`calql sweep`: many runs, resumable, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from calql.types import RunError


def sweep(
    tasks: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    out: Path = Path("runs"),
    scale: str = "laptop",
    data: str | None = None,
    engine: Literal["local"] = "local",
    workers: int | None = None,
    options: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE …")] = (),
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Run every task × method × seed; run it again and it goes on where it stopped.

    Example: calql sweep --tasks pointmaze-medium-narrow --methods cal-ql cql --seeds 0 1 2 --out runs

    Args:
        tasks: Task ids.
        methods: Method ids.
        seeds: Seeds.
        out: Folder of the run directories: OUT/TASK/METHOD/seed-N.
        scale: smoke, laptop or paper.
        data: Data reference, where it is not the task's own.
        engine: Where to run.
        workers: Runs at a time; by default one a core.
        options: Any option by name, for all runs.
        print_config: Print the resolved settings of every task × method, and stop.
        dry_run: List the runs and which of them are done, and stop.
    """
    from calql.cli import common
    from calql.sweeps import make_plan
    from calql.training.config import parse_options, resolve

    plan = make_plan(tasks, methods, seeds, scale, out, data, options)
    if print_config:
        for task in tasks:
            for method in methods:
                common.print_config(resolve(task, method, scale, seeds[0], data, parse_options(options)))
        return 0
    if dry_run:
        for job in plan:
            print("done " if job.done else "to do", common.command_line(*job.arguments()))
        return 0
    run_plan(plan, workers)
    common.console.print(f"next: calql report {out} --out report")
    return 0


def run_plan(plan: list, workers: int | None = None) -> None:
    """Run a plan on this machine with one bar a running job. Raises RunError, with the log, where a run failed."""
    from calql.cli import common
    from calql.sweeps.local import log_path, run_local
    from calql.training.config import resolve

    for reference in {resolve(job.task, job.method, job.scale, 0, job.data).data for job in plan}:
        if reference:
            common.build_if_missing(reference)
    several = len({job.task for job in plan}) > 1
    with common.bar() as progress:
        whole = progress.add_task("runs", total=len(plan), note="")
        bars: dict = {}
        ended: dict = {}
        for status in run_local(plan, workers):
            for job in status.running:
                done, total, note = common.run_progress(job.out)
                if job not in bars:
                    title = f"{job.task} {job.name}" if several else job.name
                    bars[job] = progress.add_task(title, total=total, note="")
                progress.update(bars[job], completed=done, total=total, note=note)
            for job in status.ended.keys() - ended.keys():
                if job in bars:
                    progress.remove_task(bars.pop(job))
                if not common.console.is_terminal:
                    print(f"{len(status.ended)}/{len(plan)} {job.name}: {common.run_progress(job.out)[2]}", flush=True)
            ended = status.ended
            progress.update(whole, completed=len(ended), note="")
    failed = [job for job in plan if ended.get(job)]
    if failed:
        last = Path(log_path(failed[0])).read_text().strip().splitlines()[-1:]
        raise RunError(
            f"{len(failed)} of {len(plan)} runs failed; the first: {failed[0].name}: {''.join(last)} "
            f"(log: {log_path(failed[0])}); run the same command again to continue"
        )
