"""The policy of an algorithm as a function for rollouts, with or without a memory of the episode."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np

from calql.algorithms.protocol import Acts, ActsInContext, UpdateRule
from calql.envs.rollout import Act
from calql.types import PyTree, Spec, is_image, map_leaves


def acting(algorithm: UpdateRule, spec: Spec, state: PyTree, size: int, key: jax.Array | None = None) -> Act:
    """The policy as a function for `size` parallel episodes: deterministic without a key, exploratory with a key."""
    compiled = _compiled(algorithm)
    normalises_itself = algorithm.context > 0
    memory = None
    if algorithm.context:
        assert isinstance(algorithm, ActsInContext)
        memory = algorithm.blank(spec, size)

    def act(observations: PyTree, steps: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        nonlocal memory
        if not normalises_itself:
            observations = normalised(spec, observations)
        actions, memory = compiled(state, memory, observations, steps, rewards, key)
        return np.asarray(actions)

    return act


def normalised(spec: Spec, observations: PyTree) -> PyTree:
    """Observations […, …] as the networks see them: (x − mean) / std, if the spec has statistics; images unchanged."""
    if spec.mean is None:
        return observations

    def scaled(x: Any, mean: Any, std: Any) -> Any:
        return x if is_image(x) else ((x - mean) / std).astype(np.float32)

    return map_leaves(scaled, observations, spec.mean, spec.std)


@cache
def _compiled(algorithm: UpdateRule) -> Callable[..., tuple[jax.Array, Any]]:
    """The compiled policy. Looked up once per rollout, because jit would hash a static argument at every step."""

    def act(state: PyTree, memory: Any, observations: PyTree, steps: Any, rewards: Any, key: Any) -> tuple:
        key = None if key is None else jax.random.fold_in(key, steps[0])
        if algorithm.context:
            assert isinstance(algorithm, ActsInContext)
            return algorithm.act_in_context(state, memory, observations, steps, rewards, key)
        assert isinstance(algorithm, Acts)
        return algorithm.act(state, observations, key), memory

    return jax.jit(act)


def uniform_policy(spec: Spec, key: jax.Array) -> Act:
    """The policy of one episode that draws actions uniformly from [−1, 1]."""
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return lambda observations, steps, rewards: random.uniform(-1.0, 1.0, (1, spec.action_dim)).astype(np.float32)
