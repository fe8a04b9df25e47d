"""Images and videos of recordings → uint8 [N, H, W, 3], decoded by FFmpeg's libraries (PyAV)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calql.data.readers.files import reason
from calql.extras import needed_for
from calql.types import InputError


def decode_images(where: str, files: Sequence[bytes | None], size: int | None = None) -> np.ndarray:
    """uint8 [N, H, W, 3] of N encoded images (PNG, JPEG, …), scaled to `size` × `size` pixels if it is given.

    Raises InputError if one is missing, cannot be decoded, or has another size than the first.
    """
    images: np.ndarray | None = None
    for row, content in enumerate(files):
        if content is None:
            raise InputError(f"{where}: the image of row {row} is not in the file; export it with its images")
        image = next(_frames(f"{where}: the image of row {row}", io.BytesIO(content), size))[1]
        if images is None:
            images = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise InputError(
                f"{where}: the image of row {row} has {image.shape[:2]} pixels, the first {images.shape[1:3]}; scale "
                "them with #image_size=84"
            )
        images[row] = image
    return np.zeros((0, 1, 1, 3), np.uint8) if images is None else images


def decode_video(
    where: str, file: Path, times: np.ndarray, fps: float, out: np.ndarray | None, rows: np.ndarray, total: int,
    size: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Put the frames at ascending `times` [s] of a video into those `rows` of `out` (made if None) [total, H, W, 3].

    Raises InputError if the file is missing or damaged, or has no frame within a quarter of 1 / fps of a time.
    """
    if not file.is_file():
        raise InputError(f"{where}: the video {file.name} is missing ({file}); download the data set with its videos")
    reached = np.zeros(len(times), bool)
    for time, frame in _frames(f"{where}: {file}", str(file), size):
        first, last = np.searchsorted(times, [time - 0.25 / fps, time + 0.25 / fps])
        if first < last:
            out = np.empty((total, *frame.shape), np.uint8) if out is None else out
            if frame.shape != out.shape[1:]:
                raise InputError(f"{where}: {file} has frames of another size; scale them with #image_size=84")
            out[rows[first:last]] = frame
            reached[first:last] = True
        if first == len(times):
            break
    if out is None or not reached.all():
        raise InputError(f"{where}: {file} has no frame at {times[~reached][0]:.3f} s; download or record it again")
    return out


def _frames(where: str, source: Any, size: int | None) -> Iterator[tuple[float, np.ndarray]]:
    """(time in s, uint8 [H, W, 3]) of every frame. Raises InputError if there is none or the file is damaged."""
    with needed_for(where):
        import av  # here, because most runs do not need it
    count = 0
    try:
        with av.open(source, "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):  # pyright: ignore[reportAttributeAccessIssue] (opened to read)
                count += 1
                scaled = {} if size is None else {"width": size, "height": size, "interpolation": "AREA"}
                yield float(frame.time or 0.0), frame.reformat(format="rgb24", **scaled).to_ndarray()
    except Exception as error:  # FFmpeg's errors are of many kinds
        raise InputError(f"{where} cannot be decoded ({reason(error)}); download or record it again") from error
    if not count:
        raise InputError(f"{where} holds no frame; download or record it again")
