"""Rollouts of a policy: one episode to learn from, or many in parallel to evaluate it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from calql.tasks import Task
from calql.types import Episode, InputError, PyTree, map_leaves

Act = Callable[[PyTree, np.ndarray, np.ndarray], np.ndarray]
"""(observations [B, …], steps [B], rewards [B]) → actions [B, A]. Steps (int32) count from 0 in every episode; rewards
(float32) are the mapped rewards of the previous step, 0 at the first."""


class Outcome(NamedTuple):
    """Result of one evaluation episode."""

    score: float | None
    """By the task's score rule; None if it is not measured, because no success signal came in any of the episodes."""
    total_reward: float
    """Undiscounted sum of mapped rewards."""
    length: int


def score_of(task: Task, rewards: Sequence[float], successes: Sequence[bool | None]) -> float:
    """Score of one episode from its raw rewards and success signals (Appendix H.1); a step without one has none.

    Raises InputError if the last reward is outside the range that `last_reward/N` states.
    """
    if task.score == "return":
        assert task.score_range is not None  # as checked when the run was defined
        low, high = task.score_range
        return float((np.sum(rewards) - low) / (high - low))
    if task.score == "success":
        return float(any(successes))
    if task.score == "speed":
        return 1.0 - list(successes).index(True) / task.horizon if any(successes) else 0.0
    rule, _, goal = task.score.partition("/")
    if rule != "last_reward":
        raise ValueError(f"unknown score rule '{task.score}'")
    if not 0.0 <= rewards[-1] <= float(goal):
        raise InputError(
            f"the last reward of an episode is {rewards[-1]:g}, outside [0, {goal}] as score={task.score} needs it; "
            "choose another score: --set score=return score_range=LOW,HIGH (raw returns that score 0 and 1)"
        )
    return float(rewards[-1]) / float(goal)


BY_SUCCESS = ("success", "speed")
"""The score rules that need a success signal."""


class Step(NamedTuple):
    """Result of one environment step: state s′, raw reward, ends, and `info["success"]` (None if there is none)."""

    observation: PyTree
    reward: float
    terminated: bool
    truncated: bool
    success: bool | None


def roll(
    env: gym.Env,
    observation: PyTree,
    act: Callable[[PyTree, Step | None], np.ndarray | None],
    horizon: int,
    over: Callable[[Step], bool] = lambda step: step.terminated or step.truncated,
) -> Episode:
    """One episode of an environment that has just been reset, with raw rewards. All rollouts use this loop.

    Its actions are those that were executed: `info["executed_action"]` where that is told, as after limits or a
    person's action (see `calql.envs.executed`). Where `info["intervention"]` is true, a person acted.

    Args:
        env: the environment.
        observation: what its `reset` returned.
        act: (observation, previous step or None at the start) → action [A] for the next step; None ends the episode.
        horizon: maximum number of steps.
        over: whether the episode ends with a step.
    """
    # Copies: an environment may return the same array again with new contents.
    observations, actions, steps = [map_leaves(np.copy, observation)], [], []
    acted: list[bool | None] = []
    step: Step | None = None
    while len(steps) < horizon and (action := act(observation, step)) is not None:
        observation, reward, terminated, truncated, info = env.step(action)
        signal = info.get("success")
        won = None if signal is None else bool(signal)
        step = Step(observation, float(reward), bool(terminated), bool(truncated), won)
        observations.append(map_leaves(np.copy, observation))
        actions.append(action if (executed := info.get("executed_action")) is None else executed)
        acted.append(info.get("intervention"))
        steps.append(step)
        if over(step):
            break
    terminations = np.array([step.terminated for step in steps])
    known = any(step.success is not None for step in steps)
    return Episode(
        observations=map_leaves(lambda *x: np.stack(x), *observations),
        actions=np.asarray(actions, np.float32),
        rewards=np.array([step.reward for step in steps], np.float32),
        terminations=terminations,
        truncated=not terminations[-1],
        successes=np.array([bool(step.success) for step in steps]) if known else None,
        interventions=None if all(person is None for person in acted) else np.array(acted, bool),
    )


def ending_at_success(episode: Episode) -> Episode:
    """The episode with a termination at every success."""
    if episode.successes is None:
        return episode
    terminations = episode.terminations | episode.successes
    return episode._replace(terminations=terminations, truncated=not terminations[-1])


def collect_episode(env: gym.Env, task: Task, act: Act, seed: int) -> Episode:
    """One complete episode, truncated at the task's horizon; terminates at the first success if the task says so."""
    observation, _ = env.reset(seed=seed)
    count = itertools.count()

    def act_once(observation: PyTree, previous: Step | None) -> np.ndarray:
        reward = 0.0 if previous is None else task.rewards.map(previous.reward)
        batch = map_leaves(lambda x: x[None], observation)
        return act(batch, np.array([next(count)], np.int32), np.array([reward], np.float32))[0]

    def over(step: Step) -> bool:
        return step.terminated or step.truncated or (task.stop_at_success and bool(step.success))

    episode = roll(env, observation, act_once, task.horizon, over)
    return ending_at_success(episode) if task.stop_at_success else episode


def evaluate(envs: Sequence[gym.Env], task: Task, act: Act, seeds: Sequence[int]) -> list[Outcome]:
    """One episode per seed, stepped in parallel in `envs` so that the policy runs on batches.

    An environment whose episode is over starts the next seed at once; `act` always sees len(envs) rows.
    """
    waiting = list(enumerate(seeds))[::-1]
    over: dict[int, dict[str, Any]] = {}
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
    assert running[0]
    blank = running[0]["observation"]
    while any(running):
        batch = [episode["observation"] if episode else blank for episode in running]
        past = [episode["rewards"] if episode else [] for episode in running]
        steps = np.array([len(rewards) for rewards in past], np.int32)
        last = np.array([task.rewards.map(rewards[-1]) if rewards else 0.0 for rewards in past], np.float32)
        actions = act(map_leaves(lambda *x: np.stack(x), *batch), steps, last)
        for slot, episode in enumerate(running):
            if not episode:
                continue
            episode["observation"], reward, terminated, truncated, info = envs[slot].step(actions[slot])
            episode["rewards"].append(float(reward))
            episode["successes"].append(info.get("success"))
            done = terminated or truncated or (task.stop_at_success and episode["successes"][-1])
            if done or len(episode["rewards"]) == task.horizon:
                over[episode["index"]] = episode
                start(slot)
    told = any(signal is not None for episode in over.values() for signal in episode["successes"])
    scored = told or task.score not in BY_SUCCESS
    return [
        Outcome(
            score_of(task, over[i]["rewards"], over[i]["successes"]) if scored else None,
            float(sum(task.rewards.map(r) for r in over[i]["rewards"])),
            len(over[i]["rewards"]),
        )
        for i in range(len(seeds))
    ]
