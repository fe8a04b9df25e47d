"""A run as a process of its own, the same under every engine: `calql train` in its own session, with a log."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from calql.machine import Core, pin
from calql.sweeps.plan import Job, pretrained

GRACE_S = 60.0
"""Seconds that a run has to save its state after it was asked to stop."""


class Run(subprocess.Popen):
    """The process of a run, which begins or continues it. Ctrl-C reaches only the process that started it."""

    asked = False

    def __init__(self, job: Job, settings: Mapping[str, str], core: Core | None = None) -> None:
        """Start the process, with `settings` of the environment, pinned to `core` (None: to none), which it frees."""
        self.core = core
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with log_path(job).open("a") as log:
            super().__init__(
                job.command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | settings,
                start_new_session=True,
            )
        if core:
            pin(self.pid, core.number)

    def ask_to_stop(self) -> None:
        """Ask the run to save and stop; once, as a second signal would interrupt the saving."""
        if not self.asked:
            self.asked = True
            self.terminate()

    def free(self) -> None:
        """Release the resources of an ended run."""
        assert self.stdin is not None
        self.stdin.close()
        if self.core:
            self.core.close()


def stop(runs: Iterable[Run]) -> None:
    """Ask the runs to save and stop, end those that take longer than `GRACE_S`, and free them all."""
    runs = list(runs)
    for run in runs:
        run.ask_to_stop()
    deadline = time.monotonic() + GRACE_S
    try:
        for run in runs:
            run.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for run in runs:
            run.kill()  # no effect if it has ended
            run.wait()
            run.free()


@contextmanager
def running(job: Job, folder: str, settings: Mapping[str, str], core: Core | None = None) -> Iterator[Run]:
    """A run for a sweep that was started in `folder`, probably on another machine; stopped at the end of the block."""
    os.chdir(folder)
    run = Run(job, settings, core)
    try:
        yield run
    finally:
        stop([run])


def log_path(job: Job) -> Path:
    """Log file for the output of a job."""
    return job.out.with_name(f"{job.out.name}.log")


def add_to_log(job: Job, text: str) -> None:
    """Add a line to the log of a job, which may have none yet."""
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with log_path(job).open("a", encoding="utf-8") as log:
        print(text, file=log)


def under_way(job: Job) -> bool:
    """Whether a process on any machine holds the run directory (or held it, and crashed)."""
    return (job.out / ".lock").exists()


def next_to_start(waiting: Iterable[Job], running: Iterable[Job]) -> Job | None:
    """The first job that no running job is about to give its pre-training: for such a gift it costs nothing to wait."""
    return next((job for job in waiting if not _will_be_given(job, running)), None)


def _will_be_given(job: Job, running: Iterable[Job]) -> bool:
    begun = (job.out / "config.json").exists()
    return not begun and any(other.out in job.siblings and not pretrained(other.out) for other in running)
