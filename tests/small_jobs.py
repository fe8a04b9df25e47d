"""Small programs that take the place of runs, for tests of engines: they say where they are, and wait for a file."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

RUN = """
import os, sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir()
names = ("OMP_NUM_THREADS", "XLA_PYTHON_CLIENT_PREALLOCATE")
settings = " ".join(os.environ.get(name, "unset") for name in names)
time.sleep(0.2)  # until it is pinned
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
(out / "found.tmp").write_text(f"{os.getpid()}\\n{settings}\\n{cores}\\n")
(out / "found.tmp").rename(out / "found")
while not (out.parent / "go").exists():
    time.sleep(0.02)
sys.exit(3 if out.name == "bad" else 0)
"""


@dataclasses.dataclass(frozen=True)
class Job:
    """What the engine asks of a job."""

    out: Path
    siblings: tuple = ()
    done: bool = False
    program: str = RUN

    def command(self):
        return [sys.executable, "-c", self.program, str(self.out)]

    def wait(self) -> tuple[int, str, list[int]]:
        """(process, settings, cores) of the run, once it is under way."""
        until(lambda: (self.out / "found").exists())
        process, settings, cores = (self.out / "found").read_text().splitlines()
        return int(process), settings, [int(n) for n in cores.strip("[]").split(",") if n]


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
        return b") Z " not in Path(f"/proc/{process}/stat").read_bytes()  # dead, and nobody asked how it ended
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # no /proc, or gone by now
        return sys.platform != "linux"
