"""The optimisers of networks: Adam, and Muon for weight matrices.

Muon (Jordan et al. 2024): the step of a weight matrix is its momentum with all singular values brought to about 1, by
five Newton–Schulz iterations. It is scaled so that its root mean square is 0.2 of the learning rate, about that of Adam
(Liu et al. 2025, arXiv 2502.16982), so that learning rates keep their meaning. Biases, layer norms and scalars take
steps of Adam with Nesterov momentum, as in Optax.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import optax
from optax import contrib

from calql.types import PyTree

Optimizer = Literal["adam", "muon"]
"""The kinds of optimisers."""


def make(kind: Optimizer, learning_rate: float) -> optax.GradientTransformation:
    """An optimiser of that kind; its states are pytrees of arrays."""
    if kind == "adam":
        return optax.adam(learning_rate)
    return contrib.muon(learning_rate, muon_weight_dimension_numbers=_matrices, consistent_rms=0.2)


def steps_taken(optimizer: Any) -> jax.Array:
    """Number of steps of an optimiser, from its state: int32 []."""
    return optax.tree.get_all_with_path(optimizer, "count")[0][1]


def _matrices(parameters: PyTree) -> PyTree:
    """For each array of a network, which of its axes are those of a matrix; None: it is none.

    Weights are [..., in, out], each a matrix of its own (the critics of an ensemble); those of a convolution
    [K, K, in, out] are one of K · K · in rows.
    """

    def axes(path: tuple[Any, ...], x: jax.Array) -> contrib.MuonDimensionNumbers | None:
        if path[-1].key != "kernel":
            return None
        return contrib.MuonDimensionNumbers((-4, -3, -2) if x.ndim == 4 else -2, -1)

    return jax.tree_util.tree_map_with_path(axes, parameters)
