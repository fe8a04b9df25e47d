"""Your own environment and your own log: a cart on a rail that must come to rest at its middle.

python -m examples.cart cart.npz                   # records demonstrations
calql data check npz:cart.npz --task examples.cart:task
calql train --task examples.cart:task --data npz:cart.npz --out runs/cart
"""

import sys

import gymnasium
import numpy as np

from calql import Episodes, Rewards, Task
from calql.data.readers.npz import save_npz
from calql.envs.rollout import roll


class Cart(gymnasium.Env):
    """Observation [2]: position and velocity, near ±1; action [1]: force in [−1, 1]; reward −1 until it is there."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None, friction=0.1):
        self.render_mode, self.friction = render_mode, friction

    def reset(self, *, seed=None, options=None):
        """At rest, somewhere on the rail."""
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-1.0, 1.0), 0.0])
        return self.state.astype(np.float32), {"success": False}

    def step(self, action):
        """A tenth of a second; the episode ends in success, and `info["success"]` says so."""
        position, velocity = self.state
        velocity += 0.1 * (float(action[0]) - self.friction * velocity)
        self.state = np.clip([position + 0.1 * velocity, velocity], -2.0, 2.0)
        success = bool(np.abs(self.state).max() < 0.1)
        return self.state.astype(np.float32), float(success) - 1.0, success, False, {"success": success}


def task():
    """All that calql must know: the environment, when episodes are cut, and what rewards mean."""
    rewards = Rewards(low=-1.0, high=0.0, failing=-1.0)
    return Task(id="cart", env=Cart, horizon=100, rewards=rewards, summary="stop in the middle of the rail")


def demonstrations(episodes=50, seed=0):
    """A controller with noise: episodes of it, as `Episodes`."""
    rng, env = np.random.default_rng(seed), Cart()

    def act(observation, before):
        force = -1.5 * observation[0] - 1.5 * observation[1] + rng.normal(0.0, 0.5)
        return np.clip([force], -1.0, 1.0)

    return Episodes(tuple(roll(env, env.reset(seed=seed + i)[0], act, 100) for i in range(episodes)))


if __name__ == "__main__":
    save_npz(demonstrations(), sys.argv[1])
