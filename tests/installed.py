"""What the tests of built packages share: how commands run outside the tree, and a robot's log to train from."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = any((ROOT / "results").rglob("*.png"))
"""Whether this is a checkout: a source distribution has the results, but not their figures."""
OURS = {"PYTHONPATH", "PYTHONHOME", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"}
"""What a user's environment lacks: the tree, and the hurry in which the other tests compile."""
SMALL = ("--scale", "smoke", "--set", "actor_hidden=16", "critic_hidden=16")
"""A run with one layer in each network, as it is compiling that takes the time."""

WITHOUT_CALQL = """
import importlib.util, sys
assert importlib.util.find_spec("calql") is None
import hatchling.build
getattr(hatchling.build, f"build_{sys.argv[1]}")(sys.argv[2])
"""

ROBOT = """
import gymnasium, numpy as np
from calql.rewards import Rewards
from calql.tasks import Task

class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 2)
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x = self.x + 0.3 * action
        success = bool(np.linalg.norm(self.x) < 0.3)
        return self.x.astype(np.float32), float(success) - 1.0, success, False, {"success": success}

def task():
    return Task("reach", Reach, horizon=12, rewards=Rewards(low=-1.0, high=0.0, failing=-1.0))

def record(path):
    env, rng, rows = Reach(), np.random.default_rng(0), []
    for seed in range(20):
        state, _ = env.reset(seed=seed)
        for step in range(12):
            action = np.clip(rng.normal(-state, 0.5), -1, 1)
            following, reward, ended, _, _ = env.step(action)
            rows.append((state, action, reward, ended, step == 11, following))
            state = following
            if ended:
                break
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    np.savez(path, **{name: np.array(column) for name, column in zip(names, zip(*rows))})
"""


def run(*command: object, cwd: Path, code: int = 0, seconds: float = 300, **variables: str) -> str:
    """Run a command as a user would; returns what it printed, or its errors if it is to fail with `code`."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | variables
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stderr if code else done.stdout


def build(kind: str, out: Path, root: Path = ROOT) -> Path:
    """The `wheel` or `sdist` of a source tree, built as on a clean machine: by a process that cannot import calql (-S
    leaves out the path files of the environment, and with them the editable calql)."""
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    run(sys.executable, "-S", "-c", WITHOUT_CALQL, kind, out, cwd=root, **packages)
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def train_from_a_log(calql: Path, python: Path, folder: Path) -> None:
    """From a robot's log to an evaluated policy, outside the tree, with an environment of one's own."""
    (folder / "robot.py").write_text(ROBOT)
    run(python, "-c", "import robot; robot.record('log.npz')", cwd=folder)
    about = ["--task", "robot:task", "--data", "npz:log.npz"]
    assert "success" in run(calql, "data", "check", "npz:log.npz", "--task", "robot:task", cwd=folder)
    run(calql, "train", "--method", "cal-ql", *about, *SMALL, "--out", "run", cwd=folder)
    assert (folder / "run" / "DONE").exists()
    assert "episodes" in run(calql, "eval", "run", "--episodes", "2", cwd=folder)
