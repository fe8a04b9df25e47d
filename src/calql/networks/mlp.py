"""Multi-layer perceptron with the initialisation of the release, and a function that applies a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from calql.networks.products import Precision, dot_general_of
from calql.types import PyTree


def apply(module: nn.Module, parameters: PyTree, *inputs: Any, **options: Any) -> Any:
    """Output of a module with the given parameters for `inputs`; `options` go to Flax, such as `rngs`."""
    return module.apply({"params": parameters}, *inputs, **options)


class MLP(nn.Module):
    """Multi-layer perceptron: ReLU layers with orthogonal weights of gain √2 and zero biases, and a linear output layer
    with its own gain.

    Source: nakamotoo/Cal-QL, `JaxCQL/model.py` (gain 0.01 on the output of the actor and of the critics).
    """

    hidden: Sequence[int]
    """Width of each hidden layer."""
    outputs: int
    """Width of the linear output layer."""
    output_gain: float = 0.01
    """Gain of the orthogonal initialisation of the output layer."""
    layer_norm: bool = False
    """Layer normalisation in each hidden layer, before the ReLU."""
    dropout: float = 0.0
    """Dropout rate of hidden units; applied only if `apply` gets `rngs` with a `dropout` key."""
    precision: Precision = "float32"
    """Precision of the inputs of the products between hidden layers; those of the first and the last are float32."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., D] → [..., outputs]."""
        x = inputs
        for layer, width in enumerate(self.hidden):
            dot_general = dot_general_of(self.precision if layer else "float32")
            x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(2.0**0.5), dot_general=dot_general)(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.output_gain), name="output")(x)
