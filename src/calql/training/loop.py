"""The training loop: evaluate, collect, update and save as the schedule decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp

from calql.algorithms.acting import uniform_policy
from calql.algorithms.protocol import HasValues
from calql.envs.rollout import collect_episode
from calql.evaluation.metrics import summarise
from calql.replay import add_episode
from calql.training.collect import padded
from calql.training.learner import train_steps
from calql.training.measure import NO_EPISODES, NOT_MEASURED, episode_row, policy_row, training_row, values_row
from calql.training.slices import slice_rows
from calql.training.state import Training


class Event(NamedTuple):
    """What has just happened (`update`, `episode`, `evaluation`, `notice`), and the run's progress."""

    kind: str
    phase: str
    step: int
    """On the phase's own clock: gradient steps offline, environment steps online."""
    total: int
    """End of the phase on that clock."""
    info: dict[str, Any]
    """Metrics of an update, outcome of an episode, row of an evaluation, or text of a notice."""
    row: dict[str, Any] | None = None
    """The row that was added with it: to eval.csv by an evaluation, to episodes.csv by an episode, to train.csv by some
    updates (their means since the row before)."""


def run(training: Training) -> Iterator[Event]:
    """Train from the current counters to the end; may be left at any event and continued from a checkpoint."""
    steps = {"evaluate": evaluate, "collect": collect, "update": update}
    for text in training.notes:
        yield event(training, "notice", {"text": text})
    while True:
        want = training.schedule.wants(training.counters)
        if want != "end":
            yield from steps[want](training)
            continue
        yield from end_phase(training)
        if training.counters.phase + 1 == len(training.experiment.phases):
            break
        training.next_phase()
    training.run_dir.finish(summarise(training.run_dir.read_rows("eval.csv")))


def evaluate(t: Training) -> Iterator[Event]:
    """One row of eval.csv. The pre-trained policy is evaluated once, at the end of one phase and start of the next."""
    point, last = t.counters.total_grad_step, t.log.last_evaluation
    rows = [last | t.where()]
    rule, task, m = t.phase.algorithm, t.experiment.task, t.experiment.measurement
    if not last or int(last["grad_step"]) != point or m.eval_from == "training":  # whose episodes are new ones
        # All evaluations of all runs with this seed start from the same states (common random numbers).
        seeds = [t.streams.seed("evaluate", i) for i in range(m.eval_episodes)]
        moves = m.eval_from == "env" and (m.eval_untrained or point > 0 or t.experiment.init_from is not None)
        row, background = dict(NO_EPISODES), t.background if moves else None
        if m.eval_from == "training":
            row = training_row(t.since_evaluation())
        elif background:
            yield from evaluated(t, background.in_the_way())
        elif moves:
            where = f"the evaluation at gradient step {point}"
            row = t.guarded(where, lambda: policy_row(t.envs.evaluation, task, rule, t.spec, t.state, seeds))
        row |= values_row(rule, t.state, t.sample, t.streams.key("probe")) | t.where()
        row["wall_s"], rows = round(t.elapsed(), 3), [row]
        if background:
            background.start(rule, t.spec, t.state, seeds, row)
            rows = []
    t.counters = t.schedule.after_evaluation(t.counters)
    yield from evaluated(t, rows)


def evaluated(t: Training, rows: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """Write rows of eval.csv."""
    for row in t.written(rows):
        (phase,) = (phase for phase in t.experiment.phases if phase.name == row["phase"])
        step = row["env_step" if phase.name == "online" else "grad_step"]
        yield Event("evaluation", phase.name, step, phase.length, row, row)
        if int(row["episodes"]) and row["score_mean"] in (None, "") and not t.log.told_unmeasured:
            t.log.told_unmeasured = True
            yield Event("notice", phase.name, step, phase.length, {"text": NOT_MEASURED})


def collect(t: Training) -> Iterator[Event]:
    """Collect one episode with the current stochastic policy, or take one that was collected elsewhere, and store it
    with its Monte-Carlo returns."""
    index, task, file = t.counters.episode, t.experiment.task, None
    if t.elsewhere:
        t.publish()
        arriving = t.arriving()
        if (found := next(arriving)) is None:
            yield event(t, "notice", {"text": f"waiting for an episode in {t.elsewhere.folder}"})
            found = next(filter(None, arriving))
        file, episode = found
    else:
        key, seed = t.streams.key("collect", index), t.streams.seed("collect", index)
        act = uniform_policy(t.spec, key) if t.schedule.random_actions(t.counters) else t.acting(key)
        where = f"online episode {index}"
        episode = t.guarded(where, lambda: collect_episode(t.envs.training, task, act, seed))
    rows = t.transitions([episode])
    t.replay = add_episode(t.replay, padded(rows, t.example, task.horizon), jnp.int32(episode.length))
    t.counters = t.schedule.after_episode(t.counters, episode.length)
    outcome = episode_row(task, episode) | {"return": float(rows.rewards.sum())}
    row = {"episode": index, "env_step": t.counters.env_step, "file": file} | outcome
    t.log.episode(row)
    yield event(t, "episode", outcome, row)


def update(t: Training) -> Iterator[Event]:
    """Gradient steps up to the next evaluation, episode, log row or checkpoint."""
    phase, c = t.phase, t.counters
    count = t.schedule.updates(c)
    settings, key = (phase.algorithm, phase.batch_size, phase.random_crop), t.streams.key("update")
    numbers = jnp.int32(c.total_grad_step), jnp.int32(count), jnp.float32(phase.mixing)
    t.state, sums = train_steps(*settings, t.state, t.replay, key, *numbers)
    metrics = t.log.updates(sums, count, c.total_grad_step)
    t.counters = t.schedule.after_updates(c, count)
    row = t.log.flush(t.where()) if t.schedule.logs(t.counters) else None
    yield event(t, "update", metrics, row)
    yield from evaluated(t, t.pending(wait=False))
    if alarm := t.log.implausible(metrics, t.q_bounds, hasattr(t.phase.algorithm, "target_q_range")):
        yield event(t, "notice", {"text": alarm})
    if t.schedule.saves(t.counters):
        yield from evaluated(t, t.pending())
        t.save()


def end_phase(t: Training) -> Iterator[Event]:
    """Write the comparison of Q with rollouts if asked for, and a lasting checkpoint."""
    t.log.flush(t.where())  # of a run that an earlier version left here
    dimension, rule = t.experiment.measurement.slice_dimension, t.phase.algorithm
    if dimension is not None and t.phase.name == "offline" and isinstance(rule, HasValues):
        yield event(t, "notice", {"text": "comparing Q with rollouts at one state (slice.csv)"})
        rows = t.guarded("the comparison of Q with rollouts", lambda: slice_rows(t, rule, dimension))
        t.run_dir.write_rows("slice.csv", rows)
    yield from evaluated(t, t.pending())
    t.save(milestone=True)


def event(t: Training, kind: str, info: dict[str, Any], row: dict[str, Any] | None = None) -> Event:
    """An event at this point of the run."""
    return Event(kind, t.phase.name, t.now, t.phase.length, info, row)
