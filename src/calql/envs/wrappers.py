"""Wrappers of every environment: float32 observations, and actions in [−1, 1]."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces

from calql.types import InputError, map_leaves


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

    def rescale(action: np.ndarray) -> np.ndarray:
        action = space.low + (np.asarray(action, np.float64) + 1.0) * 0.5 * (space.high.astype(np.float64) - space.low)
        return np.clip(action, space.low, space.high).astype(space.dtype)

    return UnitActions(env, rescale, unit)


def action_bounds(env: gymnasium.Env) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) action [A] that the environment took before `unit_actions` wrapped it (if it did)."""
    inner: gymnasium.Env = env
    while isinstance(inner, gymnasium.Wrapper) and not isinstance(inner, UnitActions):
        inner = inner.env
    space = inner.env.action_space if isinstance(inner, UnitActions) else env.action_space
    assert isinstance(space, spaces.Box)
    return space.low, space.high


class UnitActions(gymnasium.wrappers.TransformAction):
    """Maps actions in [−1, 1] to the environment's own bounds."""


def float32_observations(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with float32 observations (uint8 images stay uint8): an array or a flat dict.

    Raises InputError unless the observation space is a Box or a Dict of Boxes.
    """
    space = env.observation_space
    leaves = list(space.values()) if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(leaf, spaces.Box) for leaf in leaves):
        raise InputError(f"the observation space is {space}; calql needs a Box, or a Dict of Boxes")
    if all(leaf.dtype in (np.float32, np.uint8) for leaf in leaves):
        return env

    def cast(leaf: np.ndarray) -> np.ndarray:
        return leaf if leaf.dtype == np.uint8 else np.asarray(leaf, np.float32)

    def cast_space(box: spaces.Box) -> spaces.Box:
        return box if box.dtype == np.uint8 else spaces.Box(cast(box.low), cast(box.high), dtype=np.float32)

    target = map_leaves(cast_space, space)
    if isinstance(target, dict):
        target = spaces.Dict(target)
    return gymnasium.wrappers.TransformObservation(env, lambda observation: map_leaves(cast, observation), target)
