"""Flat recordings, one row per step, cut into episodes: shared by all readers of files with rows.

A row is terminal (the task ended), a time-out (the time limit cut the episode), both or neither. Rows rarely hold their
next observation. If they do not, it is that of the following row, as in the official AntMaze loader, and the last
row of an episode that was cut gives only its observation: the state after that action was not recorded. The
state after a terminal has no value, so a terminal row is always a transition: at a time-out and at the end of
the file, too, where the official loader drops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from calql.data.arrays import named_leaves, nest, numbers
from calql.data.episodes import Episodes
from calql.data.readers.names import found, refuse_nested_twice, unused_note
from calql.types import Episode, InputError, PyTree, map_leaves

REQUIRED = ("observations", "actions", "rewards", "terminals")
FLAGS = ("terminals", "timeouts", "dones", "masks", "valids", "successes", "interventions", "episode_ends")


def episodes_from_rows(
    arrays: Mapping[str, np.ndarray],
    uri: str,
    *,
    unused: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
    told: Iterable[str] = (),
    drop_unfinished: bool = False,
    demonstrations: bool = False,
    last_succeeds: bool = False,
    stated: Mapping[str, Any] | None = None,
) -> Episodes:
    """Cut N rows into episodes.

    Args:
        arrays: by our names (see `calql.data.readers.names`): `observations` [N, …] (or `observations/KEY`), `actions`
            [N, A], `rewards` [N], `terminals` [N], and optionally `next_observations` like `observations`, and
            columns [N] of 0 and 1: `timeouts`; `successes`; `interventions`; `dones`, ends of either kind;
            `episode_ends`, `valids`, or `episodes`, which may hold any numbers (then only they mark the ends of
            episodes; terminals may lie inside an episode); `masks` (then they tell the terminals, and `terminals` the
            ends of episodes, as in OGBench). Successes stand in for missing rewards.
        uri: where the rows come from.
        unused: names of other arrays in the file, for messages and a note.
        names: {our name: the file's}, for messages, where they differ.
        told: notes on how the arrays were read.
        drop_unfinished: leave out rows after the last end, if the recording has `timeouts` and no `next_observations`.
        demonstrations: terminals need not be recorded. They are where `dones` is set (and the step succeeded, if
            successes were recorded), or without `dones` where the last step of an episode succeeded.
        last_succeeds: the last step of every episode is a success, which nothing in the file tells: it is terminal and
            pays 1, and all others 0, where terminals and rewards were not recorded.
        stated: what the file says of the machine: `bounds`, `rate` and `action_names` as in `Episodes`.

    Raises:
        InputError: an array is missing, is not numbers, has another number of rows, or contradicts another; or there
            is no complete episode.
    """
    refuse_nested_twice(uri, arrays)
    own = dict(names or {})
    file = ({own.get(name, name) for name in arrays}, tuple(unused))
    for name in ("observations", "actions"):
        if name not in arrays and nest(arrays, name) is None:
            raise _missing(uri, name, file)
    first = np.asarray(arrays.get("rewards", arrays["actions"]))
    count = len(first) if first.ndim else 1
    if count == 0:
        raise InputError(f"{uri}: it has no rows; record or download it again")
    rewards = _column(uri, "rewards", arrays, count)
    flags = {name: _flags(uri, name, arrays, count, own.get(name, name)) for name in FLAGS}
    notes = [*told, *unused_note(file[1])]
    if last_succeeds and flags["successes"] is not None:
        raise InputError(f"{uri}: the successes were recorded; leave #success=last out")
    if rewards is None and not last_succeeds:
        if flags["successes"] is None:
            raise _missing(uri, "rewards", file)
        rewards = flags["successes"].astype(np.float32)
        notes.append("no rewards were recorded: each recorded success pays 1, every other step 0")
    actions = numbers(uri, "actions", arrays["actions"], count, axes=2, finite=False)
    states = _states(uri, "observations", arrays, count)
    following = _states(uri, "next_observations", arrays, count)

    numbered = _ends_of_runs(uri, arrays, count)
    marks = _marks(uri, flags, own, numbered, demonstrations, last_succeeds)
    if marks is None:
        raise _missing(uri, "terminals", file, own.get("dones", "dones") if "dones" in arrays else None)
    notes += marks.notes
    terminals, ends = marks.terminals, np.flatnonzero(marks.ends)
    unfinished = count - 1 - (ends[-1] if ends.size else -1)
    if unfinished:
        ends = np.append(ends, count - 1)
    starts = np.append(0, ends[:-1] + 1)
    if following is not None:
        refuse_gaps(uri, states, following, ends, "mark its end in 'timeouts', or leave 'next_observations' out")

    timeouts = flags["timeouts"]
    if timeouts is None and not marks.exact:
        notes.append("there is no array 'timeouts': episodes end at terminals and at the end of the recording")
    elif unfinished and following is None and drop_unfinished:
        starts, ends = starts[:-1], ends[:-1]
        notes.append(f"the last {unfinished} rows were dropped: they end neither in a terminal nor in a time-out")
    best = np.zeros(count, bool) if rewards is None else (rewards == rewards.max()) & (rewards.max() > rewards.min())
    best = best if flags["successes"] is None else best | flags["successes"]
    episodes: list[Episode] = []
    headless = singles = won = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        terminal = last_succeeds if terminals is None else bool(terminals[end])
        whole = (terminal or following is not None) and (flags["valids"] is None or bool(flags["valids"][end]))
        stop = end + 1 if whole else end
        headless += not whole
        won += not whole and bool(best[end])
        singles += terminal and stop - start == 1
        if stop > start:
            steps = slice(start, stop)
            last = np.arange(start, stop) == stop - 1
            wins = last if last_succeeds else None if flags["successes"] is None else flags["successes"][steps]
            paid = last.astype(np.float32) if rewards is None else rewards[steps]
            cut = not terminal or not whole or (timeouts is not None and bool(timeouts[end]))
            path = _path(states, following, start, stop)
            over = last if terminals is None else terminals[steps]
            acted = None if flags["interventions"] is None else flags["interventions"][steps]
            episodes.append(Episode(path, actions[steps], paid, over, bool(cut), wins, acted))
    if headless:
        lost = f" ({won} of them with a success or the highest reward)" if won else ""
        notes.append(f"{headless} rows at the ends of cut episodes gave only the last observation, no transition{lost}")
    if singles:
        notes.append(
            f"{singles} episodes have one step, which is terminal (kept; relabelled recordings have them where success "
            "lasts)"
        )
    if not episodes:
        told = "".join(f"; {note}" for note in notes)
        raise InputError(
            f"{uri}: there is no complete episode{told}; mark ends of episodes in 'terminals' or 'timeouts'"
        )
    return Episodes(tuple(episodes), uri, tuple(notes), **(stated or {}))


def ends_in_success(uri: str, options: Mapping[str, str | int]) -> bool:
    """Whether `#success=last` was given. Raises InputError for another value."""
    value = options.get("success")
    if value not in (None, "last"):
        raise InputError(f"{uri}: success can only be 'last' (every episode ends in success), not '{value}'")
    return value == "last"


def _missing(uri: str, name: str, file: tuple[Iterable[str], Iterable[str]], dones: str | None = None) -> InputError:
    """The error for an array that is not there, with all names that are, and how to get what is missing."""
    fix = f"name the arrays {REQUIRED}"
    if name == "rewards":
        fix = "record them, or 'successes'; if every episode ends in success, add #success=last"
    elif dones is not None:
        fix = (
            f"'{dones}' does not tell whether the task ended or was cut: rename it to 'terminals' if the task ended at "
            "every one, else add 'timeouts'"
        )
    elif name == "terminals":
        fix = "add it: 1 where the task ended, 0 elsewhere"
    return InputError(f"{uri}: there is no array '{name}' (found: {found(*file)}); {fix}")


class _Marks(NamedTuple):
    """Where episodes and values end."""

    terminals: np.ndarray | None
    """[N] bool; None: at the last step of every episode."""
    ends: np.ndarray
    """[N] bool, last rows of episodes."""
    exact: bool
    """Whether the recording says where every episode ends."""
    notes: list[str]


def _marks(
    uri: str,
    flags: Mapping[str, np.ndarray | None],
    own: Mapping[str, str],
    numbered: np.ndarray | None,
    demonstrations: bool,
    last_succeeds: bool,
) -> _Marks | None:
    """The marks of the rows; None if nothing tells the terminals. Raises InputError if columns contradict another."""
    terminals, timeouts, dones, masks, valids, wins = (
        flags[name] for name in ("terminals", "timeouts", "dones", "masks", "valids", "successes")
    )
    claims = {"episodes": numbered, "episode_ends": flags["episode_ends"], "dones": dones, "timeouts": timeouts}
    claims["valids"] = None if valids is None else ~valids
    complete, notes = ["episodes", "episode_ends", "valids"], []  # the claims that mark every end
    if masks is not None:
        claims["terminals"], terminals = (terminals if valids is None else None), ~masks
        complete += ["dones"] if timeouts is not None else ["dones", "terminals"]
        if claims["terminals"] is not None:
            notes.append(f"'masks' tells where values end, '{own.get('terminals', 'terminals')}' where episodes do")
    elif terminals is not None or last_succeeds:
        complete.append("dones")
    elif dones is not None and timeouts is not None:
        terminals = dones & ~timeouts
        complete.append("dones")
    claims = {name: column for name, column in claims.items() if column is not None}
    named = next((name for name in complete if name in claims), None)
    ends = claims.get(named or "")
    if terminals is None and not last_succeeds:
        if not demonstrations or (dones is None and ends is None):
            return None
        if dones is not None:
            claims.pop("dones")
            terminals = dones if wins is None else dones & wins
            how = "" if wins is None else f" where the step succeeded, and as a cut elsewhere ({(dones & ~wins).sum()})"
            notes.append(
                f"'{own.get('dones', 'dones')}' does not tell terminals from cuts: it is read as terminal{how}"
            )
        else:
            terminals = np.zeros_like(ends) if wins is None else ends & wins
            how = (
                "every episode is read as cut" if wins is None else "an episode is terminal if its last step succeeded"
            )
            notes.append(f"no terminals were recorded: {how}")
    if ends is None:
        told = list(claims.values()) + ([] if terminals is None or "terminals" in claims else [terminals])
        return _Marks(terminals, np.any(told, axis=0) if told else np.zeros(0, bool), False, notes)
    for name, column in claims.items():
        if (inside := np.flatnonzero(column & ~ends)).size:
            one, other = own.get(name, name), own.get(str(named), named)
            raise InputError(
                f"{uri}: an episode ends at row {inside[0]} by '{one}', but not by '{other}'; correct one of them, or "
                "leave it out"
            )
    return _Marks(terminals, ends, True, notes)


def _ends_of_runs(uri: str, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """[N] bool, the last row of every run of equal episode numbers (or names); None without a column `episodes`."""
    if "episodes" not in arrays:
        return None
    column = np.asarray(arrays["episodes"])
    column = column[:, 0] if column.shape == (count, 1) else column
    if column.shape != (count,):
        raise InputError(f"{uri}: 'episodes' has shape {column.shape}, expected ({count},); fix the recording")
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise InputError(f"{uri}: 'episodes' holds NaN or infinite values; number every row's episode")
    if column.dtype.kind not in "biufUS":
        raise InputError(f"{uri}: 'episodes' holds neither numbers nor text (dtype {column.dtype}); convert it")
    ends = np.append(column[1:] != column[:-1], True)
    names, runs = np.unique(column[ends], return_counts=True)
    if (runs > 1).any():
        raise InputError(
            f"{uri}: the rows of episode {names[runs > 1][0]} are not together; sort the rows by episode and step"
        )
    return ends


def _column(uri: str, name: str, arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """An [N] or [N, 1] array as [N]; None if it is optional and absent."""
    if name not in arrays:
        return None
    value = np.asarray(arrays[name])
    value = value[:, 0] if value.shape == (count, 1) else value
    return numbers(uri, name, value, count, axes=1, finite=name != "rewards")  # rewards: checked per episode later


def _flags(uri: str, name: str, arrays: Mapping[str, np.ndarray], count: int, named: str) -> np.ndarray | None:
    """An [N] or [N, 1] array of 0 and 1 as [N] bool; None if it is absent. Raises InputError for other numbers."""
    column = _column(uri, name, arrays, count)
    if column is None:
        return None
    if (other := np.flatnonzero((column != 0) & (column != 1))).size:
        raise InputError(
            f"{uri}: '{named}' holds {column[other[0]]:g} in row {other[0]} (counted from 0); write 0 or 1, or rename "
            "it if it is no flag"
        )
    return column == 1


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
