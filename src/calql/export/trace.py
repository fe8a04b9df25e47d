"""From a function of JAX to a program.

Every function that JAX can trace becomes a program if its primitives are in the table `RULES`; what is computed from
constants alone is computed here. The operations are those of `calql.export.act`, which defines what they mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from calql.export.act import OPERATIONS
from calql.export.program import Operand, Operation, Program, Value
from calql.types import InputError


def trace(function: Callable[..., jax.Array], inputs: dict[str, np.ndarray]) -> Program:
    """The program of a function of arrays like `inputs`, given in that order.

    Raises InputError if the function uses an operation that has no row in `RULES`.
    """
    values = {name: Value(name, np.shape(x), np.asarray(x).dtype) for name, x in inputs.items()}
    closed = jax.make_jaxpr(function)(*inputs.values())
    writer = Writer()
    (output,) = writer.run(closed.jaxpr, closed.consts, list(values.values()))
    if not isinstance(output, Value):
        raise InputError("the action does not depend on the observation; train the policy before it is exported")
    needed, operations = {output.name}, []
    for operation in reversed(writer.operations):  # without what the action does not need, such as the log-std
        if operation.output in needed:
            operations.append(operation)
            needed.update(operation.inputs)
    constants = {name: x for name, x in writer.constants.items() if name in needed}
    return Program(values, operations[::-1], output, constants)


class Writer:
    """Collects operations and constants."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.constants: dict[str, np.ndarray] = {}
        self._numbers = itertools.count()

    def __call__(self, operation: str, *inputs: Operand, **options: Any) -> Any:
        """The result of an operation, which is written down unless all inputs are constants."""
        # Executed on ones: NumPy knows the shape and the dtype of the result.
        examples = [np.ones(x.shape, x.dtype) if isinstance(x, Value) else x for x in inputs]
        with np.errstate(all="ignore"):
            result = np.asarray(OPERATIONS[operation](*examples, **options))
        if not any(isinstance(x, Value) for x in inputs):
            return result
        value = Value(f"v{next(self._numbers)}", result.shape, result.dtype)
        names = [x.name if isinstance(x, Value) else self._constant(x) for x in inputs]
        self.operations.append(Operation(operation, names, value.name, options))
        return value

    def _constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Operand]) -> list[Operand]:
        """The results of a traced function."""
        known: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {name: np.asarray(x) for name, x in zip(jaxpr.constvars, constants, strict=True)}

        def read(variable: Any) -> Operand:
            if not isinstance(variable, Literal):
                return known[variable]
            kind: Any = variable.aval
            return np.asarray(variable.val, kind.dtype)

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(variable) for variable in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def equation(self, equation: Any, inputs: list[Any]) -> list[Operand]:
        """The results of one primitive."""
        name, params = equation.primitive.name, equation.params
        if name in CALLS:
            inner = params.get("jaxpr") or params["call_jaxpr"]
            return self.run(inner.jaxpr, inner.consts, inputs)
        if not any(isinstance(x, Value) for x in inputs):
            results = equation.primitive.bind(*inputs, **params)
            return [np.asarray(x) for x in (results if equation.primitive.multiple_results else [results])]
        if name not in RULES:
            raise InputError(f"the policy computes '{name}', which an export cannot hold; known: {', '.join(RULES)}")
        results = RULES[name](self, *inputs, **params)
        return results if equation.primitive.multiple_results else [results]


# -- primitives of JAX, as operations ----------------------------------------------------------------------------------


def _ints(values: Sequence[int]) -> list[int]:
    return [int(value) for value in values]


def _reshape(write: Writer, x: Operand, shape: Sequence[int]) -> Operand:
    return x if x.shape == tuple(shape) else write("reshape", x, shape=_ints(shape))


def _transpose(write: Writer, x: Operand, axes: Sequence[int]) -> Operand:
    return x if list(axes) == list(range(x.ndim)) else write("transpose", x, axes=_ints(axes))


def _slice(write: Writer, x: Operand, start: Sequence[int], stop: Sequence[int], step: Sequence[int]) -> Operand:
    if stop == x.shape and not any(start) and all(n == 1 for n in step):
        return x
    return write("slice", x, start=_ints(start), stop=_ints(stop), step=_ints(step))


