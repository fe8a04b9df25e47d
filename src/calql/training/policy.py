"""Loads the policy of a run directory, without data or optimisers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms.acting import acting, normalised
from calql.algorithms.protocol import HasValues, UpdateRule
from calql.envs.film import Filmed, refuse_film
from calql.envs.make import make_env
from calql.envs.rollout import Act
from calql.envs.wrappers import action_bounds, action_names, control_rate
from calql.evaluation.endings import shares, watch
from calql.export.contract import Interface
from calql.machine import refuse_unusable_jax
from calql.tasks import Task
from calql.training import checkpoint, store
from calql.training.collect import EnvironmentFailed, Environments
from calql.training.measure import outcomes, outcomes_row, policy_row
from calql.training.record import read_record
from calql.training.run_dir import RunDir
from calql.types import InputError, PyTree, RunError, Spec, map_leaves
from calql.units import ActionBounds

SEED = 1_000_003
"""Seed of evaluations after training; it differs from every seed that is used in training."""


class Policy:
    """A trained policy: `act` and `q` in the environment's units, one episode at a time.

    A policy with a memory (ODT) remembers the current episode: call `reset` at the start of each episode.
    """

    def __init__(
        self,
        task: Task,
        title: str,
        step: int,
        algorithm: UpdateRule,
        spec: Spec,
        state: PyTree,
        bounds: ActionBounds,
        eval_envs: int = 10,
    ) -> None:
        """`eval_envs`: environments that `evaluate` may open at once."""
        self.task, self.title, self.step = task, title, step
        self.algorithm, self.spec, self.state = algorithm, spec, state
        self.bounds, self.eval_envs = bounds, eval_envs
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        self._act, self._steps = self.side_by_side(1), 0

    def act(self, observation: PyTree, reward: float = 0.0) -> np.ndarray:
        """The deterministic action [A] for one observation, in the environment's units.

        `reward`: the raw reward of the previous step; only a policy with a memory uses it.
        """
        one = jax.tree.map(lambda x: x[None], self._plain(observation))
        paid = self.task.rewards.map(reward) if self._steps else 0.0
        unit = self._act(one, np.array([self._steps], np.int32), np.array([paid], np.float32))[0]
        self._steps += 1
        return self.bounds.from_unit(unit)

    def q(self, observation: PyTree, action: np.ndarray) -> np.ndarray:
        """Q of every critic [E] for one observation and an action [A] in the environment's units, on mapped rewards.

        With actions [N, A]: [E, N]. Raises InputError if the method learns no Q.
        """
        if not isinstance(self.algorithm, HasValues):
            raise InputError(f"{self.title} learns no Q")
        unit = self.bounds.to_unit(np.atleast_2d(action))
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], normalised(self.spec, self._plain(observation)))
        several = jnp.asarray(unit)[None]
        values = np.asarray(self.algorithm.q_values(self.state.critic, one, several))[:, 0]
        return values if np.ndim(action) > 1 else values[:, 0]

    def _plain(self, observation: PyTree) -> PyTree:
        """The observation as arrays of the spec's dtypes."""
        return map_leaves(lambda like, x: np.asarray(x, like.dtype), self.spec.observation, observation)

    def side_by_side(self, episodes: int) -> Act:
        """The policy for rollouts of that many parallel episodes, with actions in [−1, 1]."""
        return acting(self.algorithm, self.spec, self.state, episodes)


def load_policy(run: Path | str, step: str = "newest") -> Policy:
    """The policy of a run's checkpoint: `newest`, `best`, `pretrained` or a gradient step. InputError if none."""
    refuse_unusable_jax()
    run_dir = RunDir(run)
    saved = read_record(run_dir)
    experiment = saved.experiment
    found = store.find_checkpoint(run_dir, experiment, step)
    meta = checkpoint.load_meta(found)
    algorithm = experiment.phases[meta["counters"]["phase"]].algorithm
    interface = saved.interface() or interface_of(experiment.task)
    spec, bounds = interface.spec, interface.bounds
    if (statistics := store.statistics_of(found)) is not None:
        spec = store.with_stored(spec, statistics)
    like = jax.eval_shape(lambda: algorithm.init(jax.random.key(0), spec))  # nothing is computed or compiled
    state = checkpoint.unflatten(like, checkpoint.load(found, "state"))
    envs = experiment.measurement.eval_envs
    return Policy(experiment.task, experiment.title, meta["step"], algorithm, spec, state, bounds, envs)


def interface_of(task: Task) -> Interface:
    """What the task's environment and a policy exchange, for runs that did not record it; opens the environment."""
    env = make_env(task)
    bounds = action_bounds(env)
    assert bounds is not None  # `make_env` refuses others
    example = map_leaves(lambda box: np.zeros(box.shape, box.dtype), env.observation_space)
    rate, names = control_rate(env), action_names(env)
    env.close()
    return Interface(Spec(example, bounds.size), bounds, rate, names)


def evaluate(
    run: Path | str | Policy,
    episodes: int = 100,
    seed: int = SEED,
    step: str = "newest",
    video: Path | None = None,
    endings: bool = False,
) -> dict[str, Any]:
    """Deterministic episodes on fresh resets: score_mean, score_sem, return_mean (mapped rewards), length_mean, ….

    `video`: an MP4 file for the first of the episodes. `endings`: also how episodes end, most frequent first, as rows
    {ending, share, progress}; they are then run one by one. Raises InputError as `load_policy` does and if the video
    cannot be made, and RunError if the environment fails.
    """
    policy = run if isinstance(run, Policy) else load_policy(run, step)
    if episodes < 1:
        raise InputError(f"episodes is {episodes}; it must be at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0")
    if video is not None:
        refuse_film(video)
    envs = Environments(policy.task, policy.eval_envs, episodes, None if video is None else "rgb_array")
    seeds, filmed = evaluation_seeds(seed, episodes), None
    try:
        first, *others = envs.evaluation
        if (own := action_bounds(first)) != policy.bounds:
            raise InputError(
                f"the environment takes actions in {own}, the policy was trained for {policy.bounds}; use the "
                "environment of the training"
            )
        filmed = None if video is None else Filmed(first, video)
        used = [filmed or first, *others]
        if endings:
            watched = watch(used[0], policy.task, policy.side_by_side(1), seeds)
            row = outcomes_row(outcomes(policy.task, [episode for episode, _ in watched]))
            row["endings"] = shares([ended for _, ended in watched])
        else:
            row = policy_row(used, policy.task, policy.algorithm, policy.spec, policy.state, seeds)
    except EnvironmentFailed as error:
        raise RunError(f"the environment failed in an evaluation ({error}); fix it") from error.__cause__
    finally:
        if filmed is not None:
            filmed.finish()
        envs.close()
    return {"task": policy.task.id, "method": policy.title, "grad_step": policy.step, "seed": seed, **row}


def evaluation_seeds(seed: int, episodes: int) -> list[int]:
    """Seeds of the environment's resets, one per episode."""
    return [int(s >> 1) for s in np.random.SeedSequence(seed).generate_state(episodes)]
