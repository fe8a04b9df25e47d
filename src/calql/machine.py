"""The machine: cores, device, memory; and provenance: command, versions, commit of the source tree."""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NamedTuple

PACKAGES = ("calql", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "gymnasium-robotics", "mujoco", "minari")
COMMIT = Path(__file__).with_name("commit.txt")
"""In a built package, the commit that it was built from (hatch_build.py)."""


# -- provenance --------------------------------------------------------------------------------------------------------


def start_record() -> dict[str, Any]:
    """One start of a run: `provenance`, and when (UTC, ISO 8601) and where: the usable cores, and the device of JAX."""
    import jax

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "host": platform.node(),
        "cpu": cpu_model(),
        "cores": cores(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
    }


def provenance() -> dict[str, Any]:
    """What made this: the command, versions, platform, and the commit of the code (None where nobody knows it)."""
    versions = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    command = ["calql", *sys.argv[1:]] if Path(sys.argv[0]).name in ("calql", "__main__.py") else sys.argv
    return {
        "command": shlex.join(command),
        "git_commit": git_commit(),
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def git_commit() -> str | None:
    """Commit of this code: of the repository that tracks this very file (`-dirty` where that has changes), else the one
    that the package was built from; None where neither is known."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return COMMIT.read_text().strip() if COMMIT.exists() else None


def program() -> list[str]:
    """The words that call `calql` again from this folder, as it was called now."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [from_here(sys.executable), "-m", "calql"]
    found = shutil.which("calql")
    if called.name != "calql" or not called.exists() or (found and called.samefile(found)):
        return ["calql"]
    return [from_here(called)]


def from_here(path: Path | str) -> str:
    """The path, shorter where it lies below the current folder."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# -- cores and devices -------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """Numbers of the cores that this process may use (SLURM, cgroups and taskset are heeded where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads() -> int:
    """Number of cores that this process may use."""
    return len(cores())


def pin(process: int, core: int) -> None:
    """Keep a process of ours, by its id, on one core, where the system has a way to say so."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # it has ended, or may not be moved
            os.sched_setaffinity(process, {core})


class Core(NamedTuple):
    """A core of this machine that no other calql of this user takes as long as this is open (or its process lives)."""

    number: int
    lock: IO[bytes]

    def close(self) -> None:
        """Let others have it."""
        self.lock.close()


def take_core() -> Core | None:
    """The first free core, to be closed after use; None where all are taken, or where locks cannot be had."""
    folder = cache() / "cores"
    for number in cores():
        with suppress(OSError), ExitStack() as unless_taken:
            folder.mkdir(parents=True, exist_ok=True)
            lock = unless_taken.enter_context((folder / f"{platform.node()}-{number}").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unless_taken.pop_all()
            return Core(number, lock)
    return None


def cache() -> Path:
    """This user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calql"


def has_accelerator() -> bool:
    """Whether JAX would compute on a GPU (or another accelerator), told without starting JAX.

    JAX_PLATFORMS decides where it is set; otherwise an NVIDIA GPU counts that is visible and has its plug-in installed.
    """
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0].strip() != "cpu"
    plugged = any(entry.name.startswith("xla_cuda") for entry in metadata.entry_points(group="jax_plugins"))
    return plugged and bool(visible_gpus())


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, a line of `nvidia-smi --list-gpus` each; none without a driver."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None and (not allowed.strip() or allowed.strip().startswith("-1")):
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU")]
    return lines if allowed is None else lines[: len(allowed.split(","))]


def cpu_model() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def memory_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def machine() -> dict[str, Any]:
    """Processor, device, threads and versions."""
    import jax

    return {
        "cpu": cpu_model(),
        "device": jax.devices()[0].device_kind,
        "threads": threads(),
        "python": platform.python_version(),
        "calql": metadata.version("calql"),
        "jax": metadata.version("jax"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }
