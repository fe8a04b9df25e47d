"""`lerobot:DIR`: a data set of LeRobot on this machine, format v3.0, v2.1 or v2.0 (Cadene et al. 2024).

    meta/info.json                        fps, features, version
    data/chunk-000/file-000.parquet       rows: observation.*, action, next.*, episode_index (v2: episode_000000)
    meta/episodes/chunk-000/*.parquet     v3.0: where the frames of every episode are in the videos
    videos/KEY/chunk-000/file-000.mp4     v3.0;  v2: videos/chunk-000/KEY/episode_000000.mp4

A frame is a row: the last one of an episode gives its observation only, unless it is terminal. LeRobot records no
terminals of their own: see `demonstrations` of `calql.data.readers.rows`. Features `next.terminated` and
`next.truncated`, where a recording has them, tell more and win.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.episodes import Episodes
from calql.data.readers.columns import arrays_of, group_columns, own_names
from calql.data.readers.files import natural, reason, split_options
from calql.data.readers.frames import decode_video
from calql.data.readers.parquet import Table
from calql.data.readers.rows import ends_in_success, episodes_from_rows
from calql.types import InputError

VERSIONS = ("v2.0", "v2.1", "v3.0")


def read_lerobot(path: str | os.PathLike) -> Episodes:
    """The episodes of a data set, in the order of its rows.

    Args:
        path: its folder, and options as in `#keys=state,images.top#image_size=84`: `keys` reads these observations
            alone, `image_size` scales images to so many pixels in height and width, and `success=last` says that every
            episode is a demonstration that ends in success.

    Raises:
        InputError: the folder is no such data set, is incomplete or damaged, or has neither rewards nor successes.
    """
    uri = f"lerobot:{os.fspath(path)}"
    plain, options = split_options(uri, path, success=str, keys=str, image_size=int)
    root = Path(os.path.expanduser(plain))
    info = _info(uri, root)
    files = sorted(root.glob("data/*/*.parquet"), key=lambda file: natural(file.relative_to(root).as_posix()))
    if not files:
        raise InputError(f"{uri}: there is no data/*/*.parquet; download the whole data set")
    table = Table(uri, files, options.get("image_size"))
    videos = [name for name, feature in info["features"].items() if feature.get("dtype") == "video"]
    names = [*table.names, *(name for name in videos if name not in table.names)]
    leaves, unused = group_columns(uri, names, [*table.vectors, *videos], options.get("keys"))
    rows = _Rows(uri, root, info, table)
    used = {column.name for columns in leaves.values() for column in columns}
    images = [name for name, feature in info["features"].items() if feature.get("dtype") == "image"]
    _refuse_too_large(uri, info, used & {*videos, *images}, len(rows.episodes), options.get("image_size"))
    arrays, notes = arrays_of(uri, leaves, lambda name: rows.video(name) if name in videos else table.read(name))
    if (tasks := int(info.get("total_tasks") or 0)) > 1:
        notes += (f"the episodes are of {tasks} tasks; all were read",)
    return episodes_from_rows(
        arrays,
        uri,
        unused=unused,
        names=own_names(leaves),
        told=notes,
        demonstrations=True,
        last_succeeds=ends_in_success(uri, options),
        stated={"rate": info["fps"], "action_names": _action_names(info)},
    )


def _action_names(info: dict[str, Any]) -> tuple[str, ...] | None:
    """The names of the action's components, a list or {group: list}; None if there are none, or not one for each."""
    feature = info["features"].get("action", {})
    names, shape = feature.get("names"), feature.get("shape")
    groups = names.values() if isinstance(names, dict) else [names]
    flat = [name for group in groups for name in (group if isinstance(group, list) else [])]
    return tuple(map(str, flat)) if flat and [len(flat)] == list(shape or ()) else None


def _info(uri: str, root: Path) -> dict[str, Any]:
    """What meta/info.json says. Raises InputError if it is missing, damaged or of an unknown version."""
    file = root / "meta" / "info.json"
    if not file.is_file():
        raise InputError(f"{uri}: there is no meta/info.json; give the folder of a LeRobot data set")
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
        sound = all(isinstance(feature, dict) for feature in features.values())
        info["fps"], info["chunks_size"] = float(info["fps"]), int(info.get("chunks_size") or 1000)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{uri}: meta/info.json is damaged ({reason(error)}); download it again") from error
    if not sound or not 0 < info["fps"] < 1e6 or info["chunks_size"] < 1:
        raise InputError(f"{uri}: meta/info.json states no features or no frame rate; download it again")
    if version not in VERSIONS:
        raise InputError(
            f"{uri}: it has version {version}, known are {', '.join(VERSIONS)}; convert it with LeRobot's own scripts"
        )
    if bad := [name for name in features if "/" in name or name.startswith(".")]:
        raise InputError(f"{uri}: meta/info.json names a feature '{bad[0]}'; LeRobot forbids / in names, rename it")
    return info


