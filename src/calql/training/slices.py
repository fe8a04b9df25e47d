"""slice.csv: the critics' Q along one action dimension against rollouts of the policy (Fig. 6)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms.acting import normalised
from calql.algorithms.protocol import HasValues
from calql.envs.rollout import Act
from calql.evaluation.slices import q_slice
from calql.training.state import Training
from calql.types import Episode, PyTree


def slice_rows(t: Training, rule: HasValues, dimension: int) -> list[dict[str, float]]:
    """Rows of slice.csv: Q of the critics against rollouts of the policy, at the first state of an evaluation."""
    env, seed = t.envs.training, t.streams.seed("evaluate", 0)

    def q(observation: PyTree, actions: np.ndarray) -> np.ndarray:
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], normalised(t.spec, observation))
        return np.asarray(rule.q_values(t.state.critic, one, jnp.asarray(actions)[None])[:, 0].mean(axis=0))

    def policy(index: int | None) -> Act:
        return t.acting(None if index is None else t.streams.key("slice", index))

    def return_of(episode: Episode) -> float:
        return float(t.transitions([episode]).returns[0])

    first = jax.tree.map(lambda x: x[None], env.reset(seed=seed)[0])
    centre = policy(None)(first, np.zeros(1, np.int32), np.zeros(1, np.float32))[0]
    return list(q_slice(env, t.experiment.task, centre, dimension, seed, q, policy, return_of))
