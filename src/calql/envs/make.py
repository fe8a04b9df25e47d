"""Makes the environment of a task in the form that the learner needs."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium

from calql.envs.executed import executing
from calql.envs.headless import headless_gl
from calql.envs.wrappers import float32_observations, unit_actions
from calql.extras import missing
from calql.tasks import Task
from calql.types import InputError

RENDERING = (
    "if it renders with MuJoCo, set MUJOCO_GL to egl or osmesa (libegl1 or libosmesa6 must be installed), or leave the "
    "video out"
)
"""What to do about an environment that cannot be rendered."""


def make_env(task: Task, render_mode: str | None = None) -> gymnasium.Env:
    """The task's environment: float32 (or uint8) observations, actions in [−1, 1], raw rewards.

    The task's limits are held directly around the machine's own environment, and its `before_episode` is called before
    every reset (`calql.envs.executed`).

    Raises InputError if the environment cannot be made or used.
    """
    factory = None
    try:
        factory = task.factory()
        if render_mode is None:
            env = factory(**task.env_options)
        else:
            headless_gl()
            env = factory(render_mode=render_mode, **task.env_options)
    except InputError:
        raise
    except Exception as error:
        if (lacks := missing(f"the environment of '{task.id}'", error)) is not None:
            raise lacks from error
        fix = "fix its factory, or what the environment needs" if render_mode is None else RENDERING
        if render_mode is not None and not _takes(factory, render_mode=render_mode, **task.env_options):
            fix = "let its factory take a render_mode, or leave the video out"
        raise InputError(f"cannot make the environment of '{task.id}': {reason(error)}; {fix}") from error
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise InputError(
            f"the factory of '{task.id}' made {env.num_envs} at once ({type(env).__name__}); let it return "
            "one, as gymnasium.make does"
        )
    if not isinstance(env, gymnasium.Env):
        raise InputError(f"the factory of '{task.id}' made a {type(env).__name__}; it must return a gymnasium.Env")
    env = executing(env, task.limits, task.before_episode)
    return float32_observations(unit_actions(env))


def _takes(factory: Any, **options: Any) -> bool:
    """Whether a function or class can be called with these arguments; true where nobody knows."""
    try:
        inspect.signature(factory).bind(**options)
    except TypeError:
        return not callable(factory)
    except ValueError:  # as of some functions in C
        return True
    return True


def reason(error: BaseException) -> str:
    """The type and the text of an exception, which may be empty."""
    return f"{type(error).__name__}: {error}".rstrip(" :")


def registered(id: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """The environment of a Gymnasium id, e.g. `Pendulum-v1`."""
    return gymnasium.make(id, render_mode=render_mode, **options)


def horizon_of(env: Any) -> int | None:
    """The time limit of an environment, from its registration or from a TimeLimit around it; None without one."""
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    while limit is None and isinstance(env, gymnasium.Wrapper):
        limit = getattr(env, "_max_episode_steps", None)
        env = env.env
    return limit
