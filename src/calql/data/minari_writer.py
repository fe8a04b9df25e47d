"""Episodes → a Minari data set on this machine, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import calql
from calql import files
from calql.data.arrays import named_leaves
from calql.extras import needed_for
from calql.types import Episode, is_image

IMAGES_PER_CHUNK = 16
"""Images of an episode that are compressed together."""
SLACK = 4 << 20
"""Bytes that HDF5 may hold back, and what it keeps of a file besides arrays."""


def write_minari(
    dataset_id: str, episodes: Iterable[Episode], env: gymnasium.Env, provenance: Callable[[], dict[str, Any]]
) -> str:
    """Store the episodes as `dataset_id` under MINARI_DATASETS_PATH (default ~/.minari/datasets); return the id.

    The set is written next to its place and moved there when complete, so an interruption leaves what was there
    before. Episodes are written as they arrive; images are compressed without loss. The key `calql` of its metadata
    holds calql's version and what `provenance`, called last, returns (JSON values). Successes are `infos/success`,
    interventions `infos/intervention`: [T + 1], the first from the reset. Raises ValueError on a malformed id, RunError
    if the folder cannot be written or the disk is full, InputError without Minari.
    """
    with needed_for("a Minari data set"):
        import minari
        from minari.dataset.minari_dataset import parse_dataset_id
        from minari.dataset.minari_storage import MinariStorage
        from minari.storage import get_dataset_path
    parse_dataset_id(dataset_id)
    home = get_dataset_path(dataset_id)
    with files.writing(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".calql-", dir=get_dataset_path())  # Minari ignores hidden folders
        fresh, old = os.path.join(staging, "fresh"), os.path.join(staging, "old")
        data = Path(fresh) / "data"
        main = data / "main_data.hdf5"
        try:
            data.parent.mkdir()
            files.reserve(data, SLACK)
            # Not `minari.create_dataset_from_buffers`: it writes in place, so it never replaces, may leave half a set.
            storage = MinariStorage.new(
                data, env.observation_space, env.action_space, env.unwrapped.spec, jpeg_encoding=False
            )
            about = {"dataset_id": dataset_id, "minari_version": minari.__version__}
            storage.update_episodes(_buffer(_if_it_fits(episode, main)) for episode in episodes)
            storage.update_metadata(about | {"calql": {"version": calql.__version__, **provenance()}})
            if any(is_image(space) for _, space in named_leaves("", env.observation_space)):
                files.reserve(data, main.stat().st_size)
                _compress_images(main)
            if home.exists():
                os.rename(home, old)
            os.rename(fresh, home)
        finally:
            if os.path.exists(old) and not home.exists():
                os.rename(old, home)
            shutil.rmtree(staging, ignore_errors=True)
    return dataset_id


def _if_it_fits(episode: Episode, file: Path) -> Episode:
    """The episode. Raises OSError if there is no room in `file` for its arrays."""
    arrays = [leaf for _, leaf in named_leaves("", episode.observations)] + [episode.actions, episode.rewards]
    files.reserve(file, SLACK + sum(np.asarray(array).nbytes for array in arrays))
    return episode


def _compress_images(file: Path) -> None:
    """Rewrite the file with compressed images [T, H, W, C]: Minari stores them uncompressed."""
    import h5py

    packed = file.with_suffix(".packed")
    with h5py.File(file) as old, h5py.File(packed, "w") as new:

        def take(name: str, part: h5py.Group | h5py.Dataset) -> None:
            if isinstance(part, h5py.Group):
                new.require_group(name)
            elif part.dtype == np.uint8 and part.ndim == 4:
                chunk = min(len(part), IMAGES_PER_CHUNK), *part.shape[1:]
                options = dict(chunks=chunk, maxshape=part.maxshape, compression="gzip", compression_opts=1)
                new.create_dataset(name, data=part[()], **options)
            else:
                old.copy(part, new, name)
            new[name].attrs.update(part.attrs)

        new.attrs.update(old.attrs)
        old.visititems(take)
    os.replace(packed, file)


def _buffer(episode: Episode) -> Any:
    """The `EpisodeBuffer` of an episode; `truncated` becomes the last entry of `truncations`."""
    from minari.data_collector import EpisodeBuffer

    truncations = np.zeros(episode.length, bool)
    truncations[-1] = episode.truncated
    columns: dict[str, Any] = dict(  # arrays do as well as the lists that Minari's annotations name
        actions=episode.actions, rewards=episode.rewards, terminations=episode.terminations, truncations=truncations
    )
    signals = {"success": episode.successes, "intervention": episode.interventions}
    infos = {name: np.concatenate([[False], told]) for name, told in signals.items() if told is not None}
    return EpisodeBuffer(observations=episode.observations, infos=infos or None, **columns)
