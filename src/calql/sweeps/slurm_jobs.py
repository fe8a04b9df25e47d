"""Jobs of SLURM: what one does on its machine, and which there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from calql.sweeps.plan import Job
from calql.sweeps.process import GRACE_S, Run, add_to_log, running, stop


class Task:
    """A run. At its signal, before the time limit or at preemption, submitit calls `checkpoint` and queues it again."""

    process: Run | None = None

    def __call__(self, job: Job, folder: str) -> int:
        """Do the run; returns its exit code."""
        signal.signal(signal.SIGTERM, self._stop)  # submitit would ignore it
        threads = {"OMP_NUM_THREADS": os.environ.get("SLURM_CPUS_PER_TASK", "1")} | os.environ
        with running(job, folder, threads) as self.process:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)  # `wait` locks, and a handler waits, too
            code = self.process.wait()
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):  # cancelled or preempted, and the run has saved
            time.sleep(GRACE_S)  # until SLURM ends this job, or submitit's signal queues it again
            sys.exit(code)
        return code

    def _stop(self, *_: object) -> None:
        if self.process:
            self.process.ask_to_stop()

    def checkpoint(self, job: Job, folder: str) -> Any:
        """Save the run; what is left to do is the same."""
        from submitit.helpers import DelayedSubmission

        if self.process:
            stop([self.process])
        return DelayedSubmission(Task(), job, folder)


def in_the_queue() -> set[str] | None:
    """Ids of this user's jobs that wait or run; None if SLURM does not answer now.

    submitit asks SLURM's accounting instead, which many clusters do not have.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        return {*subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()}
    except (OSError, subprocess.SubprocessError):
        return None


def ended_early(job: Job, place: Any) -> int:
    """Say in the run's log that its job (submitit's, at `place`) ended without a result; returns an exit code."""
    said = (place.stderr() or "").strip().splitlines()[-1:]
    add_to_log(job, f"SLURM job {place.job_id} ended early: {''.join(said)} ({place.paths.stderr})")
    return 1
