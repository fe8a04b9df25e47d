"""A robot of one's own: an arm with two joints, driven by torques of −2 to 2 N·m, 50 times per second.

python -m examples.arm log.csv 60                  # a controller moves the arm; a logger writes what it sees
calql data check csv:log.csv --task examples.arm:make
"""

import csv
import sys

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from calql import Rewards, Task


class Arm(gymnasium.Env):
    """`joints`: angles in rad and speeds in rad/s; `goal`: angles in rad; the arm must come to rest there."""

    metadata = {"render_fps": 50, "action_names": ["shoulder torque", "elbow torque"]}  # noqa: RUF012
    observation_space = Dict(joints=Box(-20.0, 20.0, (4,), np.float64), goal=Box(0.2, 0.8, (2,), np.float64))
    action_space = Box(-2.0, 2.0, (2,), np.float32)  # N·m

    def reset(self, *, seed=None, options=None):
        """At rest and upright, with a new goal."""
        super().reset(seed=seed)
        self.joints, self.goal = np.zeros(4), self.np_random.uniform(0.2, 0.8, 2)
        return {"joints": self.joints, "goal": self.goal}, {}

    def step(self, action):
        """A fiftieth of a second; the reward is −1 until the arm is at rest (0.3 rad/s) at the goal (0.05 rad)."""
        angles, speeds = self.joints[:2], self.joints[2:]
        torque = np.asarray(action, np.float64) + 0.5 * np.sin(angles) - 0.1 * speeds  # gravity tips it over
        speeds = np.clip(speeds + 0.02 * torque / [0.2, 0.1], -20, 20)
        self.joints = np.concatenate([np.clip(angles + 0.02 * speeds, -3, 3), speeds])
        there = bool(abs(self.joints[:2] - self.goal).max() < 0.05 and abs(speeds).max() < 0.3)
        return {"joints": self.joints, "goal": self.goal}, float(there) - 1.0, there, False, {"is_success": there}


def make():
    """All that calql must know: the robot, when an attempt is over, and what rewards mean."""
    small = dict(offline_steps=4_000, online_steps=2_000, batch_size=64, actor_hidden=(64, 64), critic_hidden=(64, 64))
    small |= dict(actor_lr=3e-4, tau=0.02, discount=0.97, normalise_observations=True)
    small |= dict(eval_envs=1, eval_from="training")  # it exists once, and episodes take their time
    return Task("arm", Arm, horizon=75, rewards=Rewards(low=-1.0, high=0.0, failing=-1.0), scales={"laptop": small})


def record(path, episodes):
    """Attempts of a controller that trembles, and may be too weak; a row per step, as a robot's logger writes them."""
    rng, env, joints = np.random.default_rng(0), Arm(), ("shoulder", "elbow")
    head = [f"observation.joints.{name}{what}" for what in ("", "_speed") for name in joints]
    head += [f"observation.goal.{name}" for name in joints] + [f"action.{name}" for name in joints]
    with open(path, "w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["episode", *head, "reward", "terminated", "truncated", "success", "motor_temperature"])
        for number in range(episodes):
            seen, over, stiffness = env.reset(seed=number)[0], False, rng.uniform(0.5, 6.0)
            for step in range(75):
                angles, speeds = seen["joints"][:2], seen["joints"][2:]
                wanted = stiffness * (seen["goal"] - angles) - 0.5 * np.sin(angles) - 0.6 * speeds
                torque, before = np.clip(wanted + rng.normal(0, 0.3, 2), -2, 2), seen
                seen, reward, over, _, info = env.step(torque)
                end = [over, step == 74 and not over, info["is_success"], 30.0 + 0.1 * step]
                log.writerow([number, *before["joints"], *before["goal"], *torque, reward, *end])
                if over:
                    break


if __name__ == "__main__":
    record(sys.argv[1], int(sys.argv[2]))
