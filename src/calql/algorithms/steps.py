"""What all update rules share: a step of Adam, and doing something at every n-th update alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from calql.types import PyTree

Metrics = dict[str, jax.Array]


def adam_step(learning_rate: float, gradient: PyTree, optimizer: Any, parameters: PyTree) -> tuple[PyTree, Any]:
    """One Adam step: new parameters and optimiser state."""
    updates, optimizer = optax.adam(learning_rate).update(gradient, optimizer, parameters)
    return optax.apply_updates(parameters, updates), optimizer


def every(
    period: int, optimizer: Any, step: Callable[[], tuple[PyTree, Metrics]], otherwise: PyTree
) -> tuple[PyTree, Metrics]:
    """`step()` on the last of each `period` updates that an Adam optimiser has seen, and `otherwise` on the others.

    Metrics are zero where nothing is done and `period` times as large where it is, so that their mean is right.
    """
    if period == 1:
        return step()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step)[1])
    due = optimizer[0].count % period == period - 1
    state, metrics = jax.lax.cond(due, step, lambda: (otherwise, zeros))
    return state, jax.tree.map(lambda x: period * x, metrics)
