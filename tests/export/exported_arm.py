"""Data of the arm, and runs that were saved before any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from arm import HIGH, HORIZON, LOW, Arm, keyed

from calql.data.episodes import Episodes
from calql.tasks import Task
from calql.training.options import experiment
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.training.state import Training
from calql.types import Episode


def recorded(kind: str = "states") -> list[Episode]:
    """The reader of `exported_arm:recorded#KIND`."""
    rng, episodes = np.random.default_rng(0), []
    env = keyed() if kind == "images" else Arm()
    for seed in range(4):
        seen = [env.reset(seed=seed)[0]]
        actions = rng.uniform(-1, 1, (HORIZON, 2)).astype(np.float32)
        rewards = []
        for action in actions:
            observation, reward, *_ = env.step(LOW + (action + 1) / 2 * (HIGH - LOW))
            seen.append(observation)
            rewards.append(reward)
        states = {k: np.stack([o[k] for o in seen]) for k in seen[0]} if kind == "images" else np.stack(seen)
        episodes.append(Episode(states, actions, np.float32(rewards), np.zeros(HORIZON, bool), True))
    return episodes


TASKS = {
    "states": Task(id="arm", env="arm:Arm", horizon=HORIZON, data="exported_arm:recorded#states"),
    "images": Task(id="seen-arm", env="arm:keyed", horizon=HORIZON, data="exported_arm:recorded#images"),
}


def saved_run(folder: Path, method: str = "cal-ql", kind: str = "states", uri: str | None = None, **options) -> Path:
    """A run that has saved its networks and has not trained; by default with small ones that do act."""
    small = dict(actor_hidden=(8,), output_gain=1.0, action_unit="unit")
    run = experiment(TASKS[kind], method, "smoke", data=uri, options=small | options)
    data, run_dir = Episodes(tuple(recorded(kind)), run.data.uri), RunDir(folder)
    run_dir.create(new_record(run, data, {}))
    Training(run, data, run_dir).save(milestone=True)
    return folder
