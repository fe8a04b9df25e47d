"""Acts with a policy that `calql export` wrote as an .npz file. Needs NumPy only, and may be copied anywhere.

    policy = NumpyPolicy("policy.npz")
    action = policy.act(observation)        # as the environment gives it → [A] in the environment's own unit

The file holds the policy as a list of operations on arrays; `policy.contract` says what goes in and what comes out.
"""

from __future__ import annotations

import json

import numpy as np

OPERATIONS = {
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")},
    **{name: getattr(np, name) for name in ("negative", "absolute", "sign", "exp", "log", "log1p", "sqrt", "tanh")},
    **{name: getattr(np, name) for name in ("sin", "cos", "floor", "less", "equal", "where", "matmul")},
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.transpose(axes),
    "broadcast": lambda x, shape: np.broadcast_to(x, shape),
    "concatenate": lambda *parts, axis: np.concatenate(parts, axis),
    "slice": lambda x, start, stop, step: x[tuple(map(slice, start, stop, step))],
    "pad": lambda x, widths, value: np.pad(x, widths, constant_values=value),
    "sum": lambda x, axes: x.sum(tuple(axes)),
    "max": lambda x, axes: x.max(tuple(axes)),
    "cast": lambda x, dtype: x.astype(dtype),
}


def inputs_of(contract, observation):
    """{name: array} of an observation, in the contract's order. Raises ValueError if the policy takes others."""
    given = {}
    for wanted in contract["observations"]["arrays"]:
        value, name = observation, wanted["name"]
        for key in wanted["path"]:
            if not hasattr(value, "keys") or key not in value:
                raise ValueError(f"the observation has no '{name}'; give what the policy was trained on")
            value = value[key]
        if hasattr(value, "keys"):
            raise ValueError(f"'{name}' holds {', '.join(map(str, value))}; give an array")
        value = np.asarray(value)
        if list(value.shape) != wanted["shape"] or (wanted["dtype"] == "uint8") != (value.dtype == np.uint8):
            found = f"{value.dtype}{list(value.shape)}"
            raise ValueError(f"'{name}' is {found}; give {wanted['dtype']}{wanted['shape']}, as the environment does")
        given[name] = np.ascontiguousarray(value, wanted["dtype"])
    return given


def finite(action):
    """The action. Raises ValueError if it is not finite, as after an observation with NaN: no robot may follow it."""
    if not np.isfinite(action).all():
        raise ValueError("the action is not finite; check the observation for NaN and infinite values")
    return action


class NumpyPolicy:
    """A deterministic policy; actions are within the bounds of the contract."""

    def __init__(self, path):
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            self._constants = {name: file[name] for name in file.files}
        self.contract = json.loads(self._constants.pop("contract").item())
        program = json.loads(self._constants.pop("program").item())
        self._steps = [(OPERATIONS[name], inputs, out, options) for name, inputs, out, options in program["operations"]]
        self._output = program["output"]

    def act(self, observation):
        """The action [A] float32 for one observation. Raises ValueError if one of the two cannot be used."""
        values = self._constants | inputs_of(self.contract, observation)
        with np.errstate(all="ignore"):  # what matters is checked below
            for operation, inputs, out, options in self._steps:
                values[out] = operation(*[values[name] for name in inputs], **options)
        return finite(values[self._output])
