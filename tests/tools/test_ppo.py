"""Proximal policy optimisation of the policies that ship: its advantages, and what it changes."""

import sys
from pathlib import Path

import numpy as np

from calql.paper.demonstrators import adroit as builder
from calql.paper.envs import adroit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "make_assets"))
import ppo  # noqa: E402 - a folder of scripts, not a package


def test_advantages_are_discounted_sums_of_errors():
    rng = np.random.default_rng(0)
    rewards, values, over = rng.normal(size=(7, 3)), rng.normal(size=(8, 3)), rng.random((7, 3)) < 0.3
    made = ppo.advantages(rewards, values, over, 0.9, 0.8)
    for n in range(3):
        for t in range(7):
            total, weight = 0.0, 1.0
            for k in range(t, 7):
                following = 0.0 if over[k, n] else values[k + 1, n]
                total += weight * (rewards[k, n] + 0.9 * following - values[k, n])
                if over[k, n]:
                    break
                weight *= 0.9 * 0.8
            np.testing.assert_allclose(made[t, n], total)


def test_success_is_at_a_smaller_distance_than_the_start():
    for hand in adroit.HANDS:
        episode = builder.demonstrate(builder.Recipe(hand), 0, 0)
        distance = ppo.DISTANCE[hand](episode.observations)
        assert distance.min() >= 0
        assert distance[-1] < 0.5 * distance[0]


def test_the_critic_learns_first_and_then_the_policy():
    clone = builder.shipped("pen")
    tiny = ppo.PPO(environments=2, steps=16, batch_size=16, epochs=2, warm_up=1)

    def made(iterations):
        return [made.weights for made, _ in ppo.improve("pen", clone, iterations, 10, options=tiny)][-1]

    for one, other in zip(clone.weights, made(1), strict=True):
        np.testing.assert_array_equal(one, other)
    changed = made(2)
    assert all(not np.array_equal(one, other) for one, other in zip(clone.weights, changed, strict=True))
    for one, other in zip(changed, made(2), strict=True):
        np.testing.assert_array_equal(one, other)
