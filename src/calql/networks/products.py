"""Matrix products between hidden layers, with inputs in bfloat16 and sums in float32.

Processors that multiply bfloat16 (Intel's AMX, GPUs, TPUs) do so several times faster than float32. Parameters, biases,
activations and gradients between products stay float32, so small steps of the optimiser are not lost.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

Precision = Literal["float32", "bfloat16"]
"""The precision of the inputs of a product."""

TILE = 16
"""Width of the tiles of a transposition."""


def dot_general_of(precision: Precision) -> Any:
    """The product of a Flax layer in that precision; None: Flax's own, in float32."""
    return None if precision == "float32" else _dot_general


def _dot_general(x: jax.Array, kernel: jax.Array, dimensions: Any, **_: Any) -> jax.Array:
    """The product of a dense layer, as `jax.lax.dot_general` computes it: [..., D] × [D, O] → [..., O]."""
    return product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x kernel: [B, D] × [D, O] → [B, O], all float32, with inputs rounded to bfloat16, also in the gradient."""
    return _forward(x, kernel)[0]


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x, kernel = _rounded(x), _rounded(kernel)
    return _product(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    (x, kernel), gradient = saved, _rounded(gradient)
    # Contracted like this; with `kernel.T` an update of the official sizes takes a fifth longer on a CPU.
    to_x = jax.lax.dot_general(gradient, kernel, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    if jax.default_backend() != "cpu":
        return to_x, _product(x.T, gradient)
    # XLA's products on a CPU are fast in bfloat16 only if the left matrix lies row by row.
    rows, columns = (-n % TILE for n in x.shape)
    padded = _transposed(jnp.pad(x, ((0, rows), (0, columns))))
    return to_x, _product(padded, jnp.pad(gradient, ((0, rows), (0, 0))))[: x.shape[1]]


product.defvjp(_forward, _backward)


def _rounded(x: jax.Array) -> jax.Array:
    return x.astype(jnp.bfloat16)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """x y of two matrices in bfloat16, summed in float32."""
    return jax.lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)


def _transposed(x: jax.Array) -> jax.Array:
    """The transpose of a matrix whose sides are multiples of `TILE`, by tiles.

    A plain transposition would be folded into the product that follows, and that would read column by column.
    """
    rows, columns = (n // TILE for n in x.shape)
    tiles = x.reshape(rows, TILE, columns, TILE).transpose(2, 0, 3, 1)
    return jax.lax.optimization_barrier(tiles).transpose(0, 2, 1, 3).reshape(x.shape[::-1])
