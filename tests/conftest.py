"""What holds for every test: a CPU, one thread a worker, strict JAX, no display, and nothing of the user's touched.

All of it is set through the environment, before JAX is imported, so that the commands which tests start inherit it.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

assert "jax" not in sys.modules, "a pytest plug-in imported JAX before its settings were made"

ROOT = Path(__file__).resolve().parents[1]

# One thread per worker: workers are the parallelism, and sums are taken in one order. Without XLA's fusion emitters
# programs run slower, but most of the time of compiling them is saved. Splitting a program to compile it on several
# threads costs time when there is only one.
FLAGS = ("multi_thread_eigen=false", "use_fusion_emitters=false", "parallel_codegen_split_count=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_cpu_{flag}" for flag in FLAGS))
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Silent broadcasting of ranks is an error.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Compiling is most of what tests of small networks do: half of it, for slower programs.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Compile once, over all sessions, workers and commands: one folder, as its path is a part of JAX's keys. An entry that
# is still being written, or was when a test killed the process, cannot be read: JAX says so, and compiles.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # a command compiles a hundred programs of no size
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"  # of commands; ours: pyproject

# Likewise Python: where the packages were installed without their compiled files, and none may be written beside them,
# a command takes five seconds more.
sys.dont_write_bytecode, sys.pycache_prefix = False, str(ROOT / ".cache" / "python")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Tracing makes objects by the million, few of them garbage: looking through all of them less often saves a twentieth.
gc.set_threshold(50_000)

# Draw without a display; log without a network.
os.environ["MPLBACKEND"] = "Agg"
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

# Started in the background or by nohup, a process ignores these, and so would the commands that tests stop with them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Data sets of this session only.
os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp(prefix="calql-datasets-")


MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def not_too_many_programs():
    """Compiled programs take memory, some gigabytes by 15,000 maps, of which Linux gives a process 65,530; beyond them,
    the compiler crashes."""
    yield
    if "jax" in sys.modules and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 15_000:
        sys.modules["jax"].clear_caches()


SCHEDULING = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None


@pytest.fixture(autouse=True)
def later_tests_are_not_behind_all_programs():
    """A training beside a robot lets all other programs go first, for as long as its process lives: where others are
    busy, tests after it would take for ever."""
    yield
    if SCHEDULING is not None and (left := os.sched_getscheduler(0)) != SCHEDULING:
        os.sched_setscheduler(0, SCHEDULING, os.sched_param(0))
        raise AssertionError(f"this test left its process with scheduling policy {left}")


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["MINARI_DATASETS_PATH"], ignore_errors=True)
