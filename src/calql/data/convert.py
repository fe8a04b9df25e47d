"""`calql data convert`: any recording that can be read → a Minari data set or a .npz file, and read back equal."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.minari import read_minari, root
from calql.data.readers.npz import read_npz, save_npz
from calql.types import InputError, RunError, map_leaves

TARGETS = "minari:ID or npz:FILE.npz"


def convert(episodes: Episodes, to: str) -> str:
    """Write the episodes to `minari:ID` or `npz:FILE.npz`, all or nothing; return where they are.

    Raises InputError if the target exists, cannot be written or is none of the two, and RunError if what was written
    does not read back equal (then it is removed).
    """
    scheme, _, rest = to.partition(":")
    if scheme not in ("minari", "npz") or not rest:
        raise InputError(f"cannot write '{to}'; use {TARGETS}")
    target = Path(os.path.expanduser(rest)) if scheme == "npz" else root() / rest
    if os.path.lexists(target):
        raise InputError(f"{to}: {target} exists; choose another name, or delete it")
    for name in ("successes", "interventions"):
        if len({getattr(episode, name) is not None for episode in episodes.episodes}) > 1:
            raise InputError(f"{episodes.uri}: only some episodes have {name}; record them in all or none to convert")
    try:
        if scheme == "npz":
            save_npz(episodes, target)
        else:
            _to_minari(rest, episodes)
    except (OSError, RunError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause
        raise InputError(f"{to}: cannot write {target} ({reason}); choose another place") from error
    back = read_npz(target) if scheme == "npz" else read_minari(rest)
    if back.fingerprint() != episodes.fingerprint():
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        raise RunError(f"{to}: what was written does not read back equal to {episodes.uri}, so it was removed")
    return str(target)


def _to_minari(dataset_id: str, episodes: Episodes) -> None:
    """Write the data set, with the recorded action space, or unbounded ones: a log does not state bounds.

    Raises InputError for a malformed id.
    """
    from gymnasium import Env, spaces  # here, because importing Gymnasium is slow

    from calql.data.minari_writer import write_minari

    def space(leaf: np.ndarray) -> Any:
        if leaf.dtype == np.uint8:
            return spaces.Box(0, 255, leaf.shape, np.uint8)
        return spaces.Box(-np.inf, np.inf, leaf.shape, np.float32)

    def whole(tree: Any) -> Any:
        return spaces.Dict({key: whole(branch) for key, branch in tree.items()}) if isinstance(tree, dict) else tree

    class Recorded(Env):
        """Stands for the environment that nobody named: the spaces of the data."""

        observation_space = whole(map_leaves(space, episodes.spec().observation))
        action_space = (
            spaces.Box(-np.inf, np.inf, (episodes.spec().action_dim,), np.float32)
            if episodes.bounds is None
            else spaces.Box(np.float32(episodes.bounds.low), np.float32(episodes.bounds.high), dtype=np.float32)
        )

    try:
        about = {"converted_from": episodes.uri, "rate_hz": episodes.rate, "action_names": episodes.action_names}
        write_minari(dataset_id, episodes.episodes, Recorded(), lambda: about)
    except ValueError as error:
        raise InputError(f"minari:{dataset_id}: {error}; name it like cart/pushed-v0") from error
