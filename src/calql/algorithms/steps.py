"""Functions that several update rules use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from calql.algorithms import optimizers
from calql.algorithms.optimizers import Optimizer
from calql.types import PyTree, Spec

Metrics = dict[str, jax.Array]
"""Scalars by name."""
State = TypeVar("State", bound=Any)
"""The state of a rule, a named tuple."""


def example(spec: Spec) -> PyTree:
    """A batch of one observation [1, …], to initialise networks with."""
    return jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)


def descend(
    state: State,
    part: str,
    learning_rate: float,
    gradient: PyTree,
    weight_decay: float = 0.0,
    kind: Optimizer = "adam",
) -> State:
    """The state after a step of the field `part` with that optimiser; with `weight_decay`, parameters are first
    multiplied by 1 − rate · decay (AdamW).

    The optimiser state of `actor` is `actor_optimizer`, and that of `log_alpha` is `alpha_optimizer`.
    """
    optimizer = f"{part.removeprefix('log_')}_optimizer"
    parameters = getattr(state, part)
    if weight_decay:
        parameters = jax.tree.map(lambda x: (1.0 - learning_rate * weight_decay) * x, parameters)
    step = optimizers.make(kind, learning_rate).update
    updates, optimizer_state = step(gradient, getattr(state, optimizer), parameters)
    return state._replace(**{part: optax.apply_updates(parameters, updates), optimizer: optimizer_state})


def systematic_draws(shares: jax.Array, uniform: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Draw `count` indices per row with probabilities proportional to shares ≥ 0 [B, N], by systematic sampling with
    uniform numbers [B].

    Returns the indices [B, count] and importance weights [B, count]: the weighted sum over the drawn indices is an
    unbiased estimate of the sum over all N. An index whose share is 0 is not drawn, or has the weight 0.
    """
    ends = jnp.cumsum(shares, axis=-1)
    positions = (uniform[:, None] + jnp.arange(count)[None]) / count * ends[:, -1:]
    positions = jnp.minimum(positions, jnp.nextafter(ends[:, -1:], 0.0))  # rounding may reach the end
    chosen = (ends[:, None, :] <= positions[:, :, None]).sum(axis=-1).clip(max=shares.shape[-1] - 1)
    share = jnp.take_along_axis(shares, chosen, axis=-1)
    return chosen, jnp.where(share > 0, ends[:, -1:] / (count * jnp.where(share > 0, share, 1.0)), 0.0)


def averaged_gradient(
    loss: Callable[[PyTree, PyTree], tuple[jax.Array, Metrics]],
    parameters: PyTree,
    batch: PyTree,
    pairs: int,
    limit: int | None,
    group: int = 1,
) -> tuple[tuple[jax.Array, Metrics], PyTree]:
    """Loss, metrics and gradient of `loss(parameters, batch)` as means over equal chunks of the batch [B].

    `group` consecutive rows stay in one chunk and are `pairs` inputs of the network. Chunks are halved until they have
    at most `limit` inputs, or cannot be halved into whole groups. `limit` None: 1,024 on a CPU, where the activations
    of a chunk then stay in the cache; no limit elsewhere.
    """
    size = rows = max(x.shape[0] for x in jax.tree.leaves(batch))
    limit = limit or (1024 if jax.default_backend() == "cpu" else size * pairs)
    while rows % (2 * group) == 0 and rows // group * pairs > limit:
        rows //= 2
    chunks = jax.tree.map(lambda x: x.reshape(size // rows, -1, *x.shape[1:]), batch)

    @partial(jax.jit, inline=True)  # traced once for its shapes and the sums
    def one(chunk: PyTree) -> tuple[tuple[jax.Array, Metrics], PyTree]:
        return jax.value_and_grad(loss, has_aux=True)(parameters, chunk)

    shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    sums, _ = jax.lax.scan(lambda sums, chunk: (jax.tree.map(jnp.add, sums, one(chunk)), None), zeros, chunks)
    return jax.tree.map(lambda x: x * (rows / size), sums)


def apply_every(
    period: int, optimizer: Any, step: Callable[[], tuple[PyTree, Metrics]], otherwise: PyTree
) -> tuple[PyTree, Metrics]:
    """`step()` on the last of every `period` updates, `otherwise` on the others. `optimizer` is the state of an
    optimiser, whose counter counts the updates.

    As the counter is part of the rule's state, counting continues from pre-training to fine-tuning, and in a run that
    starts from this state; it starts at 0 with a new optimiser. Metrics are 0 in updates without a step and multiplied
    by `period` in updates with a step, so that their means over updates are right.
    """
    if period == 1:
        return step()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step)[1])
    due = optimizers.steps_taken(optimizer) % period == period - 1
    state, metrics = jax.lax.cond(due, step, lambda: (otherwise, zeros))
    return state, jax.tree.map(lambda x: period * x, metrics)
