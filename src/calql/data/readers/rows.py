"""Flat recordings, one row per step, cut into episodes: shared by the D4RL and the npz reader.

A row is terminal (the task ended), a time-out (the time limit cut the episode), both or neither. Rows rarely hold their
next observation. If they do not, it is that of the following row, as in the official AntMaze loader, and the last
row of an episode that was cut gives only its observation: the state after that action was not recorded. The
state after a terminal has no value, so a terminal row is always a transition: at a time-out and at the end of
the file, too, where the official loader drops it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from calql.data.arrays import named_leaves, nest, numbers
from calql.data.episodes import Episodes
from calql.types import Episode, InputError, PyTree, map_leaves

REQUIRED = ("observations", "actions", "rewards", "terminals")
COLUMNS = ("rewards", "terminals", "timeouts", "successes", "episode_ends")


def known(name: str) -> bool:
    """Whether an array of that name is read."""
    return name.split("/")[0] in {*REQUIRED, *COLUMNS, "next_observations"}


def episodes_from_rows(arrays: Mapping[str, np.ndarray], uri: str, *, drop_unfinished: bool = True) -> Episodes:
    """Cut N rows at terminals and time-outs.

    Args:
        arrays: `observations` [N, …] (or `observations/KEY`), `actions` [N, A], `rewards` [N], `terminals` [N], and
            optionally `timeouts` [N], `next_observations` like `observations`, `successes` [N], and `episode_ends` [N]
            (then only it marks the ends of episodes; terminals may lie inside an episode).
        uri: where the rows come from.
        drop_unfinished: leave out rows after the last end, if the recording has `timeouts` and no `next_observations`.

    Raises:
        InputError: an array is missing, is not numbers, has another number of rows, or contradicts another.
    """
    for name in REQUIRED:
        if name not in arrays and (name != "observations" or nest(arrays, name) is None):
            there = ", ".join(sorted(arrays)) or "nothing"
            raise InputError(f"{uri}: there is no array '{name}' (found: {there}); name the arrays {REQUIRED}")
    count = int(np.size(arrays["rewards"]))
    if count == 0:
        raise InputError(f"{uri}: it has no rows; record or download it again")
    flat = {name: _column(uri, name, arrays, count) for name in COLUMNS}
    rewards, terminals, timeouts = flat["rewards"], flat["terminals"], flat["timeouts"]
    assert rewards is not None  # as every array of REQUIRED
    assert terminals is not None
    terminals = terminals > 0
    actions = numbers(uri, "actions", arrays["actions"], count, axes=2, finite=False)
    states = _states(uri, "observations", arrays, count)
    following = _states(uri, "next_observations", arrays, count)

    marks = terminals if timeouts is None else terminals | (timeouts > 0)
    ends = np.flatnonzero(marks if flat["episode_ends"] is None else flat["episode_ends"] > 0)
    unfinished = count - 1 - (ends[-1] if ends.size else -1)
    if unfinished:
        ends = np.append(ends, count - 1)
    starts = np.append(0, ends[:-1] + 1)
    if following is not None:
        refuse_gaps(uri, states, following, ends, "mark its end in 'timeouts', or leave 'next_observations' out")

    episodes, notes = [], []
    if timeouts is None:
        notes.append("there is no array 'timeouts': episodes end at terminals and at the end of the recording")
    elif unfinished and following is None and drop_unfinished:
        starts, ends = starts[:-1], ends[:-1]
        notes.append(f"the last {unfinished} rows were dropped: they end neither in a terminal nor in a time-out")
    headless = singles = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        terminal = bool(terminals[end])
        whole = terminal or following is not None
        stop = end + 1 if whole else end
        headless += not whole
        singles += terminal and stop - start == 1
        if stop > start:
            steps = slice(start, stop)
            cut = not terminal or (timeouts is not None and timeouts[end] > 0)
            wins = None if flat["successes"] is None else flat["successes"][steps] > 0
            path = _path(states, following, start, stop)
            episodes.append(Episode(path, actions[steps], rewards[steps], terminals[steps], bool(cut), wins))
    if headless:
        notes.append(f"{headless} rows at the ends of cut episodes gave only the last observation, no transition")
    if singles:
        notes.append(
            f"{singles} episodes have one step, which is terminal (kept; relabelled recordings have them where success "
            "lasts)"
        )
    return Episodes(tuple(episodes), uri, tuple(notes))


def _column(uri: str, name: str, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """An [N] or [N, 1] array as [N]; None if it is optional and absent."""
    if name not in arrays:
        return None
    value = np.asarray(arrays[name])
    value = value[:, 0] if value.shape == (count, 1) else value
    return numbers(uri, name, value, count, axes=1, finite=name != "rewards")  # rewards: checked per episode later


def _states(uri: str, name: str, arrays: Mapping[str, np.ndarray], count: int) -> PyTree | None:
    """An array or nested dicts of arrays with N rows; None if nothing has that name."""
    found = (key for key in arrays if key.split("/")[0] == name)
    return nest({key: numbers(uri, key, arrays[key], count, finite=False) for key in found}, name)


def _path(states: PyTree, following: PyTree | None, start: int, stop: int) -> PyTree:
    """[stop − start + 1, …] states before and after the steps start … stop − 1.

    The state after a terminal step is masked, so any state will do: the following row, or the row itself at the end.
    """
    if following is not None:
        return map_leaves(lambda x, y: np.concatenate([x[start:stop], y[stop - 1 : stop]]), states, following)
    return map_leaves(lambda x: x[start : stop + 1] if stop < len(x) else np.concatenate([x[start:], x[-1:]]), states)


def refuse_gaps(uri: str, states: PyTree, following: PyTree, ends: np.ndarray, fix: str) -> None:
    """Raise InputError if a next observation [N, …] within an episode is not the following row, or is of another shape.

    `ends` are the rows at which episodes end; rows after the last of them are ignored. `fix` is for the message.
    """
    inside = np.setdiff1d(np.arange(ends[-1]), ends)
    leaves, others = [*named_leaves("observations", states)], [*named_leaves("observations", following)]
    if [(name, x.shape) for name, x in leaves] != [(name, x.shape) for name, x in others]:
        raise InputError(f"{uri}: 'next_observations' must have the keys and shapes of 'observations'; fix it")
    for (name, now), (_, then) in zip(leaves, others, strict=True):
        same = np.isclose(then[inside], now[inside + 1], rtol=1e-4, atol=1e-4, equal_nan=True)
        gaps = inside[~same.all(axis=tuple(range(1, same.ndim)))]
        if gaps.size:
            raise InputError(
                f"{uri}: the next observation of row {gaps[0]} is not '{name}' of row {gaps[0] + 1}, yet no "
                f"episode ends there; {fix}"
            )
