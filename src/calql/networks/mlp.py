"""Multi-layer perceptron with the official initialisation, and how a module is applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from calql.types import PyTree


def apply(module: nn.Module, parameters: PyTree, *inputs: Any, **options: Any) -> Any:
    """What a module makes of `inputs` with these parameters; `options` are Flax's, such as `rngs`."""
    return module.apply({"params": parameters}, *inputs, **options)


class MLP(nn.Module):
    """ReLU layers, orthogonal weights of gain √2 and zero biases; the output layer has its own gain.

    Source: nakamotoo/Cal-QL, `JaxCQL/model.py` (gain 0.01 on the output of the actor and of the critics).
    """

    hidden: Sequence[int]
    """Width of each hidden layer."""
    outputs: int
    """Width of the linear output layer."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layer."""
    layer_norm: bool = False
    """Normalise each hidden layer before its ReLU."""
    dropout: float = 0.0
    """Dropout rate of hidden units, applied if a `dropout` key is given."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., D] → [..., outputs]."""
        x = inputs
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=nn.initializers.orthogonal(2.0**0.5))(x)
            x = nn.relu(nn.LayerNorm()(x) if self.layer_norm else x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.output_gain), name="output")(x)
