"""The local engine: one process a run, one core a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from calql.sweeps.plan import Job
from calql.training.pretrained import border
from calql.training.run_dir import RunDir


class Status(NamedTuple):
    """What the engine yields once in a while: which jobs run, which have ended, and with what exit code."""

    running: list[Job]
    ended: dict[Job, int]


def run_local(jobs: Sequence[Job], workers: int | None = None, poll_s: float = 1.0) -> Iterator[Status]:
    """Run the jobs that are not done, `workers` at a time (default: one a core); each is pinned to a core of its own.

    Each run's output goes to `log.txt` in its directory's parent, named after the seed. Stopping the generator stops
    the runs; started again, the same plan continues them from their checkpoints.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    free = [cores[i % len(cores)] for i in range(workers or len(cores))]
    waiting = [job for job in jobs if not job.done]
    ended = {job: 0 for job in jobs if job.done}
    running: dict[Job, tuple[subprocess.Popen, int]] = {}
    try:
        while waiting or running:
            while free and (job := next((job for job in waiting if not _will_be_given(job, running)), None)):
                waiting.remove(job)
                core = free.pop(0)
                running[job] = (_start(job, core), core)
            for job, (process, core) in list(running.items()):
                if process.poll() is not None:
                    ended[job] = process.returncode
                    free.append(core)
                    del running[job]
            yield Status(list(running), dict(ended))
            time.sleep(poll_s)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def _will_be_given(job: Job, running: Iterable[Job]) -> bool:
    """Whether the job's pre-training is being done by another, so that waiting for it costs nothing."""
    begun = (job.out / "config.json").exists()
    return not begun and any(other.out in job.siblings and not border(RunDir(other.out)) for other in running)


def log_path(job: Job) -> os.PathLike:
    """Where the output of a job goes."""
    return job.out.with_name(f"{job.out.name}.log")


def _start(job: Job, core: int) -> subprocess.Popen:
    def pin() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})

    job.out.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path(job), "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "calql", *job.arguments()],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=pin,
        )
