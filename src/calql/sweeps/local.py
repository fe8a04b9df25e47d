"""The local engine: one process per run, each on its own core; on a machine with a GPU, one run after the other."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Generator, Sequence

from calql.machine import has_accelerator, refuse_workers, take_core, threads
from calql.sweeps.engine import Status
from calql.sweeps.plan import Job
from calql.sweeps.process import Run, next_to_start, stop


@dataclasses.dataclass(frozen=True)
class Local:
    """Runs on this machine. Raises InputError for more workers than it bears.

    On a CPU each run is pinned to a core that no other sweep of this user uses; if all are taken, runs share cores.
    Several runs on one GPU allocate its memory on demand, not in advance. The output of a run goes to a log
    next to its directory. Leaving `run`, or the end of this process for any reason, stops the runs,
    which save their state; the same plan, started again, continues them.
    """

    workers: int | None = None
    """Number of parallel runs; None: one per core, or one on a machine with a GPU."""
    poll_s: float = 1.0
    """Seconds between two looks at the runs."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            refuse_workers("workers", self.workers)

    def left(self) -> str:
        """See `Engine.left`."""
        return "the runs have saved their work and stopped; the same command continues them"

    def run(self, jobs: Sequence[Job]) -> Generator[Status, None, None]:
        """See `Engine.run`."""
        gpu = has_accelerator()
        workers = self.workers or (1 if gpu else threads())
        settings = {} if gpu else {"OMP_NUM_THREADS": "1"}
        if gpu and workers > 1:
            settings["XLA_PYTHON_CLIENT_PREALLOCATE"] = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        waiting = [job for job in jobs if not job.done]
        ended = {job: 0 for job in jobs if job.done}
        running: dict[Job, Run] = {}
        try:
            while waiting or running:
                while len(running) < workers and (job := next_to_start(waiting, running)):
                    waiting.remove(job)
                    running[job] = Run(job, settings, None if gpu else take_core())
                for job, run in list(running.items()):
                    if run.poll() is not None:
                        ended[job] = run.returncode
                        running.pop(job).free()
                yield Status(list(running), dict(ended))
                time.sleep(self.poll_s)
        finally:
            stop(running.values())
