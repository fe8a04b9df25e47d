"""A task and its data, for real commands whose runs last long enough to be stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TASK = """
import gymnasium
import numpy as np
from calql.tasks import Task

class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.x += 0.1 * float(action[0])
        won = self.x > 0.5
        return np.array([self.x], np.float32), float(won), won, False, {"success": won}

def task():
    return Task(id="line", env=Line, horizon=20, data=None)
"""
LONG = ("--data", "npz:data.npz", "--scale", "smoke", "--set", "offline_steps=400000", "eval_every_offline=4000",
        "eval_episodes=1", "checkpoint_every=1000")  # fmt: skip


def write_files(tmp_path: Path) -> None:
    """Write lines.py, which has the task, and data.npz."""
    rng, steps = np.random.default_rng(0), np.arange(200)
    np.savez(
        tmp_path / "data.npz",
        observations=rng.normal(size=(200, 1)).astype(np.float32),
        actions=rng.uniform(-1, 1, (200, 1)).astype(np.float32),
        rewards=(steps % 20 == 19).astype(np.float32),
        terminals=steps % 20 == 19,
        timeouts=np.zeros(200, bool),
    )
    (tmp_path / "lines.py").write_text(TASK)


def saved(run) -> list[str]:
    return sorted(path.name for path in run.glob("checkpoints/step-*"))
