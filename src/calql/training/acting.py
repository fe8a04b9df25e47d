"""From an algorithm to a policy that a rollout can call, with or without a memory of the episode."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from calql.evaluation.rollout import Act
from calql.types import PyTree, Spec


class Acting:
    """Compiles an algorithm's way of acting once, for any number of rollouts."""

    def __init__(self, algorithm: Any, spec: Spec) -> None:
        self._blank = (lambda size: algorithm.blank(spec, size)) if algorithm.context else lambda size: None

        def act(state: PyTree, memory: Any, observations: PyTree, steps: Any, rewards: Any, key: Any) -> tuple:
            if algorithm.context:
                return algorithm.act_in_context(state, memory, observations, steps, rewards, key)
            return algorithm.act(state, observations, key), memory

        def explore(*arguments: Any) -> tuple:
            *arguments, key = arguments
            return act(*arguments, jax.random.fold_in(key, arguments[3][0]))

        self._act, self._explore = jax.jit(lambda *arguments: act(*arguments, None)), jax.jit(explore)

    def policy(self, state: PyTree, size: int, key: jax.Array | None = None) -> Act:
        """What acts in `size` episodes side by side: deterministic, or exploring where a key is given."""
        memory = self._blank(size)

        def act(observations: PyTree, steps: np.ndarray, rewards: np.ndarray) -> np.ndarray:
            nonlocal memory
            inputs = state, memory, observations, steps, rewards
            actions, memory = self._act(*inputs) if key is None else self._explore(*inputs, key)
            return np.asarray(actions)

        return act


def uniform_policy(spec: Spec, key: jax.Array) -> Act:
    """What acts with actions drawn uniformly from [−1, 1], in one episode."""
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return lambda observations, steps, rewards: random.uniform(-1.0, 1.0, (1, spec.action_dim)).astype(np.float32)
