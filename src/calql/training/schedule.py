"""The schedule of a run: what comes next, as pure functions of a few counters, without environments or networks.

Online, one episode is collected with the current policy, then length × UTD gradient steps follow
(nakamotoo/Cal-QL, `conservative_sac_main.py`). The phase's own clock counts gradient steps offline, and online the
environment steps that have been *learned from*, gradient steps / UTD, so that evaluations fall on one grid whatever
the lengths of the episodes. If an episode brings fewer updates than it has steps, an evaluation comes with the
first update past the grid's step.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from calql.training.experiment import Experiment, Finetune, Pretrain

CHUNK = 50
"""Maximum number of gradient steps per call of the compiled loop, for progress reports; results do not depend on it."""


@dataclasses.dataclass(frozen=True)
class Counters:
    """The position of a run. With the experiment, it determines everything that happens next."""

    phase: int = 0
    """Index of the current phase."""
    grad_step: int = 0
    """Gradient steps done in the current phase."""
    env_step: int = 0
    """Environment steps collected in the current phase."""
    due: int = 0
    """Gradient steps that the collected episodes allow in total."""
    before: tuple[int, int] = (0, 0)
    """`env_step` and `due` before the newest episode."""
    episode: int = 0
    """Online episodes collected."""
    total_grad_step: int = 0
    """Gradient steps over all phases."""
    evaluated: int = -1
    """Time of the last evaluation on the phase's own clock."""


Want = Literal["evaluate", "collect", "update", "end"]
"""The next action; `end`: the phase is over."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When a run evaluates, collects, updates and saves."""

    experiment: Experiment

    def phase(self, c: Counters) -> Pretrain | Finetune:
        """The current phase."""
        return self.experiment.phases[c.phase]

    def now(self, c: Counters) -> int:
        """The phase's own clock: gradient steps offline, environment steps learned from online."""
        phase = self.phase(c)
        if isinstance(phase, Pretrain):
            return c.grad_step
        if c.grad_step == c.due:
            return min(c.env_step, phase.length)
        env_step, due = c.before
        learned = (c.grad_step - due) * (c.env_step - env_step) // (c.due - due)
        return min(env_step + learned, phase.length)

    def wants(self, c: Counters) -> Want:
        """The next action."""
        phase, now = self.phase(c), self.now(c)
        at_end = now >= phase.length
        if now // phase.eval_every > c.evaluated // phase.eval_every or (at_end and c.evaluated != now):
            return "evaluate"
        if at_end:
            return "end"
        return "collect" if isinstance(phase, Finetune) and c.grad_step == c.due else "update"

    def random_actions(self, c: Counters) -> bool:
        """Whether the next episode takes uniformly random actions."""
        assert self.experiment.finetune is not None
        return c.env_step < self.experiment.finetune.start_steps

    def learns(self, c: Counters) -> bool:
        """Whether updates follow the next episode; not before the random and the warm-up steps are over."""
        assert self.experiment.finetune is not None
        return c.env_step >= self.experiment.finetune.steps_before_updates

    def updates(self, c: Counters) -> int:
        """Gradient steps up to the next evaluation, episode, log row or checkpoint."""
        phase, now, m = self.phase(c), self.now(c), self.experiment.measurement
        to_grid = phase.eval_every - now % phase.eval_every
        ends = [self._grad_step_at(c, clock) for clock in (now + to_grid, phase.length)]
        ends += [c.due] if isinstance(phase, Finetune) else []
        return min(
            CHUNK,
            min(ends) - c.grad_step,
            m.log_every - c.total_grad_step % m.log_every,
            m.checkpoint_every - c.total_grad_step % m.checkpoint_every,
        )

    def logs(self, c: Counters) -> bool:
        """Whether a row of train.csv is due after an update; the last update of a phase always has one."""
        due = c.total_grad_step % self.experiment.measurement.log_every == 0
        return due or self.now(c) >= self.phase(c).length

    def saves(self, c: Counters) -> bool:
        """Whether a checkpoint is due after an update; the end of a phase always has one."""
        due = c.total_grad_step % self.experiment.measurement.checkpoint_every == 0
        return due and self.now(c) < self.phase(c).length

    # -- transitions ---------------------------------------------------------------------------------------------------

    def after_updates(self, c: Counters, count: int) -> Counters:
        """The counters after `count` gradient steps."""
        return dataclasses.replace(c, grad_step=c.grad_step + count, total_grad_step=c.total_grad_step + count)

    def after_episode(self, c: Counters, length: int) -> Counters:
        """The counters after a collected episode of `length` steps."""
        phase = self.experiment.finetune
        assert phase is not None
        due = (phase.updates_per_episode or phase.utd * length) if self.learns(c) else 0
        moved = dict(env_step=c.env_step + length, due=c.due + due, episode=c.episode + 1)
        return dataclasses.replace(c, before=(c.env_step, c.due), **moved)

    def after_evaluation(self, c: Counters) -> Counters:
        """The counters after an evaluation."""
        return dataclasses.replace(c, evaluated=self.now(c))

    def next_phase(self, c: Counters) -> Counters:
        """The counters at the start of the next phase."""
        anew = dict(grad_step=0, env_step=0, due=0, before=(0, 0), evaluated=-1)
        return dataclasses.replace(c, phase=c.phase + 1, **anew)

    def _grad_step_at(self, c: Counters, clock: int) -> int:
        """The first gradient step at which the phase's clock reaches `clock`, within the newest episode."""
        if isinstance(self.phase(c), Pretrain):
            return clock
        env_step, due = c.before
        return due - (env_step - clock) * (c.due - due) // (c.env_step - env_step)
