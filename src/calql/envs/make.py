"""Makes the environment of a task in the form that the learner needs."""

from __future__ import annotations

import gymnasium

from calql.envs.headless import headless_gl
from calql.envs.wrappers import float32_observations, unit_actions
from calql.extras import missing
from calql.tasks import Task
from calql.types import InputError


def make_env(task: Task, render_mode: str | None = None) -> gymnasium.Env:
    """The task's environment: float32 (or uint8) observations, actions in [−1, 1], raw rewards.

    With a `render_mode` one frame is rendered, so that a missing GL library is found here and not after training.
    Raises InputError if the environment cannot be made, rendered or used.
    """
    try:
        factory = task.factory()
        if render_mode is None:
            env = factory(**task.env_options)
        else:
            headless_gl()
            env = factory(render_mode=render_mode, **task.env_options)
            env.reset(seed=0)
            env.render()
    except InputError:
        raise
    except Exception as error:
        if (lacks := missing(f"the environment of '{task.id}'", error)) is not None:
            raise lacks from error
        fix = "check its packages with `calql doctor`"
        if render_mode is not None:
            fix = "set MUJOCO_GL to egl or osmesa (libegl1 or libosmesa6 must be installed), or train without video"
        raise InputError(f"cannot make the environment of '{task.id}': {error}; {fix}") from error
    return float32_observations(unit_actions(env))
