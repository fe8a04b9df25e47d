"""The state of a run: counters, parameters and replay buffer, and how they are made. `loop` advances it."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from shlex import quote
from typing import Any, TypeVar

import jax
import numpy as np

from calql.algorithms.acting import acting, normalised
from calql.data.episodes import Episodes
from calql.data.transitions import to_transitions
from calql.envs.rollout import Act
from calql.replay import make_replay, newest, put_back, rows_dropped
from calql.training import checkpoint, store
from calql.training.background import Background
from calql.training.collect import EnvironmentFailed, Environments
from calql.training.continuity import continued, refuse_other_state
from calql.training.elsewhere import POLL, Elsewhere
from calql.training.experiment import Experiment, Finetune, Pretrain
from calql.training.learner import with_normalisation, with_statistics
from calql.training.log import Log
from calql.training.measure import data_sample
from calql.training.run_dir import RunDir
from calql.training.schedule import Counters, Schedule
from calql.training.streams import Streams
from calql.types import Episode, InputError, RunError, Transition

T = TypeVar("T")


class Training:
    """A run in progress. All randomness is derived from (seed, stream, counter), so resuming changes nothing."""

    background: Background | None = None
    """Processes that evaluate; None: training waits for every evaluation."""

    elsewhere: Elsewhere | None = None
    """Where online episodes come from if another process collects them."""

    def __init__(
        self, experiment: Experiment, episodes: Episodes, run_dir: RunDir, statistics: Mapping[str, Any] | None = None
    ) -> None:
        """`statistics`: those of another checkpoint (`store.statistics_of`), to normalise observations by."""
        self.experiment, self.run_dir = experiment, run_dir
        self.schedule, self.counters, self.streams = Schedule(experiment), Counters(), Streams(experiment.seed)
        measurement, first = experiment.measurement, experiment.phases[0].algorithm
        self.envs = Environments(experiment.task, measurement.eval_envs, measurement.eval_episodes)
        self.sequences = first.context > 0
        self.spec = episodes.spec()
        offline = self.transitions(episodes.episodes, experiment.data.action_clip)
        if self.sequences:
            self.spec = with_statistics(self.spec, offline)
        elif experiment.data.normalise_observations:
            self.spec = with_normalisation(self.spec, offline.observations)
            if statistics is not None:
                self.spec = store.with_stored(self.spec, statistics)
            offline = self.seen(offline)
        self.example: Transition = jax.tree.map(lambda x: x[0], offline)
        online = experiment.finetune if experiment.finetune and experiment.finetune.online_steps else None
        ring = (online.replay_capacity, online.one_buffer) if online else (0, False)
        self.replay = make_replay(offline, self.example, *ring)
        dropped = rows_dropped(offline, *ring)
        left_out = f"the oldest {dropped} transitions of the data are left out: the shared buffer holds {ring[0]}"
        self.notes = [left_out] if dropped else []
        self.sample = data_sample(offline)
        self.q_bounds = self._q_bounds(episodes)
        if experiment.pretrain and experiment.finetune and first != experiment.finetune.algorithm:
            refuse_other_state(first, experiment.finetune.algorithm, self.spec)
        self.log = Log(run_dir)
        self.wall_s, self._started = 0.0, time.monotonic()

    @functools.cached_property
    def state(self) -> Any:
        """All that is learned: drawn afresh where it is first asked for, unless a checkpoint is restored before."""
        return self._fresh()

    def _fresh(self) -> Any:
        """A state of the current phase's rule."""
        return self.phase.algorithm.init(self.streams.key("init"), self.spec)

    @property
    def phase(self) -> Pretrain | Finetune:
        """The current phase."""
        return self.schedule.phase(self.counters)

    @property
    def now(self) -> int:
        """The phase's own clock: gradient steps offline, environment steps learned from online."""
        return self.schedule.now(self.counters)

    def next_phase(self) -> None:
        """Go over to the next phase, with the parts of the state that it continues with."""
        before, self.counters = self.phase.algorithm, self.schedule.next_phase(self.counters)
        if self.phase.algorithm != before:
            self.state = continued(self.state, self.phase.algorithm, self.spec)

    def where(self) -> dict[str, Any]:
        """The columns of a CSV row that give the run's position."""
        env_step = 0 if self.phase.name == "offline" else self.now
        return {"phase": self.phase.name, "env_step": env_step, "grad_step": self.counters.total_grad_step}

    def transitions(self, episodes: Sequence[Episode], action_clip: float | None = None) -> Transition:
        """Transitions [N, …] with mapped rewards of complete episodes, recorded or online."""
        task, tail = self.experiment.task, self.experiment.data.tail_bootstrap
        options = {"action_clip": action_clip, "tail_bootstrap": tail, "sequences": self.sequences}
        return self.seen(to_transitions(episodes, task.rewards, self.experiment.discount, **options))

    def _q_bounds(self, episodes: Episodes) -> tuple[float, float] | None:
        """Bounds of Q by the task's range of rewards; None if the task states none, or the data leave it."""
        rewards, paid = self.experiment.task.rewards, [e.rewards for e in episodes.episodes]
        lowest, highest = float(min(r.min() for r in paid)), float(max(r.max() for r in paid))
        holds = rewards.holds(lowest, highest)
        return rewards.q_bounds(self.experiment.discount) if holds else None

    def seen(self, rows: Transition) -> Transition:
        """Transitions with observations as the networks see them."""
        if self.sequences or self.spec.mean is None:
            return rows
        before, after = (normalised(self.spec, x) for x in (rows.observations, rows.next_observations))
        return rows._replace(observations=before, next_observations=after)

    def acting(self, key: jax.Array | None) -> Act:
        """The current policy for one episode: exploring where a key is given."""
        return acting(self.phase.algorithm, self.spec, self.state, 1, key)

    def guarded(self, where: str, call: Callable[[], T]) -> T:
        """Call the environment; if it fails, save the run and raise RunError."""
        try:
            return call()
        except EnvironmentFailed as error:
            self.save()
            raise RunError(
                f"the environment failed in {where} ({error}); "
                f"all work is saved: fix it and run calql train --resume --out {quote(str(self.run_dir.path))}"
            ) from error.__cause__

    def since_evaluation(self) -> list[dict[str, str]]:
        """Rows of episodes.csv that no evaluation has counted yet (`eval_from=training`)."""
        counted = sum(int(row["episodes"]) for row in self.run_dir.read_rows("eval.csv"))
        return self.run_dir.read_rows("episodes.csv")[counted:]

    def publish(self) -> None:
        """Replace the policy that episodes are collected with elsewhere."""
        assert self.elsewhere is not None
        about = {"run": str(self.run_dir.path), "method": self.experiment.method, "seed": self.experiment.seed}
        about |= {"step": self.counters.total_grad_step, "data": self.experiment.data.uri}
        self.elsewhere.publish(self.phase.algorithm, self.spec, self.state, about)

    def arriving(self) -> Iterator[tuple[str, Episode] | None]:
        """The next episode that was collected elsewhere, and None at every look at the folder before it is there.

        Raises RunError, with all work saved, if it cannot be used; an interruption while it waits saves, too.
        """
        assert self.elsewhere is not None
        taken = {row["file"] for row in self.run_dir.read_rows("episodes.csv")}
        try:
            while (found := self.elsewhere.take(taken)) is None:
                yield None
                time.sleep(POLL)
        except InputError as error:
            self.save()
            folders = f"--out {quote(str(self.run_dir.path))} --episodes-from {quote(str(self.elsewhere.folder))}"
            raise RunError(
                f"an episode cannot be used ({error}); all work is saved: move its file away and run calql train "
                f"--resume {folders}"
            ) from error
        except (KeyboardInterrupt, SystemExit):
            self.save()
            raise
        yield found

    def pending(self, wait: bool = True) -> Iterator[dict[str, Any]]:
        """Rows of evaluations in the background that are over; `wait`: of all that have begun."""
        return self.background.finished(wait) if self.background else iter(())

    def written(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Write rows of eval.csv. Raises RunError if one is of an environment that failed."""
        try:
            for row in rows:
                self.log.evaluation(row)
                yield self.log.last_evaluation
        except EnvironmentFailed as error:  # training is past it, so nothing is saved
            raise RunError(
                f"the environment failed in an evaluation ({error}); fix it, and continue from the checkpoint before "
                f"with calql train --resume --out {quote(str(self.run_dir.path))}"
            ) from error

    def elapsed(self) -> float:
        """Seconds of training so far, over all resumes."""
        return self.wall_s + time.monotonic() - self._started

    def save(self, milestone: bool = False) -> None:
        """Write a checkpoint of everything that the rest of the run depends on, after syncing the rows that it counts.

        Waits for evaluations. A `milestone` is never removed. Raises RunError if it cannot be written.
        """
        for _ in self.written(self.pending()):
            pass
        self.wall_s, self._started = self.elapsed(), time.monotonic()
        ring = newest(self.replay, self.counters.env_step)
        self.run_dir.sync()
        trees = {"state": self.state, "replay": ring}
        if self.experiment.data.normalise_observations:
            trees["statistics"] = {"mean": self.spec.mean, "std": self.spec.std}
        checkpoint.save(
            self.run_dir.checkpoints,
            self.counters.total_grad_step,
            trees,
            {
                "counters": dataclasses.asdict(self.counters),
                "wall_s": self.wall_s,
                "sums": self.log.sums,
                "summed": self.log.summed,
                "rows": self.log.rows,
                "milestone": milestone,
            },
        )

    def restore(self) -> list[str]:
        """Continue from the newest complete checkpoint; returns a message for each damaged one.

        Rows of the CSV files that were written after that checkpoint are removed; the run will write the same again.
        """
        path, complaints = checkpoint.newest(self.run_dir.checkpoints)
        self.counters = store.counters_of(path)
        if path is None:
            complaints.append("no complete checkpoint; starting from the beginning")
        else:
            meta = checkpoint.load_meta(path)
            meta = meta["counters"] | meta  # format 1 kept all of these among the counters
            self.state = checkpoint.unflatten(jax.eval_shape(self._fresh), checkpoint.load(path, "state"))
            rows = checkpoint.load(path, "replay")
            count = len(next(iter(rows.values())))
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), self.replay.storage)
            self.replay = put_back(self.replay, checkpoint.unflatten(like, rows, np.asarray), self.counters.env_step)
            self.wall_s = meta["wall_s"]
            self.log.sums, self.log.summed = meta["sums"], meta["summed"]
            self.log.rows |= meta["rows"]  # older runs did not count episodes
        for name, rows in self.log.rows.items():
            if missing := self.run_dir.truncate(name, rows):
                complaints.append(f"{name} has lost {missing} rows that the checkpoint counts")
        self.log.last_evaluation = (self.run_dir.read_rows("eval.csv") or [{}])[-1]
        return complaints

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
