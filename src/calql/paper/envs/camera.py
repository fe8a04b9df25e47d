"""Images of a MuJoCo scene without a display."""

from __future__ import annotations

import atexit
import os

import mujoco
import numpy as np

from calql.envs.headless import LIBRARIES, headless_gl
from calql.types import InputError


class Camera:
    """One fixed camera of a model, for any number of `MjData`. No shadows, no reflections.

    Raises InputError if no GL library can render.
    """

    def __init__(self, model: mujoco.MjModel, name: str) -> None:
        self._model, self._gl = model, _context()
        self._gl.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=200)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        atexit.register(self._free)  # at a later time, modules that it needs are gone
        self._option, self._view = mujoco.MjvOption(), mujoco.MjvCamera()
        self._view.type, self._view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id

    def _free(self) -> None:
        self._context.free()
        self._gl.free()

    def image(self, data: mujoco.MjData, size: int) -> np.ndarray:
        """[size, size, 3] uint8; `size` is at most the model's `offwidth`."""
        self._gl.make_current()  # other code may render too
        every = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._view, every, self._scene)
        window, image = mujoco.MjrRect(0, 0, size, size), np.empty((size, size, 3), np.uint8)
        mujoco.mjr_render(window, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, window, self._context)
        return image[::-1].copy()  # GL counts rows from below


def _context():
    """A GL context of the library that `MUJOCO_GL` names."""
    headless_gl()
    wanted = os.environ.get("MUJOCO_GL", "glfw").lower()
    try:
        if wanted == "egl":
            from mujoco.egl import GLContext
        elif wanted == "osmesa":
            from mujoco.osmesa import GLContext
        else:
            from mujoco.glfw import GLContext
        return GLContext(480, 480)
    except Exception as error:
        packages = " or ".join(package for _, package in LIBRARIES.values())
        raise InputError(
            f"cannot render with {wanted} ({error}); install {packages}, or set MUJOCO_GL to egl or osmesa"
        ) from error
