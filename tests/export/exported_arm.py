"""A joint that is driven by torques of −2 to 2 N·m and 0 to 10 N, its data, and runs that were saved before training."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np

from calql.data.episodes import Episodes
from calql.tasks import Task
from calql.training.options import experiment
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.training.state import Training
from calql.types import Episode

HORIZON = 12
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)


class Arm(gymnasium.Env):
    """Observations are of float64, as many environments give them."""

    metadata = {"render_fps": 50, "action_names": ["torque", "force"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gymnasium.spaces.Box(LOW, HIGH, dtype=np.float32)

    def __init__(self, render_mode=None, ends_at: int = 0, taken_over_at: int = -1):
        self.ends_at, self.taken_over_at = ends_at, taken_over_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.x = 0, self.np_random.normal(size=2)
        return self.seen(), {}

    def seen(self):
        return np.array([*self.x, self.count / HORIZON])

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        self.x = self.x + 0.1 * np.asarray(action, np.float64)
        info = {"success": bool(self.count == self.ends_at)}
        if self.count == self.taken_over_at:
            info |= {"intervention": True, "intervene_action": np.array([1.5, 9.0])}
        return self.seen(), float(-abs(self.x[0])), self.count == self.ends_at, False, info


class Keyed(gymnasium.ObservationWrapper):
    """The same with a camera, in a dict whose keys are not in the order of the alphabet."""

    observation_space = gymnasium.spaces.Dict(
        state=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
        camera=gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8),
    )

    def observation(self, observation):
        camera = np.full((8, 8, 3), int(20 * abs(observation[0])) % 256, np.uint8)
        camera[: self.unwrapped.count % 8] = 255
        return {"state": observation, "camera": camera}


def keyed(render_mode=None):
    """The factory of the second environment."""
    return Keyed(Arm())


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
    "states": Task(id="arm", env="exported_arm:Arm", horizon=HORIZON, data="exported_arm:recorded#states"),
    "images": Task(id="seen-arm", env="exported_arm:keyed", horizon=HORIZON, data="exported_arm:recorded#images"),
}


def saved_run(folder: Path, method: str = "cal-ql", kind: str = "states", uri: str | None = None, **options) -> Path:
    """A run that has saved its networks and has not trained; by default with small ones that do act."""
    small = dict(actor_hidden=(8,), output_gain=1.0)
    run = experiment(TASKS[kind], method, "smoke", data=uri, options=small | options)
    data, run_dir = Episodes(tuple(recorded(kind)), run.data.uri), RunDir(folder)
    run_dir.create(new_record(run, data, {}))
    Training(run, data, run_dir).save(milestone=True)
    return folder
