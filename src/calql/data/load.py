"""One text names any recording: `minari:ID`, `d4rl:FILE.hdf5`, `awac:DIR#TASK`, `npz:FILE.npz` or `local:TASK`."""

from __future__ import annotations

from typing import Any

from calql.data.episodes import Episodes
from calql.data.readers.awac import read_awac
from calql.data.readers.d4rl import read_d4rl
from calql.data.readers.minari import list_local, read_minari, root
from calql.data.readers.npz import read_npz
from calql.data.success import end_at_success, split_at_terminations, success_steps
from calql.tasks import Source, Task, load_attribute
from calql.types import Episode, InputError

__all__ = ["list_local", "load", "local_id"]


def local_id(task: str) -> str:
    """The Minari id under which `calql data build TASK` stores its data."""
    return f"calql/{task}-v0"


def read_local(task: str, **options: Any) -> Episodes:
    """The data that `calql data build TASK` made. Raises InputError where it has not been run."""
    if not (root() / local_id(task) / "data").is_dir():
        raise InputError(f"local:{task}: there is no such data set in {root()}; run 'calql data build {task}'")
    return read_minari(local_id(task), download=False, reference=f"local:{task}", **options)


READERS = {
    "minari": read_minari,
    "d4rl": read_d4rl,
    "awac": read_awac,
    "npz": read_npz,
    "local": read_local,
}


def load_for(task: Task, reference: str, cut_at_horizon: bool = False) -> Episodes:
    """The episodes as the task would have recorded them; a note tells of everything that was done to them.

    Recordings that the task's `sources` cover are read and adapted as said there. Where the task stops at success, an
    episode that goes on after one is cut there. (AWAC's are not: see `read_awac`.) Episodes beyond the horizon are kept
    whole, and `check` warns of them, unless `cut_at_horizon`.

    Raises InputError where the reference is none, belongs to another task, or cannot be read or adapted.
    """
    source = task.source_of(reference) or Source(reference)
    episodes = load(reference, **source.reader)
    if source.adapt:
        episodes = _adapted(episodes, task.for_data(reference), source.adapt)
    if cut_at_horizon:
        episodes = episodes.truncate_at_horizon(task.horizon)
    late = task.stop_at_success and any((success_steps(e, task) & ~e.terminations).any() for e in episodes.episodes)
    return end_at_success(episodes, task) if late else episodes


def _adapted(episodes: Episodes, task: Task, adapt: str) -> Episodes:
    """Every episode as the task would have recorded it, ending where the task ends; a note says by which function."""
    function = load_attribute(adapt)
    changed: list[Episode] = []
    for number, episode in enumerate(episodes.episodes):
        try:
            changed += split_at_terminations(function(episode, **task.env_options))
        except InputError as error:
            raise InputError(f"{episodes.reference}: episode {number}: {error}") from error
        except (IndexError, KeyError, TypeError, ValueError) as error:  # arrays of a quite different layout
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(
                f"{episodes.reference}: episode {number} is nothing that {adapt} knows ({reason}); "
                f"check that it was recorded in '{task.id}'"
            ) from error
    summary = (function.__doc__ or "").strip().splitlines()[0]
    note = f"all {episodes.num_episodes} recorded episodes were adapted by {adapt} ({summary.rstrip('.')})"
    return Episodes(tuple(changed), episodes.reference, (*episodes.notes, note))


def load(reference: str, **options: Any) -> Episodes:
    """The episodes that `reference` names; `options` go to its reader. Raises InputError on bad input."""
    scheme, colon, rest = reference.partition(":")
    if scheme not in READERS or not colon or not rest:
        known = "minari:ID, d4rl:FILE.hdf5, awac:DIR, npz:FILE.npz, local:TASK"
        raise InputError(f"'{reference}' is no data reference; write one of {known}")
    return READERS[scheme](rest, **options)
