"""Training from Python: a generator of events, and a function that runs it to the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from calql.data.episodes import Episodes
from calql.machine import refuse_unusable_jax
from calql.training import loop
from calql.training.background import Background
from calql.training.elsewhere import Elsewhere
from calql.training.experiment import Experiment
from calql.training.loop import Event
from calql.training.record import read_record
from calql.training.run_dir import RunDir
from calql.training.start import begin, for_environment, open_again, open_for
from calql.training.start import resume as go_on
from calql.types import InputError


def events(
    experiment: Experiment,
    out: Path | str,
    data: Episodes | None = None,
    *,
    resume: bool = False,
    pretrained: Path | str | None = None,
    init_from: str | None = None,
    eval_workers: int = 0,
    episodes_from: Path | str | None = None,
    told: Mapping[str, Any] | None = None,
) -> Generator[Event]:
    """Do a run; yields an event per evaluation, episode, block of updates and notice.

    Left at an event (`break`, `close()`), it saves; called again with `resume=True`, it continues from there.

    Args:
        experiment: the run (see `calql.experiment`).
        out: the run directory, which holds all output of the run.
        data: episodes to learn from, with actions in the environment's unit unless their `unit_actions` is set; None:
            load and check `experiment.data.uri`.
        resume: continue the run in `out`, possibly with more steps; if there is none, start it as without `resume`.
        pretrained: a run with the same pre-training, bit for bit; only the fine-tuning is done.
        init_from: `RUN` or `RUN@STEP` (newest, best, pretrained, or a gradient step): start from its networks.
        eval_workers: processes that evaluate copies of the policy while training goes on; 0: training waits. Rows and
            results are the same.
        episodes_from: a folder that another process drops whole episodes in (`calql act`), with the policy that the
            run publishes as policy.npz in `out`; the environment is opened only to check the data, when the run begins,
            and never moved.
        told: further entries of config.json: the user's `options`, and what `differs_from_paper`.

    Raises:
        InputError: the data, the environment, the folder or the other run cannot be used.
        RunError: the run cannot continue; its state is saved.
    """
    refuse_unusable_jax()
    run_dir, m = RunDir(out), experiment.measurement
    with run_dir.lock(), ExitStack() as stack:
        there = resume and (run_dir.path / "config.json").exists()
        if not there:
            run_dir.refuse_what_is_there()
        if episodes_from and m.eval_from == "env":
            raise InputError(
                "episodes come from a folder, so the environment is another process's; take scores from these "
                "episodes, --set eval_from=training, or from nothing, --set eval_from=nothing"
            )
        if eval_workers and m.eval_from != "env":
            raise InputError(
                f"with eval_from={m.eval_from} nothing is evaluated in processes; leave --eval-workers out"
            )
        background = None
        if eval_workers:
            background = Background(experiment.task, eval_workers, m.eval_envs, m.eval_episodes)
            stack.callback(background.close)
        warnings: Sequence[str] = ()
        if data is None:
            elsewhere = there and episodes_from
            data, report = open_again(experiment, read_record(run_dir)) if elsewhere else open_for(experiment)
            warnings = (*data.notes, *report.warnings)
        else:
            data = for_environment(experiment, data)
        if there:
            training = go_on(run_dir, experiment, data, pretrained, init_from)
        else:
            training = begin(run_dir, experiment, data, pretrained, init_from, told or {})
        stack.callback(training.close)
        training.notes[:0] = warnings
        training.background = background
        if episodes_from:
            training.elsewhere = Elsewhere(episodes_from, experiment.task, data, run_dir.path)
        for event in loop.run(training):
            try:
                yield event
            except BaseException:  # the generator was left between two events, where a run is consistent
                training.save()
                raise


def train(
    experiment: Experiment,
    out: Path | str,
    data: Episodes | None = None,
    *,
    trackers: Sequence[Callable[[Event], None]] = (),
    **how: Any,
) -> dict[str, Any]:
    """Do a run to its end and return its summary: score_before, score_after, regret, dip, … (None: not measured).

    Arguments and errors are those of `events`; `trackers` are called with every event and stay open.
    """
    for event in events(experiment, out, data, **how):
        for tracker in trackers:
            tracker(event)
    return json.loads((Path(out) / "summary.json").read_text())
