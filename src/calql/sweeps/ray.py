"""The Ray engine: one remote task per run, on this machine or on a cluster, several on a GPU if you like."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from calql.extras import needed_for
from calql.machine import take_core, threads
from calql.sweeps.engine import Status, read_engine_options
from calql.sweeps.plan import Job
from calql.sweeps.process import GRACE_S, add_to_log, next_to_start, running, under_way
from calql.types import InputError

OPTIONS = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "scheduling_strategy", "max_retries")
"""Options of Ray's tasks that --engine-options passes on, besides `address`."""


def do(job: Job, folder: str, settings: Mapping[str, str], pinned: bool) -> int:
    """What a task does: the run; returns its exit code. An exception, which cancelling is, stops the run, which saves.

    Args:
        job: the run.
        folder: where the sweep was started.
        settings: environment variables.
        pinned: whether the run gets a core of its own.
    """
    with running(job, folder, settings, take_core() if pinned else None) as process:
        while process.poll() is None:
            time.sleep(0.2)  # not `wait`, which Ray cannot interrupt
        return process.returncode


@dataclasses.dataclass
class Ray:
    """Runs as tasks of Ray, which stop and save when `run` is left. A task whose machine is lost goes on elsewhere.

    Raises InputError if Ray or the cluster is missing, or for an unknown option.
    """

    options: Sequence[str]
    """`name=value` texts: `address` of a cluster (by default RAY_ADDRESS, or else a Ray of this machine), `OPTIONS`."""
    workers: int | None = None
    """Number of parallel runs; None: as many as the cluster has room for."""
    cores: int = 1
    """Cores that a run uses."""
    poll_s: float = 1.0
    """Seconds between two looks at the tasks."""

    def __post_init__(self) -> None:
        with needed_for("--engine ray"):
            import ray  # noqa: F401
        given = read_engine_options(self.options, {"address", *OPTIONS}, "ray")
        self.address = given.pop("address", None)
        self.given = {"num_cpus": self.cores, "max_retries": 10} | given

    def left(self) -> str:
        """See `Engine.left`."""
        return "the runs have saved their work and stopped; the same command continues them"

    def run(self, jobs: Sequence[Job]) -> Generator[Status, None, None]:
        """See `Engine.run`."""
        import ray

        waiting = [job for job in jobs if not job.done]
        ended = {job: 0 for job in jobs if job.done}
        tasks: dict[Any, Job] = {}
        ours = not ray.is_initialized() and self._connect()
        try:
            self.given.setdefault("num_gpus", 1 if ray.cluster_resources().get("GPU") else 0)
            how = os.getcwd(), _settings(**self.given), self.given["num_cpus"] == 1 and not self.given["num_gpus"]
            try:
                task = ray.remote(**self.given)(do)
            except (TypeError, ValueError) as error:
                raise InputError(f"--engine ray: {error}; correct --engine-options") from error
            while waiting or tasks:
                while len(tasks) < (self.workers or len(jobs)) and (job := next_to_start(waiting, tasks.values())):
                    waiting.remove(job)
                    tasks[task.remote(job, *how)] = job
                for ref in ray.wait(list(tasks), num_returns=len(tasks), timeout=self.poll_s)[0]:
                    job = tasks.pop(ref)
                    ended[job] = _exit_code(job, ref)
                yield Status([job for job in tasks.values() if under_way(job)], dict(ended))
        finally:
            for ref in tasks:
                ray.cancel(ref)
            if tasks:
                ray.wait(list(tasks), num_returns=len(tasks), timeout=GRACE_S)
            if ours:
                ray.shutdown()

    def _connect(self) -> bool:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported unless the user wants it
        here = {} if self.address or os.environ.get("RAY_ADDRESS") else {"num_cpus": threads()}
        here |= {"include_dashboard": False} if here else {}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.address, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, ValueError) as error:
            said = str(error).partition("\n")[0]
            raise InputError(f"no Ray cluster at {self.address}: {said}; start one: ray start --head") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has set its own
        return True


def _settings(num_cpus: float, num_gpus: float, **_: object) -> dict[str, str]:
    """Environment variables of a run that has this share of a machine; those of the user win."""
    settings = {"OMP_NUM_THREADS": str(max(1, int(num_cpus)))}
    if not num_gpus:
        settings["JAX_PLATFORMS"] = "cpu"
    elif num_gpus < 1:
        settings["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return {name: os.environ.get(name, value) for name, value in settings.items()}


def _exit_code(job: Job, ref: Any) -> int:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        add_to_log(job, f"Ray: {' '.join(str(error).split())}")
        return 1
