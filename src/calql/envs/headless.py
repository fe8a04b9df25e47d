"""Which library draws where there is no display; to be decided before MuJoCo is imported."""

from __future__ import annotations

import ctypes.util
import os
import sys

LIBRARIES = {"egl": ("EGL", "libegl1"), "osmesa": ("OSMesa", "libosmesa6")}
"""MUJOCO_GL → name of the library that the linker knows, Debian package that has it."""


def headless_gl() -> None:
    """Let MuJoCo render through EGL, or else OSMesa, where there is no display and `MUJOCO_GL` does not say."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        found = [name for name, (library, _) in LIBRARIES.items() if ctypes.util.find_library(library)]
        os.environ.setdefault("MUJOCO_GL", (found or ["egl"])[0])