def _pad(write: Writer, x: Operand, widths: Sequence[Sequence[int]], value: float) -> Operand:
    return write("pad", x, widths=[_ints(pair) for pair in widths], value=value) if any(map(any, widths)) else x


def _padded(write: Writer, x: Operand, value: Operand, *, padding_config: Any) -> Operand:
    if (
        isinstance(value, Value)
        or any(n < 0 for axis in padding_config for n in axis)
        or any(axis[2] for axis in padding_config)
    ):
        raise InputError("the policy pads between elements, or by a result, which an export cannot hold")
    return _pad(write, x, [axis[:2] for axis in padding_config], value.item())


def _broadcast(write: Writer, x: Operand, *_: Any, shape: Any, broadcast_dimensions: Any, **__: Any) -> Operand:
    placed = [1] * len(shape)
    for axis, target in enumerate(broadcast_dimensions):
        placed[target] = x.shape[axis]
    x = _reshape(write, x, placed)
    return x if x.shape == tuple(shape) else write("broadcast", x, shape=_ints(shape))


def _split(write: Writer, x: Operand, *, sizes: Any, axis: int) -> list[Operand]:
    ends = np.cumsum(sizes)
    parts = []
    for size, end in zip(sizes, ends, strict=True):
        start, stop = [0] * x.ndim, list(x.shape)
        start[axis], stop[axis] = end - size, end
        parts.append(_slice(write, x, start, tuple(stop), [1] * x.ndim))
    return parts


def _dot(write: Writer, a: Operand, b: Operand, *, dimension_numbers: Any, **_: Any) -> Operand:
    """`dot_general` as one product of (stacks of) matrices."""
    (inner_a, inner_b), (batch_a, batch_b) = dimension_numbers
    free_a = [axis for axis in range(a.ndim) if axis not in {*inner_a, *batch_a}]
    free_b = [axis for axis in range(b.ndim) if axis not in {*inner_b, *batch_b}]
    batch, inner = [a.shape[axis] for axis in batch_a], math.prod(a.shape[axis] for axis in inner_a)
    rows, columns = [a.shape[axis] for axis in free_a], [b.shape[axis] for axis in free_b]
    a = _reshape(write, _transpose(write, a, [*batch_a, *free_a, *inner_a]), [*batch, math.prod(rows), inner])
    b = _reshape(write, _transpose(write, b, [*batch_b, *inner_b, *free_b]), [*batch, inner, math.prod(columns)])
    return _reshape(write, write("matmul", a, b), [*batch, *rows, *columns])


