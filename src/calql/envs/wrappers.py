"""Wrappers of every environment: actions in [−1, 1], and plain values of known types."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

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

    return UnitActions(env, rescale, unit, bounds)


def action_bounds(env: gymnasium.Env) -> ActionBounds | None:
    """Bounds of the environment's actions before `unit_actions` wrapped it (if it did); None if it has none."""
    inner: gymnasium.Env = env
    while isinstance(inner, gymnasium.Wrapper) and not isinstance(inner, UnitActions):
        inner = inner.env
    return ActionBounds.of(inner.env.action_space if isinstance(inner, UnitActions) else env.action_space)


def control_rate(env: gymnasium.Env) -> float | None:
    """Steps per second in Hz that the environment states in `metadata["render_fps"]`; None if it does not.

    Raises InputError if that is no positive number.
    """
    rate = _stated(env).get("render_fps")
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, SupportsFloat) or not 0.0 < float(rate) < math.inf:
        raise InputError(
            f"the environment's metadata['render_fps'] is {rate!r}; let it be its steps per second, or leave it out"
        )
    return float(rate)


def _stated(env: Any) -> Mapping[str, Any]:
    """The environment's metadata; empty for one that has none, or states None."""
    return getattr(env, "metadata", None) or {}


def action_names(env: gymnasium.Env) -> tuple[str, ...] | None:
    """Names of the action's components that the environment states in `metadata["action_names"]`; None if it does not.

    Raises InputError unless there is one text for each.
    """
    names, space = _stated(env).get("action_names"), env.action_space
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names) or (len(names),) != space.shape:
        raise InputError(
            f"the environment's metadata['action_names'] is {names!r}; let it be one text for each of the actions "
            f"{space.shape}, or leave it out"
        )
    return tuple(names)


class UnitActions(gymnasium.wrappers.TransformAction):
    """Maps actions in [−1, 1] to the environment's own bounds, and the executed action in a step's info back."""

    def __init__(
        self, env: gymnasium.Env, rescale: Callable[[np.ndarray], np.ndarray], unit: spaces.Box, bounds: ActionBounds
    ) -> None:
        super().__init__(env, rescale, unit)
        self.bounds = bounds

    def step(self, action: np.ndarray) -> tuple:
        """One step; `info["executed_action"]` (see `calql.envs.executed`) is in [−1, 1], too.

        Where actions are whole numbers, the rounded one was executed; of one beyond [−1, 1], the clipped one.
        """
        own = self.func(action)
        found = self.env.step(own.copy())
        if not (isinstance(found, tuple) and len(found) == 5 and isinstance(found[4], Mapping)):
            return found
        told = found[4].get("executed_action")
        if told is None and (np.issubdtype(own.dtype, np.integer) or (abs(action) > 1.0).any()):
            told = own
        return found if told is None else (*found[:4], {**found[4], "executed_action": self.bounds.to_unit(told)})


def float32_observations(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with observations that networks take: float32 vectors [D] and uint8 images [H, W, C], as one
    array or in a dict.

    What the environment returns is converted and checked: `reset` and `step` raise ValueError, naming the array, if it
    has another shape than the space or is not finite. Raises InputError unless the space is a Box, or a Dict of Boxes,
    of such shapes.
    """
    space = env.observation_space
    found = dict(space) if isinstance(space, spaces.Dict) else {"observation": space}
    leaves = {name: leaf for name, leaf in found.items() if isinstance(leaf, spaces.Box)}
    if not leaves or len(leaves) < len(found):
        raise InputError(f"the observation space is {space}; calql needs a Box, or a Dict of Boxes")
    for name, leaf in leaves.items():
        refuse_shape(f"the environment's '{name}'", leaf.shape, leaf.dtype)
    target = {name: _cast_space(leaf) for name, leaf in leaves.items()}
    if isinstance(space, spaces.Dict):
        return Plain(env, lambda found: _cast_all(found, target), spaces.Dict({**target}))
    box = target["observation"]
    return Plain(env, lambda found: _cast("observation", found, box), box)


class Plain(gymnasium.Wrapper):
    """Converts and checks everything that the environment returns.

    Observations become plain dicts and arrays, the reward a float, both ends bools, and `info["success"]` the success
    signal as a bool, if there is one (`success` or `is_success`). The environment gets actions of its own, which it may
    change. `reset` and `step` raise ValueError, naming the value, if one has another shape or is not finite.
    """

    def __init__(self, env: gymnasium.Env, convert: Callable[[Any], Any], space: spaces.Space) -> None:
        super().__init__(env)
        self.convert, self.observation_space = convert, space

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """The first observation, converted, and the environment's info."""
        found = self.env.reset(**options)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise ValueError("reset() must return (observation, info)")
        return self.convert(found[0]), found[1]

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        """One step, converted."""
        found = self.env.step(np.array(action))
        if not (isinstance(found, tuple) and len(found) == 5 and isinstance(found[4], Mapping)):
            raise ValueError("step() must return (observation, reward, terminated, truncated, info), info a dict")
        observation, paid, terminated, truncated, info = found
        reward, signal = float(_one("the reward", paid)), success_of(info)
        if not abs(reward) <= LARGEST:
            raise ValueError(f"the reward is {reward}")
        info = info if signal is None else {**info, "success": signal}
        ends = _flag("terminated", terminated), _flag("truncated", truncated)
        return self.convert(observation), reward, *ends, info

    def close(self) -> None:
        """Close the environment; one that cannot be closed gives a warning, as what was done with it stays."""
        try:
            super().close()
        except Exception as error:
            warnings.warn(f"the environment failed to close ({type(error).__name__}: {error})", stacklevel=2)


LARGEST = float(np.finfo(np.float32).max)
"""Numbers beyond are infinite in float32."""
SUCCESS = ("success", "is_success")
"""Keys of a step's info that may hold the success signal; the first that is there counts."""


def success_of(info: Mapping[str, Any]) -> bool | None:
    """The success signal in a step's info; None if there is none. Raises ValueError unless it is true or false."""
    for name in SUCCESS:
        if info.get(name) is not None:
            return _flag(f"info['{name}']", info[name])
    return None


def _flag(what: str, value: Any) -> bool:
    """The single flag in a value. Raises ValueError unless it is true or false, 1 or 0."""
    flag = _one(what, value)
    if flag not in (0, 1):
        raise ValueError(f"{what} is {flag}; it must be true or false")
    return bool(flag)


def _one(what: str, value: Any) -> Any:
    """The single number or flag in a value. Raises ValueError if there is none, or are several."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        shown = f"shape {array.shape}" if array.dtype.kind in "biuf" else f"type {type(value).__name__}"
        raise ValueError(f"{what} has {shown}; it must be one number")
    return array.reshape(())[()]


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
    try:
        array = np.asarray(found)
    except ValueError as error:
        raise ValueError(f"'{name}' does not hold numbers of one shape ({error})") from error
    if array.shape != box.shape:
        raise ValueError(f"'{name}' has shape {array.shape}, its space {box.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"'{name}' holds no numbers (dtype {array.dtype})")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is reported as infinite
        cast = array.astype(box.dtype, copy=False)
    if box.dtype == np.float32 and not np.isfinite(cast).all():
        raise ValueError(f"'{name}' is not finite")
    if box.dtype == np.uint8 and not np.array_equal(cast, array):
        raise ValueError(f"'{name}' holds {array.dtype} numbers that are not 0 to 255, its space is of bytes")
    return cast
