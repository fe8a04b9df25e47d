"""`npz:FILE.npz`: the format for your own logs, written and read by NumPy alone.

One row per step, N rows:

    observations [N, …]       or one `observations/KEY` for every key of a dict observation (a further slash nests a
                              further dict); uint8 stays uint8, all else is read as float32
    actions [N, A]            in the environment's unit
    rewards [N]               as the environment paid them; without them `successes` are needed, which pay 1 each
    terminals [N]             1 if the task ended (success or accident): no bootstrapping
    timeouts [N]              optional; 1 if the time limit cut the episode: bootstrapping continues
    next_observations         optional, like `observations`; without it the last row of a cut episode is lost
    successes [N]             optional; 1 if the task was solved
    interventions [N]         optional; 1 if a person acted; `actions` are those that were executed
    episode_ends [N]          optional; only needed if terminals lie inside an episode
    episodes [N]              optional; the number of the episode, instead of `episode_ends`
    action_low, action_high   optional; [A] the bounds of the recorded actions
    action_names [A]          optional; text
    rate_hz                   optional; steps per second

Episodes end at terminals, at time-outs and at the end of the file. Synonyms such as Gymnasium's `terminations` and
`truncations` are understood (`calql.data.readers.names`), and OGBench's `masks` and `valids`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.arrays import all_states, named_leaves
from calql.data.episodes import Episodes
from calql.data.readers.files import existing_file, split_options
from calql.data.readers.names import read_known
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.files import replacing
from calql.types import InputError
from calql.units import ActionBounds


def read_npz(path: str | os.PathLike) -> Episodes:
    """The episodes of a file in the format above.

    Args:
        path: the file; `#success=last` after it says that every episode ends in success.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or its arrays contradict each other.
    """
    uri = f"npz:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str)
    arrays, unused, names = read_archive(uri, plain, STATED)
    stated = _stated(uri, {name: arrays.pop(name) for name in STATED if name in arrays})
    won = ends_in_success(uri, options)
    return episodes_from_rows(arrays, uri, unused=unused, names=names, last_succeeds=won, stated=stated)


STATED = ("action_low", "action_high", "action_names", "rate_hz")
"""What a file may say of the machine beside its rows."""


def _stated(uri: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of `Episodes` that the file states. Raises InputError if they are malformed."""
    stated: dict[str, Any] = {}
    if alone := sorted({"action_low", "action_high"} & arrays.keys()):
        if len(alone) == 1:
            raise InputError(f"{uri}: it has '{alone[0]}' without the other bound; add that, or leave it out")
        try:
            stated["bounds"] = ActionBounds(arrays["action_low"], arrays["action_high"])
        except (InputError, ValueError) as error:
            raise InputError(f"{uri}: 'action_low' and 'action_high': {error}") from error
    if (names := arrays.get("action_names")) is not None:
        if names.dtype.kind != "U" or names.ndim != 1:
            raise InputError(f"{uri}: 'action_names' is {names.dtype}{list(names.shape)}; it must be texts [A]")
        stated["action_names"] = tuple(names.tolist())
    if (rate := arrays.get("rate_hz")) is not None:
        if rate.size != 1 or rate.dtype.kind not in "iuf":
            raise InputError(f"{uri}: 'rate_hz' is {rate.dtype}{list(rate.shape)}; it must be one number")
        stated["rate"] = float(rate.item())
    return stated


def read_archive(
    uri: str, path: str, also: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...], dict[str, str]]:
    """What `read_known` makes of a .npz file; arrays named in `also` are read, too. Raises InputError as `read_npz`."""
    full = existing_file(uri, path)
    try:
        with open(full, "rb") as stream:  # opened here, because NumPy leaves damaged archives open
            if not (begins := stream.read(6)).startswith(b"PK"):
                raise ValueError("a single array" if begins == b"\x93NUMPY" else "it is no archive")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            arrays, unused, names = read_known(uri, file.files, file.__getitem__)
            arrays |= {name: file[name] for name in unused if name in also}
            return arrays, tuple(name for name in unused if name not in also), names
    except InputError:
        raise
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{uri}: not a complete .npz file of plain arrays ({reason}); write it again") from error


def save_npz(episodes: Episodes, path: str | os.PathLike) -> None:
    """Write the episodes so that `read_npz` gives the same ones. An older file stays until the new one is complete.

    Raises RunError if it cannot be written.
    """
    data = episodes.episodes
    arrays = {
        "actions": np.concatenate([e.actions for e in data]),
        "rewards": np.concatenate([e.rewards for e in data]),
        "terminals": np.concatenate([e.terminations for e in data]),
        "timeouts": np.concatenate([np.arange(1, e.length + 1) == e.length * e.truncated for e in data]),
        "episode_ends": np.concatenate([np.arange(1, e.length + 1) == e.length for e in data]),
    }
    arrays.update(named_leaves("observations", all_states(data, slice(None, -1))))
    arrays.update(named_leaves("next_observations", all_states(data, slice(1, None))))
    for name in ("successes", "interventions"):
        told = [getattr(e, name) for e in data if getattr(e, name) is not None]
        if len(told) == len(data):
            arrays[name] = np.concatenate(told)
    if episodes.bounds is not None:
        bounds = ActionBounds.unit(episodes.bounds.size) if episodes.unit_actions else episodes.bounds
        arrays |= {"action_low": bounds.low, "action_high": bounds.high}
    if episodes.action_names is not None:
        arrays["action_names"] = np.array(episodes.action_names, str)
    if episodes.rate is not None:
        arrays["rate_hz"] = np.array(episodes.rate)
    with replacing(Path(path)) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] (no array has an option's name)
