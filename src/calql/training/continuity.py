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
    if pretrain == finetune or _state(pretrain, spec) == _state(finetune, spec):
        return
    both = [field.name for field in dataclasses.fields(pretrain) if field.name in dataclasses.asdict(finetune)]
    after = {name: getattr(finetune, name) for name in both}
    if _state(dataclasses.replace(pretrain, **after), spec) != _state(finetune, spec):
        names = f"{type(pretrain).__name__} and {type(finetune).__name__}"
        raise InputError(f"{names} have different states, so fine-tuning cannot continue from pre-training")
    told = [
        f"{name} ({getattr(pretrain, name)}, then {value})"
        for name, value in after.items()
        if _state(dataclasses.replace(pretrain, **{name: value}), spec) != _state(pretrain, spec)
    ]
    raise InputError(f"fine-tuning continues with the networks of pre-training; set alike in both: {', '.join(told)}")


def _state(rule: UpdateRule, spec: Spec) -> tuple[Any, list[Any]]:
    """The structure of the rule's state, and shape and dtype of each array."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda key: rule.init(key, spec), key))
    return structure, [(x.shape, x.dtype) for x in shapes]
