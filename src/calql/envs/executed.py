"""What an environment executes: limits directly around the machine, a hook before every reset, and whose action it was.

The order, from the machine outwards: its own environment, `Limited`, the user's other wrappers (such as one by which a
person takes over), `Executed`, `BeforeEpisode`. So neither policy nor person gets past the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from calql.limits import Limiter, Limits
from calql.tasks import load_attribute
from calql.types import InputError
from calql.units import ActionBounds

BEYOND = 1e-3
"""Share of a bound by which a person's action may lie beyond it; it is clipped."""


def executing(env: gymnasium.Env, limits: Limits, before_episode: str | None) -> gymnasium.Env:
    """The user's environment, whose executed actions are limited and told, and with a hook before every reset.

    Raises InputError if the limits do not fit the machine, or if the hook cannot be imported.
    """
    limited = None
    if limits != Limits() and isinstance(env.action_space, spaces.Box):  # other spaces are refused elsewhere
        env, limited = hold(env, limits)
    env = Executed(env, limited)
    return env if before_episode is None else BeforeEpisode(env, load_attribute(before_episode))


def hold(env: gymnasium.Env, limits: Limits) -> tuple[gymnasium.Env, Limited]:
    """The environment with `Limited` inserted directly around the machine's own one, inside all other wrappers.

    Raises InputError if the limits do not fit, or if the wrappers take actions of another space than the machine.
    """
    machine, outer = env, None
    while isinstance(machine, gymnasium.Wrapper):
        machine, outer = machine.env, machine
    if machine.action_space != env.action_space:
        raise InputError(
            f"limits are held at the machine itself, whose actions are {machine.action_space}, and a wrapper around it "
            f"takes {env.action_space}; leave that wrapper out: calql converts units by itself"
        )
    limited = Limited(machine, limits)
    if outer is None:
        return limited, limited
    outer.env = limited
    return env, limited


class Limited(gymnasium.Wrapper):
    """Gives the machine the nearest action within the limits; every other wrapper is around this one."""

    def __init__(self, env: gymnasium.Env, limits: Limits) -> None:
        super().__init__(env)
        space = env.action_space
        assert isinstance(space, spaces.Box)
        self.limiter = Limiter(limits, space.low, space.high)
        self.asked: np.ndarray | None = None
        self.executed: np.ndarray | None = None

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """Reset the machine; the next change is measured from the action at rest."""
        self.limiter.begin()
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple:
        """Step the machine. Raises ValueError if the action is not [A] finite numbers."""
        self.asked, self.executed = np.array(action, np.float64), self.limiter(action)
        return self.env.step(self.executed.copy())


class Executed(gymnasium.Wrapper):
    """Tells in every step's info what was executed, where it was another action than the given one, and by whom.

    `info["executed_action"]`: [A], or None if it was the given action. `info["intervention"]` (bool) is there if the
    environment tells it, or a person's `intervene_action`. Where `limited` was stepped several times, its last
    action counts. `step` raises ValueError if the environment contradicts itself.
    """

    def __init__(self, env: gymnasium.Env, limited: Limited | None = None) -> None:
        super().__init__(env)
        self.limited, self.bounds = limited, ActionBounds.of(env.action_space)

    def step(self, action: np.ndarray) -> tuple:
        """One step."""
        if self.limited is not None:
            self.limited.asked = self.limited.executed = None
        given = np.array(action)  # the environment may change what it gets
        found = self.env.step(action)
        if not (isinstance(found, tuple) and len(found) == 5 and isinstance(found[4], Mapping)):
            return found
        info = dict(found[4])
        taken, told = info.get("intervene_action"), info.get("intervention")
        if told is not None:
            if np.size(told) != 1:
                raise ValueError(f"info['intervention'] has shape {np.shape(told)}; it must be one value")
            told = bool(np.reshape(told, ()))
        if told and taken is None:
            raise ValueError("info['intervention'] is true; tell the action that was executed in 'intervene_action'")
        executed = None if taken is None else self._persons(taken, given.shape)
        if self.limited is not None:
            executed = self._limited(given if executed is None else executed, executed)
        if told is not None or taken is not None:
            info["intervention"] = taken is not None if told is None else told
        return *found[:4], {**info, "executed_action": executed}

    def _persons(self, taken: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A person's action, within the bounds."""
        try:
            action = np.asarray(taken, np.float64)
        except (TypeError, ValueError):
            action = np.empty(0)
        if action.shape != shape or not np.isfinite(action).all():
            raise ValueError(f"info['intervene_action'] is {taken}; it must be {shape[0]} finite numbers")
        if self.bounds is None:
            return action
        if (self.bounds.beyond(action) > BEYOND).any():
            raise ValueError(f"info['intervene_action'] is {taken}, outside {self.bounds}")
        return np.clip(action, self.bounds.low, self.bounds.high)

    def _limited(self, given: np.ndarray, taken: np.ndarray | None) -> np.ndarray | None:
        """What the limits made of the action of the policy or the person; None if it was the policy's own."""
        assert self.limited is not None
        asked, executed = self.limited.asked, self.limited.executed
        if asked is None or executed is None:
            raise ValueError("the machine was not stepped through its limits: a wrapper keeps it by itself")
        scale = np.maximum(abs(self.limited.limiter.low), abs(self.limited.limiter.high))
        if (abs(asked - given) > BEYOND * np.maximum(scale, abs(given))).any():
            raise ValueError(
                f"the machine was asked for {asked}, and not for {given}: a wrapper that changes actions must tell the "
                "executed one in info['intervene_action'], and none may convert them"
            )
        return None if taken is None and np.array_equal(asked, executed) else executed.astype(np.float64)


class BeforeEpisode(gymnasium.Wrapper):
    """Calls a function with the environment before every reset, such as `calql.envs.operator.wait_for_enter`."""

    def __init__(self, env: gymnasium.Env, function: Callable[[gymnasium.Env], object]) -> None:
        super().__init__(env)
        self.function = function

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """Call the function, then reset."""
        self.function(self.env)
        return self.env.reset(**options)


def is_machine(env: Any) -> bool:
    """Whether the task states limits or a hook: then nothing may be tried in the environment on the side."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Limited | BeforeEpisode):
            return True
        env = env.env
    return False
