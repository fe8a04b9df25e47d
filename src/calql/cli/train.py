"""`calql train`: one run, from logged data to a fine-tuned policy."""

from __future__ import annotations

from pathlib import Path

import tyro

from calql.cli.options import Settings, flat
from calql.types import InputError


def train(
    task: str | None = None,
    method: str | None = None,
    seed: int = 0,
    scale: str | None = None,
    out: Path | None = None,
    data: str | None = None,
    resume: bool = False,
    pretrained: Path | None = None,
    options: Settings = (),
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False,
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Pre-train on data, then fine-tune in the environment, and measure both.

    Example: calql train --task pointmaze-medium-narrow --method cal-ql --seed 0 --out runs/first

    Args:
        task: A task id (see the README), or your own package.module:factory.
        method: A method id (see the README), or your own package.module:row.
        seed: Decides networks, batches, resets and exploration.
        scale: smoke (seconds), laptop (minutes on one core; the default) or paper (the official settings).
        out: Run directory; by default runs/TASK/METHOD/seed-N.
        data: local:TASK, minari:ID, d4rl:FILE.hdf5, awac:DIR or npz:FILE; by default the task's own.
        resume: Continue the run in --out from its newest complete checkpoint.
        pretrained: Run directory whose pre-training is the same as this run's: only the fine-tuning is done.
        options: Any option by name, e.g. --set cql_alpha=10 discount=0.98 (see --print-config).
        print_config: Print the resolved settings and what differs from the paper, and stop.
        dry_run: Check task, data and environment, print what would run, and stop.
    """
    from calql.cli import common
    from calql.training.config import describe
    from calql.training.loop import Trainer
    from calql.training.pretrained import require, take_over
    from calql.training.run_dir import RunDir

    donor = pretrained and RunDir(pretrained)
    if resume:
        if out is None:
            raise InputError("--resume needs the run to continue: add --out RUN_DIR")
        if donor:
            raise InputError("--resume goes on with what the run began from; leave --pretrained out")
        run_dir = RunDir(out)
        config = common.saved_config(run_dir, task=task, method=method, scale=scale, data=data, options=flat(options))
        if run_dir.done:
            print(f"{out} is already finished; see it with: calql report {out} --out report")
            return 0
    else:
        config = common.resolve_options(task, method, scale, seed, data, flat(options))
        run_dir = RunDir(
            out or Path("runs") / config.task.id.replace(":", ".") / config.method.id.replace(":", ".") / f"seed-{seed}"
        )
    if print_config:
        common.print_config(config)
        return 0
    episodes = common.load_data(config)
    if donor:
        require(config, episodes, donor)
    if dry_run:
        common.print_plan(config, episodes, run_dir)
        return 0
    common.enable_compilation_cache()
    with run_dir.lock():
        trainer = Trainer(config, episodes, run_dir)
        if not resume:
            run_dir.create(describe(config, episodes) | ({"pretrained": str(pretrained)} if donor else {}))
        elif run_dir.read_config()["data"].get("fingerprint") != episodes.fingerprint():
            raise InputError(
                f"the data of {run_dir.path} have changed since it began; give the same --data, or start anew"
            )
        if donor:
            take_over(run_dir, donor)
        for complaint in trainer.restore() if resume or donor else []:
            print(f"calql: {complaint}")
        common.show(trainer)
    common.print_summary(run_dir)
    return 0
