"""The local engine: one process per run, each on its own core; on a machine with a GPU, one run after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from calql.machine import Core, has_accelerator, pin, take_core, threads
from calql.sweeps.plan import Job, pretrained

PROGRAM = (sys.executable, "-m", "calql.cli.child")
"""`calql`, except that it ends with the process that started it."""
GRACE_S = 60.0
"""Seconds that a run has to save its state after it was asked to stop."""


class Status(NamedTuple):
    """What the engine yields at each poll: the running jobs, and the ended jobs with their exit codes."""

    running: list[Job]
    ended: dict[Job, int]


class _Run(NamedTuple):
    process: subprocess.Popen
    core: Core | None

    def free(self) -> None:
        """Release the resources of an ended run."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.core:
            self.core.close()


def run_local(jobs: Sequence[Job], workers: int | None = None, poll_s: float = 1.0) -> Generator[Status, None, None]:
    """Run the jobs that are not done, `workers` at a time (default: one per core; one on a machine with a GPU).

    On a CPU each run is pinned to a core that no other sweep of this user uses; if all are taken, runs share cores.
    Several runs on one GPU allocate its memory on demand, not in advance. The output of a run goes to a log
    next to its directory. Closing the generator, or the end of this process for any reason, stops the runs,
    which save their state; the same plan, started again, continues them.
    """
    gpu = has_accelerator()
    workers = workers or (1 if gpu else threads())
    settings = {} if gpu else {"OMP_NUM_THREADS": "1"}
    if gpu and workers > 1:
        settings["XLA_PYTHON_CLIENT_PREALLOCATE"] = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    waiting = [job for job in jobs if not job.done]
    ended = {job: 0 for job in jobs if job.done}
    running: dict[Job, _Run] = {}
    try:
        while waiting or running:
            while len(running) < workers and (
                job := next((job for job in waiting if not _will_be_given(job, running)), None)
            ):
                waiting.remove(job)
                running[job] = _start(job, None if gpu else take_core(), settings)
            for job, run in list(running.items()):
                if run.process.poll() is not None:
                    ended[job] = run.process.returncode
                    running.pop(job).free()
            yield Status(list(running), dict(ended))
            time.sleep(poll_s)
    finally:
        _stop(running.values())


def _stop(runs: Iterable[_Run]) -> None:
    for run in runs:
        run.process.terminate()
    deadline = time.monotonic() + GRACE_S
    try:
        for run in runs:
            run.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for run in runs:
            run.process.kill()  # no effect if it has ended
            run.process.wait()
            run.free()


def _will_be_given(job: Job, running: Iterable[Job]) -> bool:
    """Whether a running job is doing the same pre-training, so that waiting for it costs nothing."""
    begun = (job.out / "config.json").exists()
    return not begun and any(other.out in job.siblings and not pretrained(other.out) for other in running)


def log_path(job: Job) -> Path:
    """Log file for the output of a job."""
    return job.out.with_name(f"{job.out.name}.log")


def _start(job: Job, core: Core | None, settings: dict[str, str]) -> _Run:
    """Start a run in its own session: Ctrl-C reaches only this process, which then stops the run."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path(job), "a") as log:
        process = subprocess.Popen(
            [*PROGRAM, *job.arguments()],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | settings,
            start_new_session=True,
        )
    if core:
        pin(process.pid, core.number)
    return _Run(process, core)
