"""Wrappers of every environment: float32 observations, and actions in [−1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from calql.types import InputError
from calql.units import ActionBounds


def unit_actions(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with action space Box(−1, 1, [A], float32). Raises InputError unless its own is a finite Box."""
    space = env.action_space
    if not isinstance(space, spaces.Box):
        raise InputError(f"the action space is {space}; calql needs continuous actions: a Box with finite bounds")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise InputError(f"the action space {space} is unbounded; give the environment finite action bounds")
    if len(space.shape) != 1:
        raise InputError(f"the action space {space} has shape {space.shape}; flatten the actions to one axis")
    unit = spaces.Box(-1.0, 1.0, space.shape, np.float32)
    if space == unit:
        return env
    bounds = ActionBounds(space.low, space.high)

    def rescale(action: np.ndarray) -> np.ndarray:
        own = bounds.from_unit(action)
        own = np.rint(own) if np.issubdtype(space.dtype, np.integer) else own
        return np.clip(own.astype(space.dtype), space.low, space.high)

    return UnitActions(env, rescale, unit)


def action_bounds(env: gymnasium.Env) -> ActionBounds | None:
    """Bounds of the environment's actions before `unit_actions` wrapped it (if it did); None if it has none."""
    inner: gymnasium.Env = env
    while isinstance(inner, gymnasium.Wrapper) and not isinstance(inner, UnitActions):
        inner = inner.env
    return ActionBounds.of(inner.env.action_space if isinstance(inner, UnitActions) else env.action_space)


class UnitActions(gymnasium.wrappers.TransformAction):
    """Maps actions in [−1, 1] to the environment's own bounds."""


def float32_observations(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with observations that networks take: float32 vectors [D] and uint8 images [H, W, C], as one
    array or in a dict.

    What the environment returns is converted and checked: `reset` and `step` raise ValueError, naming the array, if it
    has another shape than the space or is not finite. Raises InputError unless the space is a Box, or a Dict of Boxes,
    of such shapes.
    """
    space = env.observation_space
    leaves = dict(space) if isinstance(space, spaces.Dict) else {"observation": space}
    if not (leaves and all(isinstance(leaf, spaces.Box) for leaf in leaves.values())):
        raise InputError(f"the observation space is {space}; calql needs a Box, or a Dict of Boxes")
    for name, leaf in leaves.items():
        refuse_shape(f"the environment's '{name}'", leaf.shape, leaf.dtype)
    target = {name: _cast_space(leaf) for name, leaf in leaves.items()}
    if isinstance(space, spaces.Dict):
        return PlainObservation(env, lambda found: _cast_all(found, target), spaces.Dict(target))
    box = target["observation"]
    return PlainObservation(env, lambda found: _cast("observation", found, box), box)


class PlainObservation(gymnasium.wrappers.TransformObservation):
    """Converts observations to plain dicts and arrays, and checks them."""


def refuse_shape(what: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise InputError, naming the fix, unless an array is a float vector [D] or a uint8 image [H, W, C]."""
    if dtype == np.uint8:
        fix = {
            2: "add an axis for the one channel: [H, W, 1]",
            4: "join the images of a stack along their channels: [H, W, C]",
        }.get(len(shape), "bytes are images [H, W, C]; make numbers float32, in the data and in the environment")
        if len(shape) != 3:
            raise InputError(f"{what} has bytes of shape {shape}; {fix}")
    elif len(shape) != 1:
        raise InputError(f"{what} has shape {shape}; flatten it to one axis [D], in the data and in the environment")


def _cast_space(box: spaces.Box) -> spaces.Box:
    if box.dtype in (np.float32, np.uint8):
        return box
    with np.errstate(over="ignore"):  # bounds that float32 cannot hold become infinite
        return spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)


def _cast_all(found: Any, target: dict[str, spaces.Box]) -> dict[str, np.ndarray]:
    if not isinstance(found, Mapping) or not target.keys() <= found.keys():
        there = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"the observation has {there}, its space {', '.join(target)}")
    return {name: _cast(name, found[name], box) for name, box in target.items()}


def _cast(name: str, found: Any, box: spaces.Box) -> np.ndarray:
    with np.errstate(over="ignore"):  # reported as infinite
        array = np.asarray(found, box.dtype)
    if array.shape != box.shape:
        raise ValueError(f"'{name}' has shape {array.shape}, its space {box.shape}")
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise ValueError(f"'{name}' is not finite")
    return array
