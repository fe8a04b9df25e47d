"""Whether fine-tuning can continue from what pre-training has learned."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from calql.algorithms.protocol import UpdateRule
from calql.types import InputError, Spec


def refuse_other_state(pretrain: UpdateRule, finetune: UpdateRule, spec: Spec) -> None:
    """Raise InputError unless both rules have states of the same parts and shapes, for observations as in `spec`.

    Nothing is computed, and no device is needed.
    """
    before: Any = pretrain  # a dataclass, as every rule is
    state, wanted = _state(before, spec), _state(finetune, spec)
    if state == wanted:
        return
    shared = [field.name for field in dataclasses.fields(before) if hasattr(finetune, field.name)]
    after = {name: getattr(finetune, name) for name in shared}
    if _state(dataclasses.replace(before, **after), spec) != wanted:
        names = f"{type(pretrain).__name__} and {type(finetune).__name__}"
        raise InputError(f"{names} have different states, so fine-tuning cannot continue from pre-training")
    told = [
        f"{name} ({getattr(before, name)}, then {value})"
        for name, value in after.items()
        if _state(dataclasses.replace(before, **{name: value}), spec) != state
    ]
    raise InputError(f"fine-tuning continues with the networks of pre-training; set alike in both: {', '.join(told)}")


def _state(rule: UpdateRule, spec: Spec) -> tuple[Any, list[Any]]:
    """The structure of the rule's state, and shape and dtype of each array."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda key: rule.init(key, spec), key))
    return structure, [(x.shape, x.dtype) for x in shapes]
