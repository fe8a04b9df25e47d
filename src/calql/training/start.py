"""How a run starts and how it is resumed: the same for the command line and for `calql.train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from calql.algorithms.protocol import HasValues
from calql.data.actions import in_unit
from calql.data.check.describe import Report
from calql.data.episodes import Episodes
from calql.data.load import open_data, with_statements_of
from calql.envs.make import make_env
from calql.envs.wrappers import action_bounds
from calql.training import checkpoint, store
from calql.training.experiment import Experiment, InitFrom, before_fine_tuning, differences, name_of
from calql.training.options import changed, read_options
from calql.training.record import Saved, go_on, new_record, read_record
from calql.training.run_dir import RunDir
from calql.training.schedule import Counters
from calql.training.state import Training
from calql.types import InputError

EXTENDABLE = {"finetune.online_steps", "pretrain.offline_steps", "data.uri"}
"""What may be changed when a run is resumed; at another place, the data must be the same by their fingerprint."""


def open_for(experiment: Experiment, **how: Any) -> tuple[Episodes, Report]:
    """The data of a run, loaded and checked (see `open_data`); the task's own data are built if they are missing."""
    data, rule = experiment.data, experiment.phases[0].algorithm
    return open_data(
        experiment.task,
        data.uri,
        discount=rule.discount,
        target_rate=getattr(rule, "tau", 1.0),  # without target networks, the values apply at once
        tail_bootstrap=data.tail_bootstrap,
        cut_at_horizon=data.cut_at_horizon,
        action_unit=data.action_unit,
        normalised=data.normalise_observations or rule.context > 0,
        updates=experiment.pretrain.offline_steps if experiment.pretrain and isinstance(rule, HasValues) else None,
        **how,
    )


def open_again(experiment: Experiment, saved: Saved) -> tuple[Episodes, Report]:
    """The data of a run that goes on while another process has its environment: compared with it when the run began.

    The environment is opened only for runs that did not record what they exchange with it.
    """
    if (found := saved.interface()) is None:
        return open_for(experiment)
    episodes, report = open_for(experiment, with_env=False, bounds=found.bounds)
    return dataclasses.replace(episodes, rate=found.rate, action_names=found.action_names), report


def for_environment(experiment: Experiment, episodes: Episodes) -> Episodes:
    """Episodes of a program's own with actions in [−1, 1], see `calql.data.actions`; opens the environment if it must.

    Raises InputError if the environment cannot be made, or if the actions have another unit.
    """
    if episodes.unit_actions:
        return episodes
    env = make_env(experiment.task)
    bounds, episodes = action_bounds(env), with_statements_of(env, episodes)
    env.close()
    assert bounds is not None  # `make_env` refuses others
    return in_unit(episodes, bounds, experiment.data.action_unit)


def begin(
    run_dir: RunDir,
    experiment: Experiment,
    episodes: Episodes,
    pretrained: Path | str | None,
    init_from: str | None,
    told: Mapping[str, Any],
) -> Training:
    """A new run in an empty folder, possibly from another run; the arguments are those of `calql.train`.

    Raises InputError if the other run has no such checkpoint, if its pre-training is a different one or unfinished, and
    if its networks have other shapes.
    """
    experiment = _initialised_from(experiment, init_from) if init_from else experiment
    donor = RunDir(pretrained) if pretrained else None
    found = _shared(experiment, episodes, donor) if donor else None
    training = Training(experiment, episodes, run_dir, _statistics_to_keep(experiment))
    notes = _borrow(training) if experiment.init_from else []
    if not found:
        _ = training.state  # what the rule refuses, such as images, is refused before there is a folder
    if "<" in name_of(experiment.task):
        notes.append(
            f"'{name_of(experiment.task)}' cannot be imported: only the program that made it can resume this run"
        )
    record = new_record(experiment, episodes, told)
    run_dir.create(record | ({"pretrained": str(donor.path)} if donor else {}))
    if donor and found:
        store.take_over(run_dir, donor, found)
        notes += training.restore()
    elif experiment.init_from:
        training.save(milestone=True)
    training.notes[:0] = notes
    return training


def resume(
    run_dir: RunDir, experiment: Experiment, episodes: Episodes, pretrained: Path | str | None, init_from: str | None
) -> Training:
    """A run that continues from its newest checkpoint, possibly with more steps.

    Raises InputError if the experiment differs from the saved one in anything else, if the data have changed, and if
    the run was not begun from the one that `pretrained` or `init_from` names.
    """
    saved = read_record(run_dir)
    source = saved.experiment.init_from
    begun = {saved.raw.get("pretrained"), source and source.run}
    for path in (pretrained, init_from and init_from.partition("@")[0]):
        if path and str(Path(path)) not in begun:
            raise InputError(f"{run_dir.path} was not begun from {path}; leave that out, or choose another --out")
    experiment = dataclasses.replace(experiment, init_from=source) if init_from else experiment
    refuse_other(run_dir, saved.experiment, experiment)
    if saved.fingerprint != episodes.fingerprint():
        raise InputError(
            f"the data of {run_dir.path} have changed since it began; give the same data, or start a new one"
        )
    newest = checkpoint.newest(run_dir.checkpoints)[0]
    statistics = store.statistics_of(newest) if newest else _statistics_to_keep(experiment)
    training, notes = Training(experiment, episodes, run_dir, statistics), list(saved.notes)
    if experiment.init_from and newest is None:
        notes += _borrow(training)
    notes += training.restore()
    if training.counters.phase and saved.experiment.pretrain != experiment.pretrain:
        raise InputError(f"{run_dir.path} is past its pre-training, so offline_steps cannot be changed; leave it out")
    run_dir.reopen()
    go_on(run_dir, saved, experiment)
    training.notes[:0] = notes
    return training