def _windows(
    write: Writer, x: Operand, size: Sequence[int], steps: Sequence[int], padding: Any, value: float
) -> list[Operand]:
    """What a sliding window sees: for each of its places, row by row, the elements of `x` that come to lie there."""
    x = _pad(write, x, padding, value)
    span = [(n - k) // step * step + 1 for n, k, step in zip(x.shape, size, steps, strict=True)]
    places = itertools.product(*map(range, size))
    return [_slice(write, x, at, tuple(i + n for i, n in zip(at, span, strict=True)), steps) for at in places]


def _pooling(operation: str, empty: float) -> Callable[..., Operand]:
    def pool(
        write: Writer, x: Operand, *, window_dimensions: Any, window_strides: Any, padding: Any, **params: Any
    ) -> Any:
        _refuse_dilation("pooling", params)
        result, *others = _windows(write, x, window_dimensions, window_strides, padding, empty)
        for seen in others:
            result = write(operation, result, seen)
        return result

    return pool


def _convolution(
    write: Writer,
    x: Operand,
    kernel: Operand,
    *,
    window_strides: Any,
    padding: Any,
    dimension_numbers: Any,
    **params: Any,
) -> Operand:
    """A convolution of any layout as one product of patches with the kernel."""
    _refuse_dilation("convolution", params)
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        raise InputError("the policy has a convolution in groups, which an export cannot hold; use a plain one")
    batch, channel, *space = dimension_numbers.lhs_spec
    x = _transpose(write, x, [batch, *space, channel])
    outputs, channel, *space = dimension_numbers.rhs_spec
    kernel = _transpose(write, kernel, [*space, channel, outputs])
    size, steps, widths = [1, *kernel.shape[:-2], 1], [1, *window_strides, 1], [(0, 0), *padding, (0, 0)]
    patches = write("concatenate", *_windows(write, x, size, steps, widths, 0.0), axis=-1)
    result = write("matmul", patches, _reshape(write, kernel, [patches.shape[-1], kernel.shape[-1]]))
    batch, channel, *space = dimension_numbers.out_spec
    return _transpose(write, result, np.argsort([batch, *space, channel]).tolist())


def _refuse_dilation(what: str, params: Mapping[str, Any]) -> None:
    if any(n != 1 for name, value in params.items() if name.endswith("dilation") for n in value):
        raise InputError(f"the policy has a dilated {what}, which an export cannot hold; use a plain one")


def _power(write: Writer, x: Operand, *, y: int, **_: Any) -> Operand:
    return write("power", x, np.asarray(y, x.dtype))


def _reciprocal_root(write: Writer, x: Operand, **_: Any) -> Operand:
    return write("divide", np.ones((), x.dtype), write("sqrt", x))


def _logistic(write: Writer, x: Operand, **_: Any) -> Operand:
    half = np.asarray(0.5, x.dtype)  # ½ (1 + tanh(x / 2)), as exp(−x) may overflow
    return write("add", half, write("multiply", half, write("tanh", write("multiply", half, x))))


def _cast(write: Writer, x: Operand, *, new_dtype: Any, **_: Any) -> Operand:
    return x if x.dtype == new_dtype else write("cast", x, dtype=np.dtype(new_dtype).name)


def _select(write: Writer, which: Operand, *cases: Operand) -> Operand:
    if which.dtype != bool or len(cases) != 2:
        raise InputError("the policy selects between several cases, which an export cannot hold; use jnp.where")
    return write("where", which, cases[1], cases[0])


def _clamp(write: Writer, low: Operand, x: Operand, high: Operand) -> Operand:
    return write("minimum", write("maximum", x, low), high)


def _same(write: Writer, x: Operand, **_: Any) -> Operand:
    return x


def _plain(operation: str) -> Callable[..., Operand]:
    return lambda write, *inputs, **_: write(operation, *inputs)


def _swapped(operation: str) -> Callable[..., Operand]:
    return lambda write, a, b, **_: write(operation, b, a)


CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat", "checkpoint"}
"""Primitives that call a function, which is written out in its place."""

RULES: dict[str, Callable[..., Any]] = {
    **{name: _plain(name) for name in ("exp", "log", "log1p", "sqrt", "tanh", "sin", "cos", "floor", "sign")},
    "add": _plain("add"),
    "sub": _plain("subtract"),
    "mul": _plain("multiply"),
    "div": _plain("divide"),
    "pow": _plain("power"),
    "max": _plain("maximum"),
    "min": _plain("minimum"),
    "neg": _plain("negative"),
    "abs": _plain("absolute"),
    "lt": _plain("less"),
    "gt": _swapped("less"),
    "eq": _plain("equal"),
    "integer_pow": _power,
    "square": lambda write, x, **_: write("multiply", x, x),
    "rsqrt": _reciprocal_root,
    "logistic": _logistic,
    "select_n": _select,
    "clamp": _clamp,
    "stop_gradient": _same,
    "copy": _same,
    "convert_element_type": _cast,
    "reshape": lambda write, x, *, new_sizes, **_: _reshape(write, x, new_sizes),
    "squeeze": lambda write, x, *, dimensions: _reshape(
        write, x, [n for axis, n in enumerate(x.shape) if axis not in dimensions]
    ),
    "expand_dims": lambda write, x, *, dimensions: _reshape(
        write, x, np.expand_dims(np.empty(x.shape), dimensions).shape
    ),
    "transpose": lambda write, x, *, permutation: _transpose(write, x, permutation),
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda write, *parts, dimension: write("concatenate", *parts, axis=int(dimension)),
    "slice": lambda write, x, *, start_indices, limit_indices, strides: _slice(
        write, x, start_indices, tuple(limit_indices), strides or [1] * x.ndim
    ),
    "split": _split,
    "pad": _padded,
    "reduce_sum": lambda write, x, *, axes, **_: write("sum", x, axes=_ints(axes)),
    "reduce_max": lambda write, x, *, axes, **_: write("max", x, axes=_ints(axes)),
    "reduce_window_max": _pooling("maximum", float(np.finfo(np.float32).min)),
    "reduce_window_sum": _pooling("add", 0.0),
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
}
"""Primitive of JAX → how it is written down."""
