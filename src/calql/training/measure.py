"""Evaluation of a policy and its critics: one row of eval.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms.acting import acting
from calql.algorithms.protocol import HasValues, UpdateRule
from calql.envs.rollout import BY_SUCCESS, Outcome, evaluate, score_of
from calql.tasks import Task
from calql.training.learner import measure_values
from calql.types import Episode, PyTree, Spec, Transition

EVAL_COLUMNS = (
    "phase", "env_step", "grad_step", "wall_s", "score_mean", "score_sem", "return_mean", "length_mean", "episodes",
    "q_data_mean", "mc_return_mean", "bounding_rate", "q_policy_mean", "q_random_mean", "mc_return_std",
)  # fmt: skip
NOT_MEASURED = (
    "the score is not measured: no step told success (info['success'] or info['is_success']); have every step tell it, "
    "or score returns: --set score=return score_range=LOW,HIGH (raw returns that score 0 and 1)"
)
EPISODE_COLUMNS = ("episode", "env_step", "length", "score", "success", "return", "interventions", "file")
"""Columns of episodes.csv, one row per online episode: `env_step` at its end, `return` of mapped rewards, the share of
steps at which a person acted."""
NO_EPISODES = dict.fromkeys(("score_mean", "score_sem", "return_mean", "length_mean")) | {"episodes": 0}
"""Columns of eval.csv where no episode was run."""
DATA_SAMPLE = 2_048
"""Data transitions on which values, returns and the bounding rate are measured at every evaluation."""


def data_sample(offline: Transition) -> Transition:
    """The transitions of the data that every evaluation of every run uses: [at most DATA_SAMPLE, …]."""
    rows = np.random.default_rng(0).permutation(len(offline.rewards))[:DATA_SAMPLE]
    return jax.tree.map(lambda x: jnp.asarray(x[rows]), offline)


def policy_row(
    envs: Sequence[gymnasium.Env], task: Task, algorithm: UpdateRule, spec: Spec, state: PyTree, seeds: Sequence[int]
) -> dict[str, Any]:
    """Columns of eval.csv from deterministic episodes, one per seed; the score is None if it was not measured."""
    return outcomes_row(evaluate(envs, task, acting(algorithm, spec, state, len(envs)), seeds))


def outcomes_row(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same columns from the results of episodes."""
    scores, n = np.array([outcome.score for outcome in outcomes if outcome.score is not None]), len(outcomes)
    return {
        "score_mean": float(scores.mean()) if len(scores) else None,
        "score_sem": float(scores.std(ddof=1) / np.sqrt(n)) if len(scores) > 1 else None,
        "return_mean": float(np.mean([outcome.total_reward for outcome in outcomes])),
        "length_mean": float(np.mean([outcome.length for outcome in outcomes])),
        "episodes": n,
    }


def episode_row(task: Task, episode: Episode) -> dict[str, Any]:
    """Length, score (None: not measured), success and share of interventions (None: not told) of an online episode."""
    won, told = episode.successes, episode.successes is not None
    score = score_of(task, episode.rewards.tolist(), [] if won is None else won.tolist())
    return {
        "length": episode.length,
        "score": score if told or task.score not in BY_SUCCESS else None,
        "success": None if won is None else bool(won.any()),
        "interventions": None if episode.interventions is None else float(episode.interventions.mean()),
    }


def outcomes(task: Task, episodes: Sequence[Episode]) -> list[Outcome]:
    """The results of episodes with raw rewards, as those of an evaluation."""
    scored = task.score not in BY_SUCCESS or any(episode.successes is not None for episode in episodes)

    def outcome(episode: Episode) -> Outcome:
        rewards, won = episode.rewards.tolist(), episode.successes
        score = score_of(task, rewards, [] if won is None else won.tolist()) if scored else None
        return Outcome(score, float(sum(map(task.rewards.map, rewards))), episode.length)

    return [outcome(episode) for episode in episodes]


def training_row(episodes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Columns of eval.csv from rows of episodes.csv."""
    if not episodes:
        return dict(NO_EPISODES)
    scores = [float(row["score"]) for row in episodes if row["score"]]
    return {
        "score_mean": float(np.mean(scores)) if scores else None,
        "score_sem": float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None,
        "return_mean": float(np.mean([float(row["return"]) for row in episodes])),
        "length_mean": float(np.mean([float(row["length"]) for row in episodes])),
        "episodes": len(episodes),
    }


def values_row(algorithm: UpdateRule, state: PyTree, sample: Transition, key: jax.Array) -> dict[str, float]:
    """Columns of eval.csv that compare Q at the states of the data with the return."""
    row = {"mc_return_mean": float(sample.returns.mean()), "mc_return_std": float(sample.returns.std())}
    if isinstance(algorithm, HasValues):
        row |= {name: float(value) for name, value in measure_values(algorithm, state, sample, key).items()}
    return row