def position(
    run_dir: RunDir | None,
    experiment: Experiment,
    episodes: Episodes,
    pretrained: Path | str | None,
    init_from: str | None,
) -> Counters:
    """Where a run would go on (in its folder, `run_dir`) or begin (None), without doing it.

    Raises InputError as `begin` does for the other run that is named.
    """
    if run_dir is not None:
        return store.counters_of(checkpoint.newest(run_dir.checkpoints)[0])
    if init_from:
        _initialised_from(experiment, init_from)
    return store.counters_of(_shared(experiment, episodes, RunDir(pretrained)) if pretrained else None)


def refuse_other(run_dir: RunDir, saved: Experiment, experiment: Experiment) -> None:
    """Raise InputError if a run cannot continue as this experiment: it may only have more steps than the saved one."""
    other = [path for path in differences(saved, experiment) if path not in EXTENDABLE]
    if other:
        raise InputError(
            f"{run_dir.path} was begun with another {', '.join(other)}; a resumed run can only change online_steps (or "
            f"offline_steps); a new run may start from its networks with any settings: "
            f"--init-from {quote(str(run_dir.path))}"
        )
    for phase, was in zip(experiment.phases, saved.phases, strict=True):
        if phase.length < was.length:
            raise InputError(f"{run_dir.path} was begun with {was.length} {phase.name} steps; it can only be extended")


def with_new_options(saved: Saved, options: Sequence[str]) -> Experiment:
    """A saved experiment with new options applied (options that it was started with change nothing)."""
    known = {name: str(value) for name, value in saved.raw.get("options", {}).items()}
    new = {name: value for name, value in read_options(options).items() if known.get(name) != value}
    return changed(saved.experiment, new) if new else saved.experiment


def _initialised_from(experiment: Experiment, reference: str) -> Experiment:
    """The experiment, starting from a checkpoint of another run: RUN, or RUN@STEP. InputError if there is none."""
    path, _, step = reference.partition("@")
    donor = RunDir(path)
    found = store.find_checkpoint(donor, read_record(donor).experiment, step or "newest")
    return dataclasses.replace(experiment, init_from=InitFrom(str(Path(path)), *_identity(found)))


def _identity(path: Path) -> tuple[int, str]:
    """Step and checksum of a checkpoint's networks."""
    meta = checkpoint.load_meta(path)
    return meta["step"], meta["checksums"]["state.safetensors"]


def _borrow(training: Training) -> list[str]:
    """Load the networks of the experiment's `init_from` checkpoint; returns a note on what was loaded."""
    source = training.experiment.init_from
    assert source is not None
    path = _donated(source)
    training.state, taken, left = store.borrowed(training.state, checkpoint.load(path, "state"))
    fresh = f"; newly initialised: {', '.join(left)}" if left else ""
    return [f"from {source.run} at gradient step {source.step}: took {', '.join(taken)}{fresh}"]


def _donated(source: InitFrom) -> Path:
    """The checkpoint that a run starts from. Raises InputError if it is missing or has changed."""
    path = checkpoint.at(RunDir(source.run).checkpoints, source.step)
    if not checkpoint.is_complete(path) or _identity(path) != (source.step, source.sha256):
        raise InputError(f"the checkpoint {path} that this run starts from is missing or has changed; start a new run")
    return path


def _statistics_to_keep(experiment: Experiment) -> Mapping[str, Any] | None:
    """The statistics that the borrowed networks see observations by; None if there are none.

    Raises InputError if the other run normalised its observations and this one does not, or the other way round.
    """
    if experiment.init_from is None:
        return None
    found, wanted = store.statistics_of(_donated(experiment.init_from)), experiment.data.normalise_observations
    if (found is not None) != wanted:
        told = "normalised" if found is not None else "did not normalise"
        raise InputError(
            f"{experiment.init_from.run} {told} its observations, and its networks expect the same here: add "
            f"--set normalise_observations={'false' if wanted else 'true'}"
        )
    return found


def _shared(experiment: Experiment, episodes: Episodes, donor: RunDir) -> Path:
    """The end of another run's pre-training. Raises InputError if it is a different one or unfinished."""
    saved = read_record(donor)
    different = differences(before_fine_tuning(experiment), before_fine_tuning(saved.experiment))
    different += [] if saved.fingerprint == episodes.fingerprint() else ["data fingerprint"]
    if different:
        raise InputError(
            f"the pre-training of {donor.path} differs ({', '.join(different)}); leave --pretrained out, or "
            f"start from its networks: --init-from {quote(str(donor.path))}@pretrained"
        )
    found = store.end_of_pretraining(donor, saved.experiment)
    if found is None:
        raise InputError(f"{donor.path} has not finished its pre-training; finish it: calql train --resume --out ...")
    return found