def _refuse_too_large(uri: str, info: dict[str, Any], names: set[str], frames: int, size: Any) -> None:
    """Raise InputError if the images do not fit into the memory of this machine."""
    pixels = sum(
        size * size * 3 if size else int(np.prod(info["features"][name].get("shape") or [0])) for name in names
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if pixels * frames > 0.4 * memory:  # rows and episodes are in memory together
        raise InputError(
            f"{uri}: {frames} frames with {len(names)} images each need {pixels * frames / 1e9:.0f} GB of memory, this "
            f"machine has {memory / 1e9:.0f} GB; add #image_size=84, or read some of the observations alone: #keys=…"
        )


class _Rows:
    """The rows of a data set: which episode and time each belongs to, and its frames in the videos."""

    def __init__(self, uri: str, root: Path, info: dict[str, Any], table: Table) -> None:
        """Raise InputError if rows are missing or out of order."""
        self.uri, self.root, self.info, self.size = uri, root, info, table.image_size
        for name in ("episode_index", "frame_index"):
            if name not in table.names:
                raise InputError(f"{uri}: its files have no column '{name}'; download it again")
        self.episodes, self.frames = table.read("episode_index"), table.read("frame_index")
        total = info.get("total_frames")
        if total is not None and total != len(self.episodes):
            raise InputError(f"{uri}: it holds {len(self.episodes)} of {total} frames; download the rest")
        first = np.append(True, self.episodes[1:] != self.episodes[:-1])[: len(self.episodes)]
        starts = np.flatnonzero(first)
        expected = np.arange(len(first)) - np.repeat(starts, np.diff(np.append(starts, len(first))))
        if wrong := np.flatnonzero(self.frames != expected).tolist():
            raise InputError(f"{uri}: row {wrong[0]} is not the next frame of its episode; download the data set again")
        self.where: dict[int, dict[str, Any]] | None = None

    def video(self, key: str) -> np.ndarray:
        """[N, H, W, 3] the frames of all rows."""
        files: dict[Path, list[tuple[float, int]]] = {}
        for episode in np.unique(self.episodes).tolist():
            file, start = self._place(key, episode)
            rows = np.flatnonzero(self.episodes == episode)
            files.setdefault(file, []).extend(
                (start + i / self.info["fps"], row) for i, row in enumerate(rows.tolist())
            )
        out = None
        for file, wanted in files.items():
            times, rows = (np.array(column) for column in zip(*sorted(wanted), strict=True))
            out = decode_video(
                f"{self.uri}: '{key}'", file, times, self.info["fps"], out, rows, len(self.episodes), self.size
            )
        return np.zeros((0, 1, 1, 3), np.uint8) if out is None else out

    def _place(self, key: str, episode: int) -> tuple[Path, float]:
        """The video file of an episode and the time at which the episode begins in it."""
        if self.info["codebase_version"] != "v3.0":
            chunk = episode // self.info["chunks_size"]
            return self.root / "videos" / f"chunk-{chunk:03d}" / key / f"episode_{episode:06d}.mp4", 0.0
        if self.where is None:
            self.where = self._places()
        try:
            about = self.where[episode]
            chunk, number = int(about[f"videos/{key}/chunk_index"]), int(about[f"videos/{key}/file_index"])
            start = float(about[f"videos/{key}/from_timestamp"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.uri}: meta/episodes does not say where episode {episode} is in the videos of '{key}'; download "
                "it again"
            ) from error
        return self.root / "videos" / key / f"chunk-{chunk:03d}" / f"file-{number:03d}.mp4", start

    def _places(self) -> dict[int, dict[str, Any]]:
        """{episode: its row of meta/episodes}, without the statistics."""
        files = sorted(self.root.glob("meta/episodes/*/*.parquet"), key=lambda file: natural(file.as_posix()))
        if not files:
            raise InputError(f"{self.uri}: there is no meta/episodes/*/*.parquet; download the whole data set")
        table = Table(self.uri, files)
        names = [name for name in table.names if name == "episode_index" or name.startswith("videos/")]
        columns = {name: table.read(name).tolist() for name in names}
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {row.get("episode_index", -1): row for row in rows}
