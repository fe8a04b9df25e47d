"""A critic's values of the actions at one state, against their returns (after Fig. 6 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gymnasium as gym
import numpy as np

from calql.envs.rollout import Act, collect_episode
from calql.tasks import Task
from calql.types import Episode, PyTree

POINTS = 21
"""Values of the varied action dimension, from −1 to 1."""
ROLLOUTS = 10
"""Episodes per point."""


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
    """Rows `action`, `q`, and returns: one component of an episode's first action varies, the others are fixed.

    The state is the one of `reset(seed)`, the other components are those of `centre` [A]; `q`: (observation,
    actions [N, A]) → [N]. `return_mean`, `return_sem`: `return_of` over ROLLOUTS episodes that start with that action
    and continue with `policy(number)`, which samples, as in the critic's own target; `return_deterministic`: of the one
    that continues with `policy(None)`, as in an evaluation.
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
    """The given action first, then the policy's."""
    return lambda observations, steps, rewards: action[None] if steps[0] == 0 else act(observations, steps, rewards)
