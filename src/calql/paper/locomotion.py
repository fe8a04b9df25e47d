"""Tasks of Gymnasium's registered environments, scored by D4RL's reference returns where these are known."""

from __future__ import annotations

from calql.tasks import Task
from calql.types import InputError

D4RL_RETURNS = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}
"""Gymnasium's environment → returns of a random policy and of an expert, which score 0 and 1 in D4RL
(`Farama-Foundation/D4RL:d4rl/infos.py`)."""


def registered(name: str) -> Task:
    """The task of a Gymnasium id; scored by returns where D4RL's are known. Raises InputError for an unknown id."""
    import gymnasium

    try:
        spec = gymnasium.spec(name)
    except Exception as error:  # unknown name or version, a module that cannot be imported
        why = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"'{name}' is no Gymnasium id ({why}); correct it, or name package.module:factory") from error
    if spec.max_episode_steps is None:
        raise InputError(f"'{name}' has no time limit; make a calql.tasks.Task with a horizon (see docs/extend.md)")
    known = D4RL_RETURNS.get(spec.name)
    return Task(
        id=name,
        env="calql.envs.make:registered",
        env_options={"id": name},
        horizon=spec.max_episode_steps,
        score="success" if known is None else "return",
        score_range=known,
        summary="a Gymnasium environment",
    )
