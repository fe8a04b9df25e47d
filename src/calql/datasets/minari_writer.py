"""Episodes → a Minari data set on this machine, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.storage import get_dataset_path

import calql
from calql.types import Episode


def write_minari(dataset_id: str, episodes: Sequence[Episode], env: gymnasium.Env, provenance: dict[str, Any]) -> str:
    """Store the episodes as `dataset_id` under MINARI_DATASETS_PATH (default ~/.minari/datasets); return the id.

    The set is written beside its place and moved there when it is whole, so an interruption leaves what was there
    before. Its metadata hold `provenance` (JSON values: knobs, seed) and calql's version under the key `calql`. Where
    episodes have successes, `infos/success` holds them as Minari lays infos out: [T + 1], the first from the reset.
    Pictures are stored without loss. Raises ValueError on a malformed id, OSError on an unwritable folder.
    """
    parse_dataset_id(dataset_id)
    home = get_dataset_path(dataset_id)
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=".calql-", dir=get_dataset_path())  # Minari does not look into hidden folders
    fresh, old = os.path.join(staging, "fresh"), os.path.join(staging, "old")
    try:
        os.mkdir(fresh)
        # Not `minari.create_dataset_from_buffers`: it writes in place, and so never replaces and may leave half a set.
        data = os.path.join(fresh, "data")
        storage = MinariStorage.new(
            data, env.observation_space, env.action_space, env.unwrapped.spec, jpeg_encoding=False
        )
        about = {"dataset_id": dataset_id, "minari_version": minari.__version__}
        storage.update_metadata(about | {"calql": {"version": calql.__version__, **provenance}})
        storage.update_episodes(map(_buffer, episodes))
        if home.exists():
            os.rename(home, old)
        os.rename(fresh, home)
    finally:
        if os.path.exists(old) and not home.exists():
            os.rename(old, home)
        shutil.rmtree(staging, ignore_errors=True)
    return dataset_id


def _buffer(episode: Episode) -> EpisodeBuffer:
    """The episode as Minari stores it; its clock (`truncated`) becomes the last entry of `truncations`."""
    truncations = np.zeros(episode.length, bool)
    truncations[-1] = episode.truncated
    return EpisodeBuffer(
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=truncations,
        infos=None if episode.successes is None else {"success": np.concatenate([[False], episode.successes])},
    )
