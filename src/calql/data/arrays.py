"""Observations as nested dicts of arrays, and the validation of every episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from calql.types import Episode, InputError, PyTree, map_leaves


def named_leaves(name: str, tree: PyTree) -> Iterator[tuple[str, Any]]:
    """(`name/key/…`, array) of every array of an observation, keys sorted."""
    if isinstance(tree, Mapping):
        for key in sorted(tree):
            yield from named_leaves(f"{name}/{key}", tree[key])
    else:
        yield name, tree


def nest(leaves: Mapping[str, np.ndarray], name: str) -> PyTree:
    """The inverse of `named_leaves`: the array `name`, or nested dicts of `name/key/…`; None if there is neither."""
    if name in leaves:
        return leaves[name]
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        if path.startswith(f"{name}/"):
            *outer, key = path.removeprefix(f"{name}/").split("/")
            branch = tree
            for part in outer:
                branch = branch.setdefault(part, {})
            branch[key] = leaf
    return tree or None


def located(episodes: Sequence[Episode], steps: np.ndarray) -> list[tuple[Episode, int]]:
    """(episode, step within it) of steps that are numbered consecutively over all episodes."""
    firsts = np.cumsum([0] + [e.length for e in episodes[:-1]])
    owners = np.searchsorted(firsts, steps, side="right") - 1
    return [(episodes[owner], int(t)) for owner, t in zip(owners, steps - firsts[owners], strict=True)]


def state_at(episode: Episode, step: int) -> PyTree:
    """The state in which a step was taken."""
    return map_leaves(lambda x: x[step], episode.observations)


def spread_states(episodes: Sequence[Episode], count: int) -> list[PyTree]:
    """At most `count` states in which steps were taken, evenly over all episodes."""
    total = sum(e.length for e in episodes)
    steps = np.linspace(0, total - 1, min(count, total)).astype(int)
    return [state_at(*place) for place in located(episodes, steps)]


def all_states(episodes: Sequence[Episode], which: slice) -> PyTree:
    """[N, …] those states of every episode, in order: slice(None, -1) before the steps, slice(1, None) after them."""
    return map_leaves(lambda *leaves: np.concatenate([x[which] for x in leaves]), *(e.observations for e in episodes))


def part(episode: Episode, start: int, stop: int) -> Episode:
    """The steps start … stop − 1; truncated only if the episode is, and ends with them."""
    return Episode(
        observations=map_leaves(lambda x: x[start : stop + 1], episode.observations),
        actions=episode.actions[start:stop],
        rewards=episode.rewards[start:stop],
        terminations=episode.terminations[start:stop],
        truncated=episode.truncated and stop == episode.length,
        successes=None if episode.successes is None else episode.successes[start:stop],
        interventions=None if episode.interventions is None else episode.interventions[start:stop],
    )


def layout(episode: Episode) -> str:
    """Keys, shapes and dtypes of one step, as text (to compare and to print)."""
    arrays = [*named_leaves("observations", episode.observations), ("actions", episode.actions)]
    return ", ".join(f"{name} {array.shape[1:]} {array.dtype}" for name, array in arrays)


def numbers(
    where: str, name: str, value: Any, rows: int | None = None, axes: int | None = None, finite: bool = True
) -> np.ndarray:
    """`value` as float32 (uint8 stays). Raises InputError unless it is (finite) numbers with these rows and axes."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: '{name}' does not hold numbers of one shape (dtype {array.dtype}); convert it")
    if not array.ndim or (rows is not None and len(array) != rows) or (axes is not None and array.ndim != axes):
        rest = {None: ", …", 1: ",", 2: ", A"}.get(axes, ", …")
        wanted = f"({'T' if rows is None else rows}{rest})"
        raise InputError(f"{where}: '{name}' has shape {array.shape}, expected {wanted}; fix the recording")
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):  # too large for float32: reported as infinite
        array = array.astype(np.float32, copy=False)
    if finite and not np.isfinite(array).all():
        step = np.argwhere(~np.isfinite(array))[0, 0]
        raise InputError(f"{where}: '{name}' holds NaN or infinite values at step {step}; fix or drop those steps")
    return array


def checked(where: str, episode: Episode) -> Episode:
    """The episode in canonical dtypes (float32, uint8 images, bool). Raises InputError if it is invalid."""
    rewards = numbers(where, "rewards", episode.rewards, axes=1).astype(np.float32, copy=False)
    steps = len(rewards)
    if steps == 0:
        raise InputError(f"{where} has no steps; drop it")
    named = named_leaves("observations", episode.observations)
    states = [numbers(where, name, leaf, steps + 1) for name, leaf in named]
    if not states:
        raise InputError(f"{where}: 'observations' is an empty dict; name the observations")
    ends = numbers(where, "terminations", episode.terminations, steps, axes=1).astype(bool)
    remaining = iter(states)

    def flags(name: str, found: np.ndarray | None) -> np.ndarray | None:
        return None if found is None else numbers(where, name, found, steps, axes=1).astype(bool)

    return Episode(
        observations=map_leaves(lambda _: next(remaining), episode.observations),
        actions=numbers(where, "actions", episode.actions, steps, axes=2).astype(np.float32, copy=False),
        rewards=rewards,
        terminations=ends,
        truncated=bool(episode.truncated or not ends[-1]),  # an episode without termination was cut, flagged or not
        successes=flags("successes", episode.successes),
        interventions=flags("interventions", episode.interventions),
    )
