"""How long a run takes, estimated from the times between its events so far, or between those of a short one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from calql.data.episodes import Episodes
from calql.training.experiment import Experiment
from calql.training.loop import Event
from calql.training.run import events
from calql.training.schedule import Counters, Schedule

BLOCKS, BLOCK = 3, 20
"""Blocks of gradient steps that `measure` times in each phase, and steps per block."""


class Taken(NamedTuple):
    """Seconds that some steps or episodes took, and the number of these."""

    seconds: float
    amount: float


class Pace:
    """Seconds that a run takes per step of each phase and per evaluation."""

    def __init__(self, experiment: Experiment, measured: Pace | None = None, at: Counters | None = None) -> None:
        """`measured`: a pace whose times apply to this run as well; `at`: where this run goes on (None: it begins)."""
        self.experiment = experiment
        # Of each kind of event: the seconds and the steps or episodes of the first, and the sums of all later ones.
        self._first: dict[str, Taken] = dict(measured._first) if measured else {}
        self._later: dict[str, Taken] = dict(measured._later) if measured else {}
        self._at: dict[str, int] = {}  # step of each phase at its last event
        self._evaluated: dict[str, int] = {}  # step of each phase at its last evaluation
        if at:
            schedule, over = Schedule(experiment), {phase.name: phase.length for phase in experiment.phases[: at.phase]}
            self._at = over | {schedule.phase(at).name: schedule.now(at)}
            self._evaluated = over | ({schedule.phase(at).name: at.evaluated} if at.evaluated >= 0 else {})

    def timed(self, run: Iterable[Event]) -> Iterator[Event]:
        """The events of a run, taking account of how long each took to come."""
        source = iter(run)
        while True:
            start = time.perf_counter()
            event = next(source, None)
            if event is None:
                return
            self.saw(event, time.perf_counter() - start)
            yield event

    def saw(self, event: Event, seconds: float) -> None:
        """Take account of an event that came so many seconds after the one before it."""
        before, self._at[event.phase] = self._at.get(event.phase), event.step
        if event.kind == "evaluation":
            self._evaluated[event.phase] = event.step
            # The pre-trained policy has a row in both phases, and is evaluated once. Values may come from a CSV file.
            episodes = float(event.info["episodes"])
            if episodes and (event.step or event.phase == self.experiment.phases[0].name):
                length = float(event.info["length_mean"])
                self._add("evaluation", seconds, episodes)
                self._add("evaluation step", seconds, episodes * length)
        elif event.kind == "episode":
            self._add("episode", seconds, event.info["length"])
        elif event.kind == "update" and before is not None:
            self._add(f"{event.phase} update", seconds, event.step - before)

    def left(self) -> float | None:
        """Seconds to the end of the run, checkpoints apart; None until there is something to go by."""
        parts = [self.seconds(phase.name) for phase in self.experiment.phases] + [self.seconds("evaluation")]
        return None if None in parts else sum(part for part in parts if part is not None)

    def seconds(self, part: str) -> float | None:
        """What is left of `offline` or `online` without its evaluations, or of all `evaluation`; None: unknown."""
        measurement, rate = self.experiment.measurement, self._per("evaluation")
        if part == "evaluation" and measurement.eval_from != "env":
            return 0.0
        if part == "evaluation":
            return None if rate is None else rate * measurement.eval_episodes * self._evaluations()
        (phase,) = (phase for phase in self.experiment.phases if phase.name == part)
        steps = phase.length - self._at.get(part, 0)
        # A phase that has not begun is judged by the pre-training and the evaluations.
        per_step = self._per(f"{part} update")
        if per_step is None and (known := self._per("offline update")) is not None:
            per_step = known * phase.gradient_steps(self.experiment.task.horizon) / max(phase.length, 1)
        if part == "online" and per_step is not None:
            collecting = self._per("episode") or self._per("evaluation step")
            per_step = None if collecting is None else per_step + collecting
        return 0.0 if steps == 0 else None if per_step is None else steps * per_step

    def _evaluations(self) -> int:
        """Evaluations that are still to come: one at the start, and then on the grid and at the end of each phase."""
        count = 0 if self._evaluated else 1
        for phase in self.experiment.phases:
            last = self._evaluated.get(phase.name, 0)
            count += -(-phase.length // phase.eval_every) - last // phase.eval_every if last < phase.length else 0
        return count

    def _add(self, kind: str, seconds: float, amount: float) -> None:
        if kind not in self._first:
            self._first[kind] = Taken(seconds, amount)
        else:
            before = self._later.get(kind, Taken(0.0, 0.0))
            self._later[kind] = Taken(before.seconds + seconds, before.amount + amount)

    def _per(self, kind: str) -> float | None:
        """Seconds per step or episode; the first event includes compilation, and counts only for evaluations."""
        taken = self._later.get(kind) or (self._first.get(kind) if kind.startswith("evaluation") else None)
        return taken.seconds / taken.amount if taken and taken.amount else None


def measure(experiment: Experiment, episodes: Episodes, at: Counters | None = None) -> Pace:
    """The pace of a run from a position on, by a run of a few steps with the same task, data and networks.

    That run lives in a temporary folder. Without `eval_untrained` it moves no environment: it ends with pre-training.
    Raises InputError and RunError as `calql.train` does.
    """
    steps, m = BLOCKS * BLOCK, experiment.measurement
    pretrain, finetune = experiment.pretrain, experiment.finetune
    if pretrain:
        offline_steps = min(steps, pretrain.offline_steps)
        pretrain = dataclasses.replace(pretrain, offline_steps=offline_steps, eval_every_offline=steps)
    if finetune:
        online_steps = min(steps, finetune.online_steps)
        few = {"online_steps": online_steps, "eval_every_online": steps, "start_steps": 0, "warmup_steps": 0}
        finetune = dataclasses.replace(finetune, **few)
    eval_episodes = min(m.eval_envs, m.eval_episodes)
    short = dataclasses.replace(
        experiment,
        pretrain=pretrain,
        finetune=finetune,
        measurement=dataclasses.replace(m, eval_episodes=eval_episodes, log_every=BLOCK, slice_dimension=None),
        init_from=None,
    )
    pace, blocks = Pace(short), 0
    with TemporaryDirectory() as folder:
        run = events(short, Path(folder) / "run", episodes)
        for event in pace.timed(run):
            blocks += (event.kind, event.phase) == ("update", "online")
            if blocks == BLOCKS:
                break
            to_move = event.phase == "online" or event.step == event.total
            if to_move and not m.eval_untrained:  # what follows would move a machine with a policy of a few steps
                break
        run.close()
    return Pace(experiment, pace, at)


def spoken(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3 h 20 min, 2 d 5 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
