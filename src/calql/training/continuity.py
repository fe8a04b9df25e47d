"""How fine-tuning continues from what pre-training has learned: the parts of the state at the border of the phases.

Fine-tuning needs all of its parts, in the same shapes. Pre-training may have others besides, such as SMAC's diffusion
model; they are dropped at the border.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from calql.algorithms.protocol import UpdateRule
from calql.types import InputError, PyTree, Spec


def continued(state: PyTree, finetune: UpdateRule, spec: Spec) -> PyTree:
    """The state of the end of pre-training as fine-tuning begins with it, for observations as in `spec`.

    A field of a named tuple is dropped (it becomes None) if it is None in the states of fine-tuning.
    """
    return _without_other_parts(state, _state(finetune, spec))


def refuse_other_state(pretrain: UpdateRule, finetune: UpdateRule, spec: Spec) -> None:
    """Raise InputError unless `continued` makes states of pre-training such as fine-tuning has, in parts and shapes.

    Nothing is computed, and no device is needed.
    """
    before: Any = pretrain  # a dataclass, as every rule is
    wanted = _state(finetune, spec)

    def shapes_of(rule: UpdateRule) -> tuple[Any, list[Any]]:
        return _shapes(_without_other_parts(_state(rule, spec), wanted))

    found = shapes_of(before)
    if found == _shapes(wanted):
        return
    shared = [field.name for field in dataclasses.fields(before) if hasattr(finetune, field.name)]
    after = {name: getattr(finetune, name) for name in shared}
    if shapes_of(dataclasses.replace(before, **after)) != _shapes(wanted):
        names = f"{type(pretrain).__name__} and {type(finetune).__name__}"
        raise InputError(f"{names} have different states, so fine-tuning cannot continue from pre-training")
    told = [
        f"{name} ({getattr(before, name)}, then {value})"
        for name, value in after.items()
        if shapes_of(dataclasses.replace(before, **{name: value})) != found
    ]
    raise InputError(f"fine-tuning continues with the networks of pre-training; set alike in both: {', '.join(told)}")


def _state(rule: UpdateRule, spec: Spec) -> PyTree:
    """The rule's state with the shape and dtype of each array instead of the array."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lambda key: rule.init(key, spec), key)


def _without_other_parts(state: Any, wanted: Any) -> Any:
    """The state without the fields that are None in another state of its type, if that is a named tuple."""
    if type(state) is not type(wanted) or not hasattr(wanted, "_asdict"):
        return state
    return state._replace(**{name: None for name, part in wanted._asdict().items() if part is None})


def _shapes(state: PyTree) -> tuple[Any, list[Any]]:
    """The structure of a state, and shape and dtype of each array."""
    leaves, structure = jax.tree.flatten(state)
    return structure, [(x.shape, x.dtype) for x in leaves]
