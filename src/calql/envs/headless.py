"""Chooses the GL library on a machine without a display; must happen before MuJoCo is imported."""

from __future__ import annotations

import ctypes.util
import os
import sys

LIBRARIES = {"egl": ("EGL", "libegl1"), "osmesa": ("OSMesa", "libosmesa6")}
"""MUJOCO_GL → (library name for the linker, Debian package)."""


def headless_gl() -> None:
    """Let MuJoCo render through EGL, or else OSMesa, if there is no display and `MUJOCO_GL` is not set."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        found = [name for name, (library, _) in LIBRARIES.items() if ctypes.util.find_library(library)]
        os.environ.setdefault("MUJOCO_GL", (found or ["egl"])[0])
