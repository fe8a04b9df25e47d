"""`calql train`: one run, from logged data to a fine-tuned policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from calql.cli.hints import next_step, without
from calql.cli.options import Settings, Texts, flat
from calql.data.readers import FORMS
from calql.data.readers.files import NoSuchFile
from calql.types import InputError


def train(
    task: str | None = None,
    method: str | None = None,
    seed: int | None = None,
    scale: str | None = None,
    out: Path | None = None,
    data: Annotated[str | None, tyro.conf.arg(help=f"A data URI, by default the task's own: {FORMS}.")] = None,
    resume: bool = False,
    pretrained: Path | None = None,
    init_from: str | None = None,
    eval_workers: int = 0,
    episodes_from: Path | None = None,
    options: Settings = (),
    trackers: Texts = (),
    explain: str | None = None,
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Pre-train on data, then fine-tune in the environment, evaluating throughout.

    Example: calql train --task pointmaze-medium-narrow --method cal-ql --seed 0 --out runs/first

    Args:
        task: A task id (see the README), or your own package.module:factory. Task, method, seed and scale that are not
            named are those of --pretrained or --init-from, if given.
        method: A method id (see the README), or your own package.module:row.
        seed: Seed of networks, batches, resets and exploration; 0 by default.
        scale: smoke (seconds), laptop (minutes on one core; the default), desk (up to an hour on one core) or paper
            (the official settings).
        out: Run directory; by default runs/TASK/METHOD/seed-N.
        resume: Continue the run in --out from its newest checkpoint, or start it (from --pretrained or --init-from, if
            given) where there is none yet. With --set online_steps=N a finished run is extended; with --data URI its
            data, the same, are read from another place.
        pretrained: Run directory with the same pre-training as this run, which then only does the fine-tuning.
        init_from: RUN or RUN@STEP (newest, best, pretrained or a gradient step): start from that run's networks,
            with any settings; --set offline_steps=0 leaves the pre-training out.
        eval_workers: Number of processes that evaluate copies of the policy while training goes on; 0: it waits.
            Results are the same.
        episodes_from: Folder of online episodes that another process collects (see calql act), with the policy that the
            run publishes as policy.npz in its directory.
        options: Any option by name, e.g. --set cql_alpha=10 discount=0.98 (see --print-config and --explain).
        trackers: tensorboard, wandb, or package.module:factory of your own consumer of the run's events (see
            docs/trackers.md).
        explain: Print an option's value in this run, its meaning, who set it and the paper's value, and stop.
        print_config: Print the resolved settings and what differs from the paper, and stop.
        dry_run: Check task, data and environment, print what would run and how long it would take, measured in a short
            run in a temporary folder, and stop.
    """
    from calql.machine import after_others

    if episodes_from and not (explain or print_config):
        after_others()  # one of them may move a robot; before the imports below, which take seconds
    from calql.cli import common
    from calql.paper.methods import DEFAULT_METHOD
    from calql.paper.tasks import DEFAULT_TASK, get_task
    from calql.trackers import factories
    from calql.training.options import differs_from_paper, explained, read_options
    from calql.training.options import experiment as make
    from calql.training.record import read_record
    from calql.training.run import events
    from calql.training.run_dir import RunDir
    from calql.training.start import position, refuse_other, with_new_options

    if resume and out is None:
        raise InputError("--resume needs the run to continue: add --out RUN_DIR")
    changes = flat(options)
    given = {"task": task, "method": method, "scale": scale, "seed": seed}
    there = resume and out is not None and (out / "config.json").exists()
    named = {"task": DEFAULT_TASK, "method": DEFAULT_METHOD, "scale": "laptop", "seed": 0}
    if not there and (donor := pretrained or (init_from and init_from.partition("@")[0])):
        named |= _begun(donor)
    named |= {name: value for name, value in given.items() if value is not None}
    names = named["task"], named["method"]
    run_dir = RunDir(out or Path("runs", *(name.replace(":", ".") for name in names), f"seed-{named['seed']}"))
    row = get_task(names[0]) if explain or not there else None  # once: it may open an environment
    asked = row or names[0], names[1], named["scale"], named["seed"], data, changes
    if explain:
        print(explained(explain, *asked))
        return 0
    if there:
        saved = read_record(run_dir)
        _refuse_other(run_dir.path, **given)
        experiment = with_new_options(saved, changes)
        if data is not None:  # the same data elsewhere: `resume` compares them
            experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, uri=data))
        refuse_other(run_dir, saved.experiment, experiment)
        if run_dir.done and experiment == saved.experiment:
            print(f"{out} is already finished")
            next_step("report", run_dir.path, "--out", "report")
            return 0
    else:
        saved, experiment = None, make(*asked)
    if print_config:
        common.print_config(experiment, row)
        return 0
    factories(flat(trackers))  # before the data are built: it may take long
    if not there and not dry_run:
        run_dir.refuse_what_is_there()
    try:
        episodes = common.load_data(experiment, saved if episodes_from else None)
    except NoSuchFile as error:
        raise InputError(f"{error}, or add --data with the new place" if there else str(error)) from error
    common.enable_compilation_cache()
    if dry_run:
        at = position(run_dir if there else None, experiment, episodes, pretrained, init_from)
        common.print_plan(experiment, episodes, run_dir, at)
        next_step(*without("--dry-run"))
        return 0
    differs = differs_from_paper(experiment, row or experiment.task.id, experiment.method)
    told = {"options": read_options(changes), "differs_from_paper": differs}
    how = {"resume": resume, "pretrained": pretrained, "init_from": init_from, "told": told}
    how |= {"eval_workers": eval_workers, "episodes_from": episodes_from}
    common.show(experiment, run_dir.path, events(experiment, run_dir.path, episodes, **how), flat(trackers))
    common.print_summary(run_dir)
    return 0


def _begun(run: Path | str) -> dict[str, Any]:
    """The task, method, scale and seed of a run; InputError if there is none."""
    from calql.training.record import read_record
    from calql.training.run_dir import RunDir

    saved = read_record(RunDir(run)).experiment
    return {"task": saved.task.id, "method": saved.method, "scale": saved.scale, "seed": saved.seed}


def _refuse_other(run: Path, **given: str | int | None) -> None:
    """Raise InputError if a given task, method, scale or seed differs from the saved run's."""
    begun = _begun(run)
    for name, value in given.items():
        if value is not None and value != begun[name]:
            raise InputError(f"{run} holds a run with {name} '{begun[name]}', not '{value}'; leave it out")
