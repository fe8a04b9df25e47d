"""From a data URI to episodes that a task can learn from: reading, adapting, cutting, checking.

`load` only reads, `load_for` adapts to the task, `open_data` also builds and checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

from calql.data.actions import in_unit
from calql.data.check.describe import Report, check
from calql.data.episodes import Episodes
from calql.data.readers import FORMS, READERS
from calql.data.readers.local import is_built
from calql.data.success import end_at_success, goes_on_after_success, split_at_terminations
from calql.tasks import Task, load_attribute
from calql.types import Episode, InputError
from calql.units import ActionBounds, ActionUnit


def load(uri: str, **options: Any) -> Episodes:
    """The episodes that a data URI names; `options` go to its reader. Raises InputError for bad input.

    The forms of a URI are listed in `calql.data.readers`.
    """
    scheme, _, rest = uri.partition(":")
    if rest and scheme in READERS:
        return READERS[scheme].read(rest, **options)
    name, hash_, argument = rest.partition("#")
    if not (name.isidentifier() and all(part.isidentifier() for part in scheme.split("."))):
        raise InputError(f"'{uri}' is not a data URI; use one of {FORMS}")
    try:
        read = load_attribute(f"{scheme}:{name}")
    except InputError as error:
        raise InputError(f"'{uri}' is neither a data URI nor a reader ({error}); use one of {FORMS}") from error
    try:
        made = read(*([argument] if hash_ else []), **options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{uri}: the reader failed ({type(error).__name__}: {error}); fix it") from error
    if isinstance(made, Episodes):
        return dataclasses.replace(made, uri=uri)
    if isinstance(made, Sequence) and all(isinstance(episode, Episode) for episode in made):
        return Episodes(tuple(made), uri)
    raise InputError(
        f"{uri}: the reader returned a {type(made).__name__}; it must return calql.data.Episodes, or a sequence of "
        "calql.types.Episode"
    )


def open_data(
    task: Task,
    uri: str | None = None,
    *,
    discount: float = 0.99,
    target_rate: float = 0.005,
    tail_bootstrap: bool = False,
    cut_at_horizon: bool = False,
    with_env: bool = True,
    bounds: ActionBounds | None = None,
    action_unit: ActionUnit = "auto",
    strict: bool = True,
    updates: int | None = None,
    normalised: bool = False,
    clone: bool = False,
) -> tuple[Episodes, Report]:
    """The data that a task is trained on: built if they are the task's own and missing, loaded, and checked.

    Nothing is printed: `Episodes.notes` tells what was done to the recording, `Report.warnings` what is irregular.

    Args:
        task: the task to be trained.
        uri: data URI; None: the task's own.
        discount, target_rate, tail_bootstrap: as in `calql.data.check.describe.describe`.
        cut_at_horizon: cut episodes that are longer than the task's horizon.
        with_env: also compare with the task's environment (spaces and physics), and convert the actions to [−1, 1];
            without it they stay as recorded, unless the recording states its action space, or `bounds` are given.
        bounds: the environment's bounds of actions, if it is left out and they are known.
        action_unit: unit of the recorded actions: see `calql.data.actions`.
        updates, normalised, clone: as in `calql.data.check.describe.check`.
        strict: raise InputError if the check finds errors; False leaves them in the report.

    Raises:
        InputError: there are no data, they belong to another task, cannot be read, or (if `strict`) cannot be used.
    """
    from calql.envs.make import make_env  # here, because importing Gymnasium is slow
    from calql.envs.wrappers import action_bounds

    uri = uri or task.data
    if uri is None:
        raise InputError(
            f"task '{task.id}' has no data of its own; name some with --data (a method that learns from none measures "
            f"its values on them): {FORMS}"
        )
    task = task.for_data(uri)
    if (owner := missing_from(task, uri)) is not None and owner.builder:
        load_attribute(owner.builder)(owner, seed=0, transitions=None, workers=1, progress=None)
    episodes = load_for(task, uri, cut_at_horizon)
    with make_env(task) if with_env else contextlib.nullcontext() as env:
        if (own := (bounds or episodes.bounds) if env is None else action_bounds(env)) is not None:
            with contextlib.nullcontext() if strict else contextlib.suppress(InputError):  # `check` reports it, too
                episodes = in_unit(episodes, own, action_unit)
        how = {"action_unit": action_unit, "updates": updates, "normalised": normalised, "clone": clone}
        report = check(episodes, task, env, discount, target_rate, tail_bootstrap, **how)
        if env is not None:
            episodes = with_statements_of(env, episodes)
    if strict and report.errors:
        raise InputError("; ".join(report.errors))
    return episodes, report


def with_statements_of(env: Any, episodes: Episodes) -> Episodes:
    """The episodes with the rate and names of actions that the environment states, or else those of the recording."""
    from calql.envs.wrappers import action_names, control_rate  # here, because importing Gymnasium is slow

    rate, names = control_rate(env) or episodes.rate, action_names(env) or episodes.action_names
    return dataclasses.replace(episodes, rate=rate, action_names=names)


def missing_from(task: Task, uri: str | None = None) -> Task | None:
    """The task with the recipe of its local data at `uri` (by default `task.data`), if they do not exist yet."""
    owner = task.building(uri or task.data)
    return None if owner is None or is_built(str(owner.data).removeprefix("local:")) else owner


def load_for(task: Task, uri: str, cut_at_horizon: bool = False) -> Episodes:
    """The episodes as the task would have recorded them; a note tells everything that was done to them.

    Recordings that the task's `sources` cover are read and adapted as stated there. If the task stops at success, an
    episode that continues after one is cut there. (AWAC's are not: see `read_awac`.) Longer episodes are kept
    whole, and `check` warns of them, unless `cut_at_horizon`.

    Raises InputError if the URI is invalid, belongs to another task, or cannot be read or adapted.
    """
    source = task.source_of(uri)
    episodes = load(uri, **(source.reader if source else {}))
    if source and source.adapt:
        episodes = _adapted(episodes, task.for_data(uri), source.adapt)
    if cut_at_horizon:
        episodes = episodes.truncate_at_horizon(task.horizon)
    late = task.stop_at_success and any(goes_on_after_success(e, task.rewards) for e in episodes.episodes)
    return end_at_success(episodes, task.rewards) if late else episodes


def _adapted(episodes: Episodes, task: Task, adapt: str) -> Episodes:
    """Every episode as the task would have recorded it, ending when the task ends; a note names the function."""
    function = load_attribute(adapt)
    changed: list[Episode] = []
    for number, episode in enumerate(episodes.episodes):
        try:
            changed += split_at_terminations(function(episode, **task.env_options))
        except InputError as error:
            raise InputError(f"{episodes.uri}: episode {number}: {error}") from error
        except (IndexError, KeyError, TypeError, ValueError) as error:  # arrays of a different layout
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(
                f"{episodes.uri}: episode {number} has another layout than {adapt} expects ({reason}); "
                f"check that it was recorded in '{task.id}'"
            ) from error
    summary = (function.__doc__ or "").strip().splitlines()[0]
    note = f"all {episodes.num_episodes} recorded episodes were adapted by {adapt} ({summary.rstrip('.')})"
    return dataclasses.replace(episodes, episodes=tuple(changed), notes=(*episodes.notes, note))
