"""The loop: offline and online phases, in which every boundary follows from a few counters.

The state of a run is (parameters, replay, counters). All randomness is derived from (seed, stream, counter), never
carried along, so a run that is stopped anywhere and continued from a checkpoint takes the same path bit for bit.

Online, a whole episode is collected with the current policy, then length × UTD gradient steps follow
(nakamotoo/Cal-QL, `conservative_sac_main.py`). `env_step` in the evaluation rows counts the environment steps that have
been *learned from*, gradient_step / UTD, so that evaluations fall on one grid whatever the episodes' lengths.
Where an episode brings fewer updates than it has steps, an evaluation comes with the first update past the grid's step.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms import SAC, ActorCriticState, HasValues
from calql.algorithms.acting import acting, uniform_policy
from calql.data.episodes import Episodes
from calql.data.returns import monte_carlo_returns, to_go_and_timesteps
from calql.envs.make import make_env
from calql.envs.rollout import Act, collect_episode, evaluate
from calql.evaluation.metrics import summarise
from calql.evaluation.slices import q_slice
from calql.replay import Replay, add_episode, make_replay, newest, put_back, random_crop, sample, sample_windows
from calql.training import checkpoint
from calql.training.config import Phase, RunConfig
from calql.training.run_dir import EVAL_COLUMNS, RunDir
from calql.types import Episode, InputError, PyTree, RunError, Spec, Transition

STREAMS = {"init": 0, "update": 1, "collect": 2, "evaluate": 3, "probe": 4, "slice": 5}
DATA_SAMPLE = 2_048
"""Data transitions on which Q, the return and the bounding rate are measured at every evaluation."""
POLICY_SAMPLES = 4
"""Policy actions a state for the bounding rate."""
CHUNK = 50
"""Most gradient steps in one call of the compiled loop, so that progress shows; results do not depend on it."""


@dataclasses.dataclass
class Counters:
    """Where a run is."""

    phase: int = 0
    """Index of the current phase."""
    grad_step: int = 0
    """Gradient steps done in the current phase."""
    env_step: int = 0
    """Environment steps collected in the current phase."""
    due: int = 0
    """Gradient steps that those are worth in all."""
    before: tuple[int, int] = (0, 0)
    """`env_step` and `due` before the newest episode."""
    episode: int = 0
    """Online episodes collected."""
    total_grad_step: int = 0
    """Gradient steps over all phases."""
    evaluated: int = -1
    """Last point of the phase's own clock that has been evaluated."""
    wall_s: float = 0.0
    """Seconds of training so far, over all resumes."""
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    """Metric sums since the last row of train.csv."""
    summed: int = 0
    """Gradient steps in `sums`."""
    rows: dict[str, int] = dataclasses.field(default_factory=lambda: {"eval.csv": 0, "train.csv": 0})
    """Rows written so far."""


class Progress(NamedTuple):
    """What the loop yields: where it is, and what just happened (`update`, `episode`, `evaluation`, `notice`)."""

    event: str
    phase: str
    step: int
    """On the phase's own clock: gradient steps offline, environment steps online."""
    total: int
    info: dict[str, Any]


@partial(jax.jit, static_argnames=("algorithm", "batch_size", "crop"), donate_argnames=("state",))
def train_steps(
    algorithm: SAC,
    batch_size: int,
    state: ActorCriticState,
    replay: Replay,
    key: jax.Array,
    first: jax.Array,
    count: jax.Array,
    mixing: jax.Array,
    crop: int = 4,
) -> tuple[ActorCriticState, dict[str, jax.Array]]:
    """`count` gradient steps in one compiled loop: draw, losses, optimisers, targets. Returns summed metrics.

    Step number i draws everything from fold_in(key, i); `count` is traced, so episodes of any length share one program.
    """

    @partial(jax.jit, inline=True)  # traced once for its shapes and the loop
    def one(state: ActorCriticState, step: jax.Array) -> tuple[ActorCriticState, dict[str, jax.Array]]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, step))
        if algorithm.context:
            batch = sample_windows(replay, sample_key, batch_size, mixing, algorithm.context)
        else:
            batch = sample(replay, sample_key, batch_size, mixing)
            batch = random_crop(jax.random.fold_in(sample_key, 1), batch, crop)
        return algorithm.update(state, batch, update_key)

    shapes = jax.eval_shape(one, state, first)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)

    def body(i: jax.Array, carry: tuple) -> tuple:
        state, sums = carry
        state, metrics = one(state, first + i)
        return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, count, body, (state, zeros))


