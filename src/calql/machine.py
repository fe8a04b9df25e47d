"""Cores, devices and memory of this machine, and provenance: command, versions and commit of the code."""

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

from calql.commit import git_commit
from calql.types import InputError

PACKAGES = ("calql", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "gymnasium-robotics", "mujoco", "minari")


# -- provenance --------------------------------------------------------------------------------------------------------


def start_record() -> dict[str, Any]:
    """Record of one start of a run: `provenance`, time (UTC, ISO 8601), host, processor, usable cores, JAX device."""
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
    """Command, versions of packages and Python, platform, and commit of the code (None if unknown)."""
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


def program() -> list[str]:
    """The beginning of a command line that calls `calql` from the current folder in the same way as this process."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [from_here(sys.executable), "-m", "calql"]
    found = shutil.which("calql")
    if called.name != "calql" or not called.exists() or (found and called.samefile(found)):
        return ["calql"]
    return [from_here(called)]


def from_here(path: Path | str) -> str:
    """The path, relative to the current folder if it is inside it."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# -- cores and devices -------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """Numbers of the cores that this process may use: its CPU affinity, as set by SLURM, cgroups or taskset; all cores
    on systems without CPU affinity."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads() -> int:
    """Number of cores that this process may use."""
    return len(cores())


PROCESSES_PER_CORE = 8
"""More of our processes per core of the machine are a mistake: they would use up its memory, and then nobody's work is
safe."""


def refuse_workers(name: str, count: int, least: int = 1) -> None:
    """Raise InputError if the option `name` asks for fewer processes than `least`, or for more than a machine bears."""
    if count < least:
        raise InputError(f"{name} is {count}; it must be at least {least} (without it: the default)")
    if count > (most := PROCESSES_PER_CORE * (os.cpu_count() or 1)):
        raise InputError(
            f"{name} is {count}; this machine has {os.cpu_count()} cores, so give at most {most}: one per core is usual"
        )


def pin(process: int, core: int) -> None:
    """Pin one of our processes, given by its id, to a core; does nothing on systems without CPU affinity."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # the process has ended, or pinning is not permitted
            os.sched_setaffinity(process, {core})


class Core(NamedTuple):
    """A core that is reserved among the calql processes of this user until `close` is called or the process ends."""

    number: int
    lock: IO[bytes]

    def close(self) -> None:
        """Release the core."""
        self.lock.close()


def take_core() -> Core | None:
    """Reserve the first free core; the caller must close it. None if all are reserved or files cannot be locked."""
    folder = cache() / "cores"
    for number in cores():
        with suppress(OSError), ExitStack() as on_failure:
            folder.mkdir(parents=True, exist_ok=True)
            lock = on_failure.enter_context((folder / f"{platform.node()}-{number}").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            on_failure.pop_all()  # keeps the file, and with it the lock, open
            return Core(number, lock)
    return None


def cache() -> Path:
    """This user's cache folder for calql."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calql"


def before_all_others() -> None:
    """Give this thread real-time scheduling. Raises InputError if this machine does not let it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, OSError) as error:  # macOS has no such call
        raise InputError(
            f"no real-time scheduling here ({error}); leave --real-time out, or run as root or with an rtprio limit"
        ) from error


def after_others() -> None:
    """Let all other programs of the machine run before this process, which gets what they leave. It needs no rights."""
    if not hasattr(os, "SCHED_IDLE"):  # macOS: the lowest priority is what there is
        os.nice(20)
        return
    for thread in Path("/proc/self/task").iterdir():  # later threads and processes take it over
        with suppress(OSError):  # the thread has ended
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def refuse_unusable_jax(devices: bool = True) -> None:
    """Raise InputError if JAX computes in 64 bits, or (if `devices`) lacks the platform asked for."""
    import jax

    if jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError("JAX is set to 64 bits (JAX_ENABLE_X64), and calql computes in 32; unset it")
    if devices:
        try:
            jax.devices()
        except Exception as error:  # a driver may raise anything
            said = str(error).partition("\n")[0] or type(error).__name__
            asked = jax.config.jax_platforms or "default"  # pyright: ignore[reportAttributeAccessIssue]
            raise InputError(
                f"JAX finds no device of platform '{asked}' ({said}); unset JAX_PLATFORMS, or install JAX for it"
            ) from error


def has_accelerator() -> bool:
    """Whether JAX would use a GPU or another accelerator, determined without starting JAX.

    If JAX_PLATFORMS is set, its first entry decides; otherwise true if an NVIDIA GPU is visible and JAX's CUDA plug-in
    is installed.
    """
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0].strip() != "cpu"
    has_plugin = any(entry.name.startswith("xla_cuda") for entry in metadata.entry_points(group="jax_plugins"))
    return has_plugin and bool(visible_gpus())


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, one line of `nvidia-smi --list-gpus` each; [] without a driver."""
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
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def memory_mb() -> float:
    """Peak resident memory of this process so far, in MB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def machine() -> dict[str, Any]:
    """Processor, JAX device, number of usable cores, versions and XLA flags, for benchmarks."""
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
