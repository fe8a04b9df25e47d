"""Rolling out a policy: one episode to learn from, or many at once to measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import jax
import numpy as np

from calql.extras import needed_for
from calql.tasks import Task
from calql.types import Episode, PyTree

Act = Callable[[PyTree, np.ndarray, np.ndarray], np.ndarray]
"""(observations [B, …], steps [B], rewards [B]) → actions [B, A]. Steps (int32) count from 0 in every episode; rewards
(float32) are what the step before paid, mapped, 0 at the first."""


class Outcome(NamedTuple):
    """What one evaluation episode came to."""

    score: float
    """In [0, 1], by the task's score rule."""
    total_reward: float
    """Undiscounted sum of mapped rewards."""
    length: int
    """Steps."""


def score_of(task: Task, rewards: Sequence[float], successes: Sequence[bool]) -> float:
    """Score of one episode from its raw rewards and success flags (Appendix H.1)."""
    if task.score == "success":
        return float(any(successes))
    if task.score == "speed":
        return 1.0 - list(successes).index(True) / task.horizon if any(successes) else 0.0
    rule, _, goal = task.score.partition("/")
    if rule != "last_reward":
        raise ValueError(f"unknown score rule '{task.score}'")
    return float(rewards[-1]) / float(goal)


def collect_episode(env: gym.Env, task: Task, act: Act, seed: int) -> Episode:
    """One whole episode, cut at the task's horizon; ends at the first success where the task says so."""
    observation, _ = env.reset(seed=seed)
    # Copies: an environment may hand out the same array again, filled anew.
    observations, actions, rewards, terminations, successes = [jax.tree.map(np.copy, observation)], [], [], [], []
    for step in range(task.horizon):
        last = np.float32(task.rewards.map(rewards[-1]) if rewards else 0.0)
        action = act(jax.tree.map(lambda x: x[None], observation), np.array([step], np.int32), last[None])[0]
        observation, reward, terminated, truncated, info = env.step(action)
        success = bool(info.get("success", False))
        observations.append(jax.tree.map(np.copy, observation))
        actions.append(action)
        rewards.append(reward)
        successes.append(success)
        terminations.append(bool(terminated) or (task.stop_at_success and success))
        if terminations[-1] or truncated:
            break
    return Episode(
        jax.tree.map(lambda *x: np.stack(x), *observations),
        np.asarray(actions, np.float32),
        np.asarray(rewards, np.float32),
        np.asarray(terminations),
        not terminations[-1],
        np.asarray(successes),
    )


def evaluate(envs: Sequence[gym.Env], task: Task, act: Act, seeds: Sequence[int]) -> list[Outcome]:
    """One episode for each seed, stepped side by side in `envs` so that the policy runs on batches.

    An environment whose episode is over starts the next seed at once; `act` always sees len(envs) rows.
    """
    waiting = list(enumerate(seeds))[::-1]
    outcomes: list[Outcome | None] = [None] * len(seeds)
    running: list[dict[str, Any] | None] = [None] * len(envs)

    def start(slot: int) -> None:
        if not waiting:
            running[slot] = None
            return
        index, seed = waiting.pop()
        observation, _ = envs[slot].reset(seed=seed)
        running[slot] = dict(index=index, observation=observation, rewards=[], successes=[])

    for slot in range(len(envs)):
        start(slot)
    blank = running[0]["observation"]
    while any(running):
        batch = [episode["observation"] if episode else blank for episode in running]
        paid = [episode["rewards"] if episode else [] for episode in running]
        steps = np.array([len(rewards) for rewards in paid], np.int32)
        last = np.array([task.rewards.map(rewards[-1]) if rewards else 0.0 for rewards in paid], np.float32)
        actions = act(jax.tree.map(lambda *x: np.stack(x), *batch), steps, last)
        for slot, episode in enumerate(running):
            if not episode:
                continue
            episode["observation"], reward, terminated, truncated, info = envs[slot].step(actions[slot])
            episode["rewards"].append(float(reward))
            episode["successes"].append(bool(info.get("success", False)))
            done = terminated or truncated or (task.stop_at_success and episode["successes"][-1])
            if done or len(episode["rewards"]) == task.horizon:
                outcomes[episode["index"]] = Outcome(
                    score_of(task, episode["rewards"], episode["successes"]),
                    float(sum(task.rewards.map(r) for r in episode["rewards"])),
                    len(episode["rewards"]),
                )
                start(slot)
    return outcomes


def film(env: gym.Env, task: Task, act: Act, seed: int, path: Path) -> None:
    """One episode as an MP4 file; `env` must render rgb_array. Raises InputError without the [video] extra."""
    with needed_for("filming"):
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 (the codec that imageio looks for)
    path.parent.mkdir(parents=True, exist_ok=True)
    with imageio.get_writer(path, fps=env.metadata.get("render_fps", 10), macro_block_size=1) as writer:

        def act_and_film(*seen: Any) -> np.ndarray:
            writer.append_data(env.render())
            return act(*seen)

        collect_episode(env, task, act_and_film, seed)
        writer.append_data(env.render())
    env.close()
