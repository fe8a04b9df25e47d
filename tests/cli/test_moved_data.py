"""A run whose data were moved is resumed with the same data elsewhere, and with no others."""

import json

import gymnasium
import numpy as np
import pytest

from calql.cli import main
from calql.tasks import Task

QUICK = ("--scale", "smoke", "--method", "bc", "--set", "offline_steps=10", "eval_every_offline=10", "eval_episodes=1")


class Line(gymnasium.Env):
    """A point on a line."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return np.array([self.x], np.float32), {}

    def step(self, action):
        self.x += 0.1 * float(action[0])
        return np.array([self.x], np.float32), 0.0, False, False, {"success": False}


def task():
    return Task("line", Line, horizon=5)


def log(path, seed=0):
    a = np.random.default_rng(seed).uniform(-1, 1, (30, 1))
    np.savez(path, obs=np.cumsum(a, 0) / 10, action=a, reward=np.zeros(30), terminated=np.zeros(30),
             truncated=np.arange(30) % 6 == 5)  # fmt: skip


def calql(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def test_moved_data(tmp_path, capsys):
    log(tmp_path / "log.npz")
    out = tmp_path / "run"
    train = ("train", "--task", f"{__name__}:task", "--data", f"npz:{tmp_path}/log.npz", *QUICK, "--out", out)
    assert calql(*train) == 0
    (out / "DONE").unlink()  # as if it had been stopped
    (tmp_path / "log.npz").rename(tmp_path / "moved.npz")
    log(tmp_path / "other.npz", seed=1)
    capsys.readouterr()

    assert calql("train", "--resume", "--out", out) == 2
    assert "check the path, or add --data with the new place" in capsys.readouterr().err
    assert calql("train", "--resume", "--out", out, "--data", f"npz:{tmp_path}/other.npz") == 2
    assert "the data of" in capsys.readouterr().err
    assert calql("train", "--resume", "--out", out, "--data", f"npz:{tmp_path}/moved.npz") == 0
    assert json.loads((out / "config.json").read_text())["experiment"]["data"]["uri"] == f"npz:{tmp_path}/moved.npz"
    assert (out / "DONE").exists()
