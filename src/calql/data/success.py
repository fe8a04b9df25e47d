"""Success in recordings, and cutting recordings that continue after the task's end."""

from __future__ import annotations

import dataclasses

import numpy as np

from calql.data.arrays import part
from calql.data.episodes import Episodes
from calql.rewards import Rewards
from calql.types import Episode, InputError


def success_steps(episode: Episode, rewards: Rewards) -> np.ndarray:
    """[T] bool: the recorded signal, or else what follows from the rewards (see `Rewards.successes`).

    Raises InputError if neither tells.
    """
    found = episode.successes if episode.successes is not None else rewards.successes(episode.rewards)
    if found is None:
        raise InputError(
            "no success signal was recorded, and the rewards do not show success; record it, or state the "
            "task's rewards.failing or rewards.high"
        )
    return found


def knows_success(episodes: Episodes, rewards: Rewards) -> bool:
    """Whether `success_steps` is known for every episode."""
    told = rewards.failing is not None or rewards.high is not None
    return told or all(episode.successes is not None for episode in episodes.episodes)


def goes_on_after_success(episode: Episode, rewards: Rewards) -> bool:
    """Whether any success is not a termination. Raises InputError if success is unknown."""
    return bool((success_steps(episode, rewards) & ~episode.terminations).any())


def end_at_success(episodes: Episodes, rewards: Rewards, *, last: bool = False, keep_failures: bool = True) -> Episodes:
    """Every episode cut after its first (or `last`) success, with every success a termination.

    `last=True, keep_failures=False` is the official release's processing of the Adroit data (`nakamotoo/Cal-QL`,
    `get_hand_dataset_with_mc_calculation`). Raises InputError if nothing remains, or success is unknown.
    """
    cut = []
    for episode in episodes.episodes:
        wins = success_steps(episode, rewards)
        if wins.any():
            steps = np.flatnonzero(wins)[-1 if last else 0] + 1
            cut.append(part(episode, 0, steps)._replace(terminations=wins[:steps], truncated=False))
        elif keep_failures:
            cut.append(episode)
    if not cut:
        raise InputError(f"{episodes.uri}: no episode has a success; keep the failures, or get better data")
    lost = episodes.num_transitions - sum(e.length for e in cut)
    note = (
        f"episodes were cut after their {'last' if last else 'first'} success, and every success is a termination "
        f"({episodes.num_episodes - len(cut)} episodes without success and {lost} transitions in all were dropped)"
    )
    return dataclasses.replace(episodes, episodes=tuple(cut), notes=(*episodes.notes, note))


def split_at_terminations(episode: Episode) -> list[Episode]:
    """The parts of an episode that end in a termination, and the rest, as if each had been recorded on its own.

    So a recording that continues after the goal becomes what D4RL's flat files are read as: a way there, one-step
    episodes for as long as it stays, and a way onwards.
    """
    ends = (np.flatnonzero(episode.terminations[:-1]) + 1).tolist()
    return [part(episode, start, stop) for start, stop in zip([0, *ends], [*ends, episode.length], strict=True)]
