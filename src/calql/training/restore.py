"""From a run directory to a policy that acts, without its data or its optimisers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from calql.algorithms.acting import acting
from calql.envs.make import make_env
from calql.envs.rollout import Act
from calql.tasks import Task
from calql.training import checkpoint
from calql.training.config import resolve_saved
from calql.training.run_dir import RunDir
from calql.types import InputError, Spec


class Policy(NamedTuple):
    """A trained policy."""

    task: Task
    method: str
    step: int
    """Gradient steps it was trained for."""
    acting: Callable[[int], Act]
    """Number of episodes side by side → what acts in them, deterministically."""


def load_policy(path: Path) -> Policy:
    """The policy of the newest complete checkpoint. Raises InputError where there is none."""
    run_dir = RunDir(path)
    config = resolve_saved(run_dir.read_config())
    found, complaints = checkpoint.newest(run_dir.checkpoints)
    if found is None:
        raise InputError(f"{path} has no complete checkpoint yet ({'; '.join(complaints) or 'none was written'})")
    meta = checkpoint.load_meta(found)
    algorithm = config.phases[meta["counters"]["phase"]].algorithm
    env = make_env(config.task)
    example = jax.tree.map(np.zeros_like, env.observation_space.sample())
    spec = Spec(example, env.action_space.shape[0])
    env.close()
    shapes = algorithm.init(jax.random.key(0), spec)
    state = checkpoint.unflatten(shapes, checkpoint.load(found, "state"))
    return Policy(config.task, config.method.title, meta["step"], lambda size: acting(algorithm, spec, state, size))