@partial(jax.jit, static_argnames=("algorithm",))
def measure_values(
    algorithm: SAC, state: ActorCriticState, batch: Transition, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean Q of the data's actions, and the share of (data state, policy action) pairs with Q below the return."""
    q_data = algorithm.q_values(state.critic, batch.observations, batch.actions).mean()
    keys = jax.random.split(key, POLICY_SAMPLES)
    actions = jnp.stack([algorithm.act(state, batch.observations, k) for k in keys], axis=1)
    q_policy = algorithm.q_values(state.critic, batch.observations, actions)
    return q_data, (q_policy < batch.returns[None, :, None]).mean()


def about_sequences(spec: Spec, data: Transition) -> Spec:
    """The spec with what a learner of sequences takes from its data."""
    mean, std = (jax.tree.map(partial(f, axis=0), data.observations) for f in (np.mean, np.std))
    best = data.to_go[data.timesteps == 0].max()
    return spec._replace(mean=mean, std=jax.tree.map(lambda x: x + 1e-6, std), best_return=float(best))


class Trainer:
    """One run. `run()` is a generator of `Progress`: bars, logs and early stops are its consumers."""

    def __init__(self, config: RunConfig, data: Episodes, run_dir: RunDir) -> None:
        self.config, self.run_dir = config, run_dir
        self.task, self.protocol = config.task, config.protocol
        self.discount = config.phases[0].algorithm.discount
        self.sequences = config.phases[0].algorithm.context > 0
        offline = data.transitions(
            self.task,
            self.discount,
            action_clip=self.protocol.action_clip,
            tail_bootstrap=self.protocol.tail_bootstrap,
            sequences=self.sequences,
        )
        self.env = make_env(self.task)
        self.eval_envs = [make_env(self.task) for _ in range(min(self.protocol.eval_episodes, 10))]
        self.root = jax.random.key(config.seed)
        self.counters = Counters()
        self.like = jax.tree.map(lambda x: x[0], offline)
        online = any(phase.env_steps for phase in config.phases)
        capacity = self.protocol.replay_capacity if online else 0
        self.replay = make_replay(offline, self.like, capacity, one_buffer=online and self.protocol.one_buffer)
        self.spec = about_sequences(data.spec(), offline) if self.sequences else data.spec()
        if (self.protocol.slice_dimension or 0) >= self.spec.action_dim:
            raise InputError(f"slice_dimension must be below {self.spec.action_dim}, the components of an action")
        self.state = config.phases[0].algorithm.init(self._key("init"), self.spec)
        rows = np.random.default_rng(0).permutation(len(offline.rewards))[:DATA_SAMPLE]
        self.data_sample = jax.tree.map(lambda x: jnp.asarray(x[rows]), offline)
        self._started = time.monotonic()
        self._alarmed = False

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.config.phases[self.counters.phase]

    def clock(self) -> int:
        """The phase's own clock: gradient steps offline, environment steps learned from online."""
        c = self.counters
        if self.phase.name == "offline":
            return c.grad_step
        env_step, due = c.before
        learned = (c.grad_step - due) * (c.env_step - env_step) // max(c.due - due, 1)
        return min(c.env_step if c.grad_step == c.due else env_step + learned, self.phase.env_steps)

    def grad_step_at(self, clock: int) -> int:
        """The first gradient step of the phase at which its clock, in the newest episode, is there."""
        c = self.counters
        if self.phase.name == "offline":
            return clock
        env_step, due = c.before
        return due - (env_step - clock) * (c.due - due) // (c.env_step - env_step)

    def length(self) -> int:
        """Where the phase's own clock ends."""
        return self.phase.gradient_steps if self.phase.name == "offline" else self.phase.env_steps

    def run(self) -> Iterator[Progress]:
        """Train to the end, from wherever the counters stand."""
        while self.counters.phase < len(self.config.phases):
            yield from self._run_phase()
            if self.counters.phase + 1 == len(self.config.phases):
                break
            anew = dict(grad_step=0, env_step=0, due=0, before=(0, 0), evaluated=-1)
            self.counters = dataclasses.replace(self.counters, phase=self.counters.phase + 1, **anew)
        self.run_dir.finish(summarise(self.run_dir.read_rows("eval.csv")))

    def _run_phase(self) -> Iterator[Progress]:
        c = self.counters
        while True:
            clock, grid = self.clock(), self.phase.eval_every
            at_end = clock >= self.length()
            if clock // grid > c.evaluated // grid or (at_end and c.evaluated != clock):
                yield self._evaluate()
            if at_end:
                self._flush_metrics()
                if self._has_slice():
                    yield self._progress("notice", {"text": "comparing Q with rollouts at one state (slice.csv)"})
                    self._slice(self.protocol.slice_dimension)
                self.save(milestone=True)
                return
            if self.phase.name == "online" and c.grad_step == c.due:
                yield self._collect()
                continue
            progress = self._update()
            yield progress
            if alarm := self._implausible_q(progress):
                yield alarm
            if c.total_grad_step % self.protocol.checkpoint_every == 0 and self.clock() < self.length():
                self.save()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _update(self) -> Progress:
        """Gradient steps up to the next boundary of any kind."""
        c, p = self.counters, self.protocol
        to_grid = self.phase.eval_every - self.clock() % self.phase.eval_every
        ends = [self.grad_step_at(clock) for clock in (self.clock() + to_grid, self.length())]
        ends += [c.due] if self.phase.name == "online" else []
        count = min(
            CHUNK,
            min(ends) - c.grad_step,
            p.log_every - c.total_grad_step % p.log_every,
            p.checkpoint_every - c.total_grad_step % p.checkpoint_every,
        )
        self.state, sums = train_steps(
            self.phase.algorithm,
            p.batch_size,
            self.state,
            self.replay,
            self._key("update"),
            jnp.int32(c.total_grad_step),
            jnp.int32(count),
            jnp.float32(self.phase.mixing),
            crop=p.random_crop,
        )
        sums = {name: float(value) for name, value in sums.items()}
        if not all(np.isfinite(value) for value in sums.values()):
            bad = ", ".join(name for name, value in sums.items() if not np.isfinite(value))
            raise RunError(
                f"diverged near gradient step {c.total_grad_step} ({bad} not finite); the last good "
                "checkpoint is kept; start anew with --set target_q_clamp=true or a smaller cql_alpha"
            )
        for name, value in sums.items():
            c.sums[name] = c.sums.get(name, 0.0) + value
        c.summed += count
        c.grad_step += count
        c.total_grad_step += count
        info = {name: value / count for name, value in sums.items()}
        if c.total_grad_step % p.log_every == 0:
            self._flush_metrics()
        return self._progress("update", info)

    def _collect(self) -> Progress:
        """One whole episode with the current sampled policy, into replay with its own Monte-Carlo return.

        The first `start_steps` are random, and nothing is learned from them before they are over.
        """
        c, p = self.counters, self.protocol
        key, random = self._key("collect", c.episode), c.env_step < p.start_steps
        with self._saving_on_failure(f"online episode {c.episode}"):
            episode = collect_episode(
                self.env,
                self.task,
                uniform_policy(self.spec, key) if random else self._acting(1, key),
                self._seed("collect", c.episode),
            )
        self.replay = add_episode(self.replay, self._pad(episode), jnp.int32(episode.length))
        c.before = c.env_step, c.due
        c.env_step += episode.length
        c.due += 0 if random else p.updates_per_episode or p.utd * episode.length
        c.episode += 1
        return self._progress("episode", {"success": bool(np.any(episode.successes)), "length": episode.length})

    def _acting(self, size: int, key: jax.Array | None = None) -> Act:
        return acting(self.phase.algorithm, self.spec, self.state, size, key)

    @contextmanager
    def _saving_on_failure(self, where: str) -> Iterator[None]:
        """An environment may throw anything; what was learned must survive it."""
        try:
            yield
        except Exception as error:
            self.save()
            raise RunError(
                f"the environment failed in {where} ({type(error).__name__}: {error}); "
                f"all work is saved: mend it and run calql train --resume --out {self.run_dir.path}"
            ) from error

    def _pad(self, episode: Episode) -> Transition:
        """An online episode as `horizon` rows of mapped transitions; rows past its length are zero."""
        rewards = self.task.map_reward(episode.rewards).astype(np.float32)
        returns = monte_carlo_returns(
            rewards, episode.terminations, self.discount, self.task.failure_reward, self.protocol.tail_bootstrap
        )
        rows = Transition(
            jax.tree.map(lambda x: x[:-1], episode.observations),
            episode.actions,
            rewards,
            jax.tree.map(lambda x: x[1:], episode.observations),
            1.0 - episode.terminations,
            returns,
            *(to_go_and_timesteps(rewards) if self.sequences else ()),
        )

        def pad(x: np.ndarray, like: np.ndarray) -> np.ndarray:
            x = np.asarray(x, like.dtype)
            return np.concatenate([x, np.zeros((self.task.horizon - len(x), *x.shape[1:]), x.dtype)])

        return jax.tree.map(pad, rows, self.like)

    def _evaluate(self) -> Progress:
        """Deterministic episodes, and Q on the data against the return; one row of eval.csv.

        The pre-trained policy is the last point of the offline phase and the first of the online one: measured once.
        """
        c, n = self.counters, self.protocol.eval_episodes
        point = c.total_grad_step
        before = self.run_dir.read_rows("eval.csv")[-1:]
        if before and before[0]["grad_step"] == str(point):
            c.evaluated = self.clock()
            row = before[0] | {"phase": self.phase.name, "env_step": 0 if self.phase.name == "offline" else c.evaluated}
            self._append("eval.csv", row)
            return self._progress("evaluation", {"score_mean": float(row["score_mean"])})
        with self._saving_on_failure(f"the evaluation at gradient step {point}"):
            outcomes = evaluate(
                self.eval_envs,
                self.task,
                self._acting(len(self.eval_envs)),
                [self._seed("evaluate", point, i) for i in range(n)],
            )
        c.evaluated = self.clock()
        scores = np.array([outcome.score for outcome in outcomes])
        row: dict[str, Any] = {
            "phase": self.phase.name,
            "env_step": 0 if self.phase.name == "offline" else self.clock(),
            "grad_step": c.total_grad_step,
            "wall_s": round(self._wall(), 3),
            "score_mean": float(scores.mean()),
            "score_sem": float(scores.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
            "return_mean": float(np.mean([outcome.total_reward for outcome in outcomes])),
            "length_mean": float(np.mean([outcome.length for outcome in outcomes])),
            "episodes": n,
            "mc_return_mean": float(self.data_sample.returns.mean()),
        }
        if isinstance(self.phase.algorithm, HasValues):
            q_data, bounding = measure_values(self.phase.algorithm, self.state, self.data_sample, self._key("probe"))
            row |= {"q_data_mean": float(q_data), "bounding_rate": float(bounding)}
        self._append("eval.csv", row)
        return self._progress("evaluation", row)

    def _has_slice(self) -> bool:
        wanted = self.protocol.slice_dimension is not None
        return wanted and self.phase.name == "offline" and isinstance(self.phase.algorithm, HasValues)

    def _slice(self, dimension: int) -> None:
        """slice.csv: Q of the pre-trained critics against rollouts of the pre-trained policy, at one state."""
        algorithm, seed = self.phase.algorithm, self._seed("evaluate", 0)

        def q(observation: PyTree, actions: np.ndarray) -> np.ndarray:
            one = jax.tree.map(lambda x: jnp.asarray(x)[None], observation)
            return np.asarray(algorithm.q_values(self.state.critic, one, actions[None])[:, 0].mean(axis=0))

        with self._saving_on_failure("the comparison of Q with rollouts"):
            first = jax.tree.map(lambda x: x[None], self.env.reset(seed=seed)[0])
            rows = q_slice(
                self.env,
                self.task,
                self._acting(1)(first, np.zeros(1, np.int32), np.zeros(1, np.float32))[0],
                dimension,
                seed,
                q,
                lambda i: self._acting(1, None if i is None else self._key("slice", i)),
                lambda episode: float(self._pad(episode).returns[0]),
            )
            self.run_dir.write_rows("slice.csv", list(rows))

    def _implausible_q(self, progress: Progress) -> Progress | None:
        """A notice, once, when mean Q on the batch leaves what any return can be, by more than a fifth."""
        limit = 1.2 * max(map(abs, self.task.q_bounds(self.discount)))
        q = progress.info.get("q_data", 0.0)
        if self._alarmed or abs(q) <= limit:
            return None
        self._alarmed = True
        text = f"mean Q is {q:.4g}, beyond ±{limit:.4g}: values diverge; consider --set target_q_clamp=true"
        return progress._replace(event="notice", info={"text": text})

    def _flush_metrics(self) -> None:
        c = self.counters
        if c.summed:
            where = {
                "phase": self.phase.name,
                "env_step": 0 if self.phase.name == "offline" else self.clock(),
                "grad_step": c.total_grad_step,
            }
            self._append("train.csv", where | {name: total / c.summed for name, total in c.sums.items()})
            c.sums, c.summed = {}, 0

    def _append(self, name: str, row: dict[str, Any]) -> None:
        self.run_dir.append(name, row, EVAL_COLUMNS if name == "eval.csv" else ("phase", "env_step", "grad_step"))
        self.counters.rows[name] += 1

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, milestone: bool = False) -> None:
        """Write a checkpoint of everything that the future depends on."""
        self.counters.wall_s, self._started = self._wall(), time.monotonic()
        slots = newest(self.replay, self.counters.env_step)
        ring = jax.tree.map(lambda x: np.asarray(x[slots]), self.replay.storage)
        checkpoint.save(
            self.run_dir.checkpoints,
            self.counters.total_grad_step,
            {"state": self.state, "replay": ring},
            {"counters": dataclasses.asdict(self.counters), "cursor": int(self.replay.cursor), "milestone": milestone},
        )

    def restore(self) -> list[str]:
        """Continue from the newest complete checkpoint; returns what had to be passed over, a line each.

        Rows of the CSV files that were written after it are removed: they will be written again, the same.
        """
        path, complaints = checkpoint.newest(self.run_dir.checkpoints)
        if path is None:
            complaints.append("no complete checkpoint; starting from the beginning")
            self.counters = Counters()
        else:
            meta = checkpoint.load_meta(path)
            self.counters = Counters(**meta["counters"])
            self.state = checkpoint.unflatten(self.state, checkpoint.load(path, "state"))
            rows = checkpoint.load(path, "replay")
            count = len(next(iter(rows.values())))
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), self.replay.storage)
            self.replay = put_back(self.replay, checkpoint.unflatten(like, rows), meta["cursor"])
        for name, rows in self.counters.rows.items():
            self.run_dir.truncate(name, rows)
        return complaints

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _key(self, stream: str, index: int = 0) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(self.root, STREAMS[stream]), index)

    def _seed(self, stream: str, *index: int) -> int:
        """A seed for an environment's reset, from (run seed, stream, index)."""
        words = np.random.SeedSequence([self.config.seed, STREAMS[stream], *index]).generate_state(1)
        return int(words[0] >> 1)

    def _wall(self) -> float:
        return self.counters.wall_s + time.monotonic() - self._started

    def _progress(self, event: str, info: dict[str, Any]) -> Progress:
        return Progress(event, self.phase.name, self.clock(), self.length(), info)

    def close(self) -> None:
        """Close the environments."""
        for env in (self.env, *self.eval_envs):
            env.close()
