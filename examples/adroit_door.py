"""Your own task in one file: the Adroit door, from human demonstrations to a fine-tuned policy.

    calql data check d4rl:door.hdf5 --task examples.adroit_door:task
    calql train --task examples.adroit_door:task --method cal-ql --data d4rl:door.hdf5 --out runs/door

`door.hdf5` is any recording in D4RL's flat layout with 39-dimensional observations and 28-dimensional actions.
"""

import gymnasium
import gymnasium_robotics

from calql.rewards import Rewards
from calql.tasks import Task


class BinaryReward(gymnasium.Wrapper):
    """Reward −1 until the door is open (hinge at 1.35 rad or more), 0 from then on."""

    def step(self, action):
        """As the wrapped environment, with reward success − 1."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(info["success"]) - 1.0, terminated, truncated, info


def make(render_mode=None):
    """The door environment of Gymnasium-Robotics, without its own time limit."""
    gymnasium.register_envs(gymnasium_robotics)
    return BinaryReward(gymnasium.make("AdroitHandDoorSparse-v1", render_mode=render_mode).unwrapped)


def task():
    """The row that would stand in the task table: rewards −5/+5, horizon 200, episodes end at the first success."""
    return Task(
        id="adroit-door",
        summary="open a door with a 24-joint hand",
        env=make,
        horizon=200,
        rewards=Rewards(scale=10.0, bias=5.0, low=-1.0, high=0.0, failing=-1.0),
        stop_at_success=True,
    )
