"""A joint driven by −2 to 2 N·m and 0 to 10 N."""

from __future__ import annotations

import gymnasium
import numpy as np

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
