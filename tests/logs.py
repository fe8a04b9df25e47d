"""Generated logs of a robot, and what any reader must make of them; each is written in every format by the tests."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from calql.types import Episode

DTYPES = ("f4", "f8", "f2", ">f4", "i2", "?", "u2")


@dataclasses.dataclass
class Log:
    """Rows of T steps per episode: the arrays by calql's names, as they were recorded."""

    arrays: dict[str, np.ndarray]
    lengths: list[int]
    extra: dict[str, np.ndarray]
    """Arrays that no reader uses."""

    @property
    def ends(self) -> np.ndarray:
        return np.cumsum(self.lengths) - 1

    def expected(self) -> list[Episode]:
        """The episodes, read row by row: a step whose next state is unknown and has a value is none."""
        a, found = self.arrays, []
        for start, end in zip([0, *(self.ends[:-1] + 1)], self.ends, strict=True):
            terminal = bool(a["terminals"][end])
            stop = end + 1 if terminal or "next" in a else end
            if stop == start:
                continue
            states = {}
            for name in (n for n in a if n.split("/")[0] == "observations"):
                path = [a[name][i] for i in range(start, stop)]
                if "next" in a:
                    path.append(a[name.replace("observations", "next_observations", 1)][stop - 1])
                else:  # after a terminal any state will do; calql takes the following row, or the row itself
                    path.append(a[name][stop if stop < len(a[name]) else stop - 1])
                kind = np.uint8 if a[name].dtype == np.uint8 else np.float32
                states[name] = np.array(path).astype(kind)
            wins = a["successes"][start:stop].astype(bool) if "successes" in a else None
            found.append(
                Episode(
                    states,
                    a["actions"][start:stop].astype(np.float32),
                    a["rewards"][start:stop].astype(np.float32),
                    a["terminals"][start:stop].astype(bool),
                    not terminal,
                    wins,
                )
            )
        return found


@st.composite
def logs(draw, images=True, inner=True):
    """A log with flat or dict observations, any dtypes, ends of both kinds, optional arrays present or not."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    count, rng = sum(lengths), np.random.default_rng(draw(st.integers(0, 99)))

    def numbers(width):
        kind = np.dtype(draw(st.sampled_from(DTYPES)))
        array = (
            np.asfortranarray(rng.integers(-3, 4, (count, width)) / 2)
            if draw(st.booleans())
            else rng.normal(size=(count, width))
        )
        return abs(array).astype(kind) if kind.kind in "u?" else array.astype(kind)

    keys = draw(st.sampled_from([("",), ("/arm", "/grip"), ("/arm/left", "/arm/right", "/cam")]))
    arrays = {}
    for key in keys:
        if key == "/cam" and images:
            arrays["observations/cam"] = rng.integers(0, 256, (count, 3, 4, 3), dtype=np.uint8)
        else:
            arrays[f"observations{key}"] = numbers(draw(st.integers(1, 12)))
    arrays["actions"] = numbers(draw(st.integers(1, 3)))
    arrays["rewards"] = rng.normal(size=count).astype(draw(st.sampled_from(["f4", "f8", "i4"])))
    ends = np.isin(np.arange(count), np.cumsum(lengths) - 1)
    arrays["terminals"] = ends & (rng.random(count) < draw(st.sampled_from([0.0, 0.5, 1.0])))
    if inner and draw(st.booleans()):
        arrays["terminals"] |= rng.random(count) < 0.2
    if draw(st.booleans()):
        arrays["successes"] = rng.random(count) < 0.3
    if draw(st.booleans()):
        for name in [n for n in arrays if n.startswith("observations")]:
            following = np.roll(arrays[name], -1, axis=0)
            following[ends] = arrays[name][::-1][ends]
            arrays[name.replace("observations", "next_observations", 1)] = following
        arrays["next"] = ends
    extra = {name: rng.normal(size=count) for name in draw(st.sets(st.sampled_from(["time", "motor_temp", "qpos"])))}
    return Log(arrays, lengths, extra)


def marked(log: Log, draw) -> dict[str, np.ndarray]:
    """The log's arrays with its ends marked in one of the ways that exist, under one of the names."""
    arrays = {name: array for name, array in log.arrays.items() if name not in ("next", "terminals")}
    terminals, count = log.arrays["terminals"], len(log.arrays["terminals"])
    ends = np.isin(np.arange(count), log.ends)
    number = np.repeat(np.arange(len(log.lengths)), log.lengths)
    inner = (terminals & ~ends).any()
    ways = {
        "episodes": {"terminals": terminals, "episode": number + 7},
        "gymnasium": {"terminations": terminals, "truncations": ends & ~terminals, "episode_id": number},
        "ends": {"terminal": terminals, "episode_ends": ends},
        "ogbench": {"masks": 1.0 - terminals, "terminals": ends.astype("f4")},
        "done": {"terminated": terminals, "done": ends},
    }
    if not inner:
        ways["d4rl"] = {"terminals": terminals, "timeouts": ends & ~terminals}
        ways["stable"] = {"dones": ends.astype("u1"), "timeouts": (ends & ~terminals).astype("i8")}
    return arrays | ways[draw(st.sampled_from(sorted(ways)))]


