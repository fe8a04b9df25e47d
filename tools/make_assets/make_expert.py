"""Trains a demonstrator of a task of the hand in the simulator: SAC on the planner's cost, helped by its 25
demonstrations, as D4RL's experts were trained by reinforcement learning on shaped rewards.

python tools/make_assets/make_expert.py HAND --out FOLDER [--steps 100000] [--seed 0]

Run again to continue. The policy of the best evaluation becomes the hand's `expert.safetensors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import jax
import numpy as np
import tyro
from make_adroit import PLANNING_STEPS
from planning import PROBLEMS

import calql
from calql.data.episodes import Episodes
from calql.envs.rollout import roll
from calql.paper.demonstrators.adroit import asset, demonstrations
from calql.paper.demonstrators.clone import Clone
from calql.paper.envs import adroit
from calql.tasks import Task
from calql.types import Episode

COST_UNIT = 8.0
"""Divisor of the planner's cost, which brings rewards to about [−2, 1]."""


class Now:
    """The environment's current state as the planner's costs read it (`planning.States`): one plan of one step."""

    def __init__(self, env: adroit.Adroit):
        self._data, self._problem = env.simulation.data, PROBLEMS[env.hand]
        self.qpos = self._data.qpos[None, None]

    def point(self, name: str) -> np.ndarray:
        """[1, 1, 3] position of a site or body."""
        body = name in self._problem.bodies
        return (self._data.body(name).xpos if body else self._data.site(name).xpos)[None, None]


class Shaped(gym.Wrapper):
    """The task with the planner's cost, negated, as the reward; it never terminates."""

    env: adroit.Adroit

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """A step of the task."""
        observation, _, terminated, truncated, info = self.env.step(action)
        cost = PROBLEMS[self.env.hand].cost(Now(self.env))  # pyright: ignore[reportArgumentType]
        return observation, -float(cost[0, 0]) / COST_UNIT, terminated, truncated, info


def make(hand: str, render_mode: str | None = None) -> Shaped:
    """The shaped environment."""
    return Shaped(adroit.make(hand, render_mode))


def task_of(hand: str) -> Task:
    """The shaped task; its score is the success of the true one."""
    return Task(id=f"expert-{hand}", env="make_expert:make", env_options={"hand": hand}, horizon=PLANNING_STEPS[hand])


def demonstrated(hand: str) -> Episodes:
    """The planner's demonstrations, with shaped rewards."""
    env, made = make(hand), []
    for shown in demonstrations(hand):
        observation, _ = env.reset(seed=shown.seed)
        actions = iter(shown.actions)
        episode = roll(env, observation, lambda *_: next(actions, None), len(shown.actions))  # noqa: B023
        made.append(cut(episode))
    return Episodes(tuple(made), f"demonstrations:{hand}")


def cut(episode: Episode) -> Episode:
    """The episode as a part of a longer one: neither success nor its end is terminal."""
    return episode._replace(terminations=np.zeros(episode.length, bool), truncated=True)


def exported(policy: calql.Policy) -> Clone:
    """The mean of a tanh-Gaussian policy as a network that needs NumPy alone."""
    layers = jax.tree.map(np.asarray, policy.state.actor)["mlp"]
    names = [*sorted((name for name in layers if name != "output"), key=lambda name: int(name.split("_")[1])), "output"]
    weights, biases = ([layers[name][part] for name in names] for part in ("kernel", "bias"))
    actions = biases[-1].shape[0] // 2  # the rest are log standard deviations
    weights[-1], biases[-1] = weights[-1][:, :actions], biases[-1][:actions]
    inputs = weights[0].shape[0]
    return Clone(np.zeros(inputs, np.float32), np.ones(inputs, np.float32), tuple(weights), tuple(biases))


def main(
    hand: Annotated[Literal["pen", "door", "relocate"], tyro.conf.Positional],
    out: Path,
    steps: int = 100_000,
    seed: int = 0,
    options: tuple[str, ...] = (),
) -> None:
    """Train the hand's expert and save it.

    Args:
        hand: the hand.
        out: the run directory; run the command again to continue.
        steps: steps in the environment.
        seed: seed of all random numbers.
        options: options of the run that differ, as NAME=VALUE.
    """
    chosen: dict[str, Any] = dict(
        online_steps=steps,
        eval_every_online=5_000,
        checkpoint_every=5_000,
        eval_episodes=50,
        replay_capacity=steps,
        actor_hidden=(256, 256),
        critic_hidden=(256, 256),
        critic_layer_norm=True,
        batch_size=256,
        actor_lr=3e-4,
        critic_lr=3e-4,
        discount=0.97,
        num_target_actions=1,
        target_entropy_per_action=0.5,
        mixing=0.25,
    )
    chosen |= dict(text.split("=", 1) for text in options)
    run = calql.experiment(task_of(hand), "hybrid", "laptop", seed, options=chosen)
    for event in calql.events(run, out, demonstrated(hand), resume=True):
        if event.kind == "evaluation":
            print(f"{event.step} steps: success {event.info['score_mean']:.2f}", flush=True)
    exported(calql.load_policy(out, "best")).save(asset(hand, "expert.safetensors"))


if __name__ == "__main__":
    tyro.cli(main)
