"""The compiled part of training: many gradient steps in one program, and the critics' values on the data."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from calql.algorithms.protocol import HasValues, UpdateRule
from calql.replay import Replay, random_crop, sample, sample_windows
from calql.types import PyTree, Spec, Transition, is_image, map_leaves

POLICY_SAMPLES = 4
"""Actions of the policy, and uniform ones, per state whose values are measured."""


@partial(jax.jit, static_argnames=("algorithm", "batch_size", "crop"), donate_argnames=("state",))
def train_steps(
    algorithm: UpdateRule,
    batch_size: int,
    crop: int,
    state: PyTree,
    replay: Replay,
    key: jax.Array,
    first: jax.Array,
    count: jax.Array,
    mixing: jax.Array,
) -> tuple[PyTree, dict[str, jax.Array]]:
    """`count` gradient steps in one compiled loop: draw, losses, optimisers, targets.

    The rule, the batch size and the largest shift of images in pixels (`crop`) are static; the memory of `state` is
    donated. Step number i, from `first` on, draws everything from fold_in(key, i). `count` is traced, so that episodes
    of any length share one program. `mixing`: offline share of a batch, or −1. These three are scalars. Returns the new
    state, and each metric summed over the steps, float32 [].
    """

    @partial(jax.jit, inline=True)  # traced once for its shapes and the loop
    def one(state: PyTree, step: jax.Array) -> tuple[PyTree, dict[str, jax.Array]]:
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
def measure_values(algorithm: HasValues, state: PyTree, batch: Transition, key: jax.Array) -> dict[str, jax.Array]:
    """Columns of eval.csv, scalars, at the states of the batch: mean Q of its actions, of the policy's and of uniform
    ones, and the share of (state, policy action) pairs with Q below the return."""
    q_data = algorithm.q_values(state.critic, batch.observations, batch.actions)
    keys = jax.random.split(key, POLICY_SAMPLES)
    actions = jnp.stack([algorithm.act(state, batch.observations, k) for k in keys], axis=1)
    q_policy = algorithm.q_values(state.critic, batch.observations, actions)
    uniform = jax.random.uniform(jax.random.fold_in(key, 1), actions.shape, minval=-1.0)
    return {
        "q_data_mean": q_data.mean(),
        "bounding_rate": (q_policy < batch.returns[None, :, None]).mean(),
        "q_policy_mean": q_policy.mean(),
        "q_random_mean": algorithm.q_values(state.critic, batch.observations, uniform).mean(),
    }


def with_normalisation(spec: Spec, observations: PyTree) -> Spec:
    """The spec with mean and deviation of observations [N, …], float32, for `calql.algorithms.acting.normalised`.

    An entry that never changes has the deviation 1, or the smallest change later would be huge. Images have none.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return np.zeros(1, np.float32) if is_image(x) else x.mean(axis=0, dtype=np.float64).astype(np.float32)

    def std(x: np.ndarray) -> np.ndarray:
        if is_image(x):
            return np.ones(1, np.float32)
        deviation = x.std(axis=0, dtype=np.float64)
        constant = deviation <= 1e-6 * np.maximum(1.0, abs(x).max(axis=0))
        return np.where(constant, 1.0, deviation).astype(np.float32)

    return spec._replace(mean=map_leaves(mean, observations), std=map_leaves(std, observations))


def with_statistics(spec: Spec, data: Transition) -> Spec:
    """The spec with the statistics of the data that sequence models need: mean and deviation of states, best return."""
    mean, std = (jax.tree.map(partial(f, axis=0), data.observations) for f in (np.mean, np.std))
    best = data.to_go[data.timesteps == 0].max()
    return spec._replace(mean=mean, std=jax.tree.map(lambda x: x + 1e-6, std), best_return=float(best))
