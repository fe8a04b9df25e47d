"""`calql tune`: a search for good options, resumable, on this machine."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import tyro

from calql.cli.options import Settings, flat
from calql.types import InputError


def tune(
    plan: Path | None = None,
    out: Path = Path("tuned"),
    trials: int = 20,
    objective: str = "regret",
    workers: int | None = None,
    seed: int = 0,
    pruning: bool = True,
    options: Settings = (),
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Search the [space] of a plan for good options with Optuna; run the command again to continue where it stopped.

    Example: calql tune --plan examples/tune.toml --out tuned --trials 20

    Args:
        plan: A TOML file with one method, and a table [space] (see docs/tune.md).
        out: Folder of the search: its trials' run directories, its journal, trials.csv and tune.html.
        trials: Number of trials, those of earlier starts included.
        objective: Column of summary.json, averaged over the runs of a trial: regret, dip and wall_s are minimised,
            score_before, score_after and relative_improvement maximised.
        workers: Number of parallel runs; by default one per core, or one on a machine with a GPU.
        seed: Seed of the sampler of options (seeds of the runs are the plan's).
        pruning: Whether a trial that is worse than the median of the others, at the same evaluation, is stopped.
        options: Any option by name, for all runs (applied after the plan's).
        dry_run: Check the plan, print what would be searched, and stop.
    """
    from calql.cli import common
    from calql.machine import refuse_workers
    from calql.sweeps import read_plan
    from calql.sweeps.search import Search

    if plan is None:
        raise InputError("nothing to search; give --plan FILE.toml with a table [space] (see docs/tune.md)")
    if trials < 1:
        raise InputError(f"trials is {trials}; it must be at least 1")
    if workers is not None:
        refuse_workers("workers", workers)
    asked = read_plan(plan)
    asked = dataclasses.replace(asked, options=(*asked.options, *flat(options)))
    search = Search(asked, out, objective, seed, pruning)
    runs = len(asked.tasks) * len(asked.seeds)
    if dry_run:
        for dimension in search.dimensions:
            print(f"{dimension.name}: {dimension}")
        each = "1 run" if runs == 1 else f"{runs} runs"
        print(f"{trials} trials of {each}, {search.evaluations + 1} evaluations per run, by {objective}")
        return 0
    from calql.cli.hints import next_step, or_step
    from calql.reports.search import write_search  # before the search: it needs an extra

    with search.open():
        for task in {job.experiment.task.id: job for job in search.jobs((), out / "trials" / "none")}.values():
            common.build_missing(task.experiment.data.uri, task.experiment.task)
        try:
            _show(search, trials, workers)
        finally:
            commands = write_search(search, out)
    common.console.print(f"all trials: {out / 'tune.html'}, {out / 'trials.csv'}", soft_wrap=True)
    for say, command in zip((next_step, *[or_step] * len(commands)), commands, strict=False):
        say(*command)
    return 0


def _show(search, trials: int, workers: int | None) -> None:
    """Do the search with a progress bar for each trial that is running, and a line for each that is over."""
    from calql.cli import common
    from calql.sweeps.search import best_first

    with common.bar() as progress, closing(search.run(trials, workers)) as polls:
        whole, bars = progress.add_task("trials", total=trials, note=""), {}
        told = {one.number for one in search.over()}
        for poll in polls:
            under_way = 0.0
            for number, jobs in poll.running.items():
                states = [common.run_progress(job.out) for job in jobs]
                done, total = sum(state[0] for state in states), sum(state[1] or 0 for state in states)
                under_way += done / total if total else 0.0
                if number not in bars:
                    bars[number] = progress.add_task(f"trial {number}", total=None, note="")
                progress.update(bars[number], completed=done, total=total or None, note=states[-1][2])
            for number in bars.keys() - poll.running.keys():
                progress.remove_task(bars.pop(number))
            best = best_first(poll.over, search.objective)
            for one in (one for one in poll.over if one.number not in told):
                told.add(one.number)
                value = "" if one.value is None else f"   {search.objective} {one.value:.3g}"
                said = f"trial {one.number} {one.state}{value}   {' '.join(one.options)}   {one.why}".rstrip()
                progress.console.print(said, highlight=False, markup=False, soft_wrap=True)
            note = f"best {search.objective} {best[0].value:.3g} (trial {best[0].number})" if best else ""
            progress.update(whole, completed=len(poll.over) + under_way, note=note)