# -- writers -----------------------------------------------------------------------------------------------------------


def write_npz(folder: Path, arrays) -> str:
    np.savez(folder / "log.npz", **arrays)
    return f"npz:{folder}/log.npz"


def write_hdf5(folder: Path, arrays) -> str:
    """With every second array behind a soft link, and each third one also under a second, hard-linked name."""
    with h5py.File(folder / "log.hdf5", "w") as file:
        for number, (name, array) in enumerate(arrays.items()):
            if number % 2:
                file[f"raw/{number}"] = array
                parent, _, leaf = name.rpartition("/")
                (file.require_group(parent) if parent else file)[leaf] = h5py.SoftLink(f"/raw/{number}")
            else:
                file[name] = array
    return f"d4rl:{folder}/log.hdf5"


def columns_of(arrays) -> dict[str, list]:
    """One column of numbers for every entry, named as loggers do."""
    columns = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        if first not in ("observations", "next_observations", "actions"):
            columns[name] = array.tolist()
            continue
        base = first.removesuffix("s") + "".join(f".{part}" for part in rest.split("/") if part)
        for entry in range(array.shape[1]):
            columns[f"{base}.{entry}" if rest else f"{base}_{entry}"] = array[:, entry].tolist()
    return columns


def write_csv(folder: Path, arrays) -> str:
    columns = columns_of(arrays)
    with open(folder / "log.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return f"csv:{folder}/log.csv"


def cells(array: np.ndarray):
    """A Parquet column."""
    array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.uint8 and array.ndim == 4:
        return pa.array([{"bytes": png(image), "path": None} for image in array])
    return pa.array(array.tolist(), pa.list_(pa.from_numpy_dtype(array.dtype)) if array.ndim == 2 else None)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="image2pipe") as container:
        track = container.add_stream("png", width=image.shape[1], height=image.shape[0], pix_fmt="rgb24")
        for packet in [*track.encode(av.VideoFrame.from_ndarray(image, format="rgb24")), *track.encode()]:
            container.mux(packet)
    return stream.getvalue()


def write_parquet(folder: Path, arrays) -> str:
    """Two files in a folder, lists as cells."""
    table = pa.table({name.replace("/", "."): cells(np.asarray(array)) for name, array in arrays.items()})
    half = table.num_rows // 2
    pq.write_table(table.slice(0, half), folder / "part-2.parquet")
    pq.write_table(table.slice(half), folder / "part-10.parquet")
    return f"parquet:{folder}"


def write_robomimic(folder: Path, log: Log) -> str:
    """A group for every episode; `dones` are its terminals."""
    names = {"rewards": "rewards", "actions": "actions", "terminals": "dones", "successes": "success"}
    with h5py.File(folder / "demo.hdf5", "w") as file:
        for number, (end, length) in enumerate(zip(log.ends, log.lengths, strict=True)):
            rows = slice(end + 1 - length, end + 1)
            for name, array in (log.arrays | log.extra).items():
                if name != "next":
                    first, slash, rest = name.partition("/")
                    short = {"observations": "obs", "next_observations": "next_obs"}.get(first, names.get(first, first))
                    file[f"data/demo_{number}/{short}{slash}{rest}"] = array[rows]
        file["mask/train"] = np.array([b"demo_0"])
    return f"robomimic:{folder}/demo.hdf5"


def write_lerobot(folder: Path, log: Log, version="v3.0") -> str:
    """Rows in one Parquet file per episode; images inside it."""
    count = sum(log.lengths)
    number = np.repeat(np.arange(len(log.lengths)), log.lengths)
    names = {"actions": "action", "rewards": "next.reward", "terminals": "next.terminated", "successes": "next.success"}
    columns = {}
    for name, array in (log.arrays | log.extra).items():
        if name != "next":
            short = names.get(name, name.replace("observations", "observation").replace("/", "."))
            columns["observation.state" if short == "observation" else short] = array
    columns |= {"episode_index": number, "frame_index": np.concatenate([np.arange(n) for n in log.lengths])}
    columns |= {"index": np.arange(count), "timestamp": columns["frame_index"] / 10, "task_index": np.zeros(count, int)}
    table = pa.table({name: cells(np.asarray(array)) for name, array in columns.items()})
    for episode in range(len(log.lengths)):
        here = table.filter(pa.compute.equal(table["episode_index"], episode))
        path = f"chunk-000/file-{episode:03d}" if version == "v3.0" else f"chunk-000/episode_{episode:06d}"
        (folder / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(here, folder / f"data/{path}.parquet")
    write_info(folder, {name: np.asarray(array) for name, array in columns.items()}, version, total_frames=count)
    return f"lerobot:{folder}"


def write_info(folder: Path, columns, version="v3.0", videos=(), **more) -> None:
    """meta/info.json."""
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    features = {
        name: {
            "dtype": "video"
            if name in videos
            else "image"
            if array.dtype == np.uint8 and array.ndim == 4
            else "float32",
            "shape": list(array.shape[1:]) or [1],
            "names": None,
        }
        for name, array in columns.items()
    }
    info = {"codebase_version": version, "fps": 10, "chunks_size": 1000, "features": features, **more}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
