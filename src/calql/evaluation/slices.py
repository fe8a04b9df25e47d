"""Q-values of different actions at one state, compared with the returns of rollouts (after Fig. 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium as gym
import numpy as np

from calql.envs.rollout import Act, collect_episode
from calql.tasks import Task
from calql.types import Episode, PyTree

POINTS = 21
"""Number of values of the varied action component, evenly spaced from −1 to 1."""
ROLLOUTS = 10
"""Stochastic episodes per value."""


def q_slice(
    env: gym.Env,
    task: Task,
    centre: np.ndarray,
    dimension: int,
    seed: int,
    q: Callable[[PyTree, np.ndarray], np.ndarray],
    policy: Callable[[int | None], Act],
    return_of: Callable[[Episode], float],
) -> Iterator[dict[str, float]]:
    """Q-values and returns of POINTS actions at the initial state of `reset(seed)`, which differ in one component.

    Args:
        env: the environment.
        task: its task.
        centre: [A] the other components of the actions.
        dimension: index of the component that varies from −1 to 1.
        seed: seed of every `reset`.
        q: (observation, actions [N, A]) → Q-values [N].
        policy: number of an episode → stochastic policy of this episode, as in the target of the critic; None →
            deterministic policy, as in an evaluation.
        return_of: return of an episode.

    Yields one row per action: `action` (the varied component), `q`, `return_mean` and `return_sem` over ROLLOUTS
    episodes that start with this action and continue with the stochastic policy, and `return_deterministic` of the
    episode that continues with the deterministic policy.
    """
    observation, _ = env.reset(seed=seed)
    actions = np.repeat(centre[None].astype(np.float32), POINTS, axis=0)
    actions[:, dimension] = np.linspace(-1.0, 1.0, POINTS)
    for i, (action, value) in enumerate(zip(actions, q(observation, actions), strict=True)):
        acts = [policy(None), *(policy(i * ROLLOUTS + j) for j in range(ROLLOUTS))]
        episodes = [collect_episode(env, task, _first(action, act), seed) for act in acts]
        deterministic, *returns = [return_of(episode) for episode in episodes]
        yield {
            "action": float(action[dimension]),
            "q": float(value),
            "return_mean": float(np.mean(returns)),
            "return_sem": float(np.std(returns, ddof=1) / np.sqrt(ROLLOUTS)),
            "return_deterministic": float(deterministic),
        }


def _first(action: np.ndarray, act: Act) -> Act:
    """A policy that takes the given action [A] at the first step and follows `act` afterwards."""
    return lambda observations, steps, rewards: action[None] if steps[0] == 0 else act(observations, steps, rewards)
