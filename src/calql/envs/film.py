"""The first episode of an environment as an MP4 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from calql.envs.make import RENDERING, reason
from calql.envs.wrappers import control_rate
from calql.extras import needed_for
from calql.types import InputError

FRAMES_PER_SECOND = 10
"""Of an environment whose metadata state no `render_fps`."""


class Filmed(gymnasium.Wrapper):
    """Films the first episode, a frame of every state: no other environment, and no further reset, is needed for it.

    The environment must have been made with the render mode `rgb_array`. `reset` and `step` raise InputError if it
    cannot be drawn. The file is whole after the next reset, or after `finish`.
    """

    def __init__(self, env: gymnasium.Env, path: Path) -> None:
        """Raises InputError as `refuse_film` does."""
        super().__init__(env)
        refuse_film(path)
        self.path = path
        self._writer: Any = None
        self._shape: tuple[int, ...] | None = None

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """Reset the environment; at the first time the film begins, at the next it ends."""
        found = self.env.reset(**options)
        if self._shape is None:
            self._film()
        else:
            self.finish()
        return found

    def step(self, action: np.ndarray) -> tuple:
        """Step the environment, and draw it if the first episode goes on."""
        found = self.env.step(action)
        if self._writer is not None:
            self._film()
        return found

    def finish(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _film(self) -> None:
        try:
            drawn = self.env.render()
        except NotImplementedError:
            drawn = None
        except Exception as error:
            raise InputError(f"the environment cannot be rendered: {reason(error)}; {RENDERING}") from error
        if drawn is None:
            raise InputError("the environment draws nothing (render() gives no image); leave the video out")
        frame = np.asarray(drawn)
        if self._shape is None and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3:
            self._begin(frame.shape)
        if frame.dtype != np.uint8 or frame.shape != self._shape:
            raise InputError(
                f"render() gives {frame.dtype} {frame.shape}; a video needs uint8 [height, width, 3], all of one size"
            )
        self._writer.append_data(frame)

    def _begin(self, shape: tuple[int, ...]) -> None:
        import imageio.v2 as imageio

        fps = control_rate(self.env) or FRAMES_PER_SECOND
        self._writer, self._shape = imageio.get_writer(self.path, fps=fps, macro_block_size=1), shape


def refuse_film(path: Path) -> None:
    """Raise InputError if no film can be written there, or the [video] extra is missing."""
    with needed_for("filming"):
        import imageio.v2  # noqa: F401
        import imageio_ffmpeg  # noqa: F401 (the codec that imageio looks for)
    if path.suffix != ".mp4":
        raise InputError(f"a video is written as FILE.mp4, not {path}; name it so")
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another --video") from error
    if not there:
        path.unlink()
