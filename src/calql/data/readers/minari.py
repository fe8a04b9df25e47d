"""`minari:ID`: Minari data sets (Minari 0.5, HDF5 or Arrow), local or downloaded.

Data sets are stored under MINARI_DATASETS_PATH (default `~/.minari/datasets`), each in `<id>/data`. Data built by
`calql data build` are stored there, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.names import unused_note
from calql.extras import needed_for
from calql.types import Episode, InputError
from calql.units import ActionBounds


class LocalDataset(NamedTuple):
    """One line of `calql data list`."""

    id: str
    """Minari id; `local:TASK` stands for `calql/TASK-v0`."""
    episodes: int
    steps: int
    size: int
    """Bytes on disk."""


def root() -> Path:
    """Where Minari keeps its data sets on this machine."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def list_local() -> list[LocalDataset]:
    """All Minari data sets on this machine, sorted by id."""
    with needed_for("a list of data sets"):
        import minari  # here, because the import takes a second and most runs do not need it
    if not root().is_dir():  # Minari would create it
        return []
    return [
        LocalDataset(
            id=name,
            episodes=int(about["total_episodes"]),
            steps=int(about["total_steps"]),
            size=sum(file.stat().st_size for file in (root() / name).rglob("*") if file.is_file()),
        )
        for name, about in minari.list_local_datasets().items()
    ]


def read_minari(dataset_id: str, *, uri: str | None = None) -> Episodes:
    """The episodes of a Minari data set; dict observations stay dicts, infos' `success` becomes `successes`, and
    `intervention` `interventions`.

    Raises InputError if the set is neither local nor can be downloaded, is damaged, or its actions are not vectors.
    """
    uri, home = uri or f"minari:{dataset_id}", root() / dataset_id
    with needed_for(uri):
        import minari
        from minari.dataset.minari_storage import MinariStorage
    if not (home / "data").is_dir():
        try:
            minari.download_dataset(dataset_id)
        except Exception as error:  # no network, no such id, no such version: every remote has its own errors
            raise InputError(
                f"{uri}: '{dataset_id}' is not in {root()} and cannot be downloaded ({_reason(error)}); "
                f"run 'minari download {dataset_id}' on a machine with a network and copy the folder there"
            ) from error
    about: dict[str, Any] = {}
    infos: dict[str, None] = {}
    try:
        about = MinariStorage.read_raw_metadata(home / "data")
        if not {"observation_space", "action_space"} <= about.keys():  # Minari would run the named environment's code
            raise ValueError("its metadata name no spaces")
        recording = minari.load_dataset(dataset_id)
        episodes = [
            Episode(
                observations=episode.observations,
                actions=episode.actions,
                rewards=episode.rewards,
                terminations=episode.terminations,
                truncated=bool(len(episode.truncations) and episode.truncations[-1]),
                successes=_signal("success", episode.infos, len(episode.rewards)),
                interventions=_signal("intervention", episode.infos, len(episode.rewards)),
            )
            for episode in _seen(recording.iterate_episodes(), infos)
        ]
    except ImportError as error:
        extra = about.get("data_format", "hdf5")
        raise InputError(f"{uri}: {_reason(error)}; run pip install 'minari[{extra}]'") from error
    except Exception as error:  # h5py, pyarrow and Minari fail on damaged files in many ways
        fix = "delete its folder and download or build it again"
        raise InputError(f"{uri}: {home} is damaged ({_reason(error)}); {fix}") from error
    converted = about["calql"] if isinstance(about.get("calql"), dict) else {}  # by `calql.data.convert`
    rate, names = converted.get("rate_hz"), converted.get("action_names")
    bounds = ActionBounds.of(recording.action_space)
    return Episodes(tuple(episodes), uri, unused_note(infos), bounds, rate=rate, action_names=names and tuple(names))


SIGNALS = ("success", "intervention")
"""Infos that are read."""


def _seen(episodes: Iterable[Any], unused: dict[str, None]) -> Iterator[Any]:
    """The episodes; names of infos that are not read go to `unused`."""
    for episode in episodes:
        unused |= dict.fromkeys(f"infos/{name}" for name in episode.infos or {} if name not in SIGNALS)
        yield episode


def _signal(name: str, infos: dict[str, Any] | None, steps: int) -> np.ndarray | None:
    """[T] recorded signal, None if it is absent; in Minari the info of the reset comes first."""
    signal = (infos or {}).get(name)
    return None if signal is None or len(signal) < steps else np.asarray(signal)[len(signal) - steps :] > 0


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(" :.")
