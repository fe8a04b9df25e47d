"""The Ray engine: one remote task per run, on this machine or on a cluster, several on a GPU if you like."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
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
"""Options of Ray's tasks that --engine-options passes on."""


def do(job: Job, folder: str, settings: Mapping[str, str], pinned: bool) -> int:
    """The task: do the run in `folder`, with `settings` of the environment, pinned or not; returns its exit code."""
    with running(job, folder, settings, take_core() if pinned else None) as run:
        while run.poll() is None:
            time.sleep(0.2)  # not `wait`, which Ray cannot interrupt
        return run.returncode


@dataclasses.dataclass
class Ray:
    """Runs as tasks of Ray, which save and stop when `run` is left. A task whose machine is lost goes on elsewhere.

    Raises InputError if Ray or the cluster is missing, or for an unknown option.
    """

    options: Sequence[str]
    """`name=value` texts: `OPTIONS`, and the `address` of a cluster (by default RAY_ADDRESS, or else this machine)."""
    workers: int | None = None
    """Number of parallel runs; None: as many as there is room for."""
    cores: int = 1
    """Cores that a run uses."""
    poll_s: float = 1.0
    """Seconds between two looks at the tasks."""

    def __post_init__(self) -> None:
        with needed_for("--engine ray"):
            import ray  # noqa: F401
        given = read_engine_options(self.options, {"address", *OPTIONS}, "ray")
        self.address = given.pop("address", None) or os.environ.get("RAY_ADDRESS")
        self.given = {"num_cpus": self.cores, "max_retries": 10} | given

    def left(self) -> str:
        """See `Engine.left`."""
        return "the runs have saved their work and stopped; the same command continues them"

    def run(self, jobs: Sequence[Job]) -> Generator[Status, None, None]:
        """See `Engine.run`."""
        import ray

        ended, tasks = {job: 0 for job in jobs if job.done}, {}
        waiting = [job for job in jobs if not job.done]
        ours = not ray.is_initialized() and self._connect()
        try:
            given: dict[str, Any] = {"num_gpus": 1 if ray.cluster_resources().get("GPU") else 0} | self.given
            try:
                how = os.getcwd(), _settings(**given), given["num_cpus"] == 1 and not given["num_gpus"]
                task = ray.remote(**given)(do)
            except (TypeError, ValueError) as error:
                raise InputError(f"--engine ray: {error}; correct --engine-options") from error
            while waiting or tasks:
                while len(tasks) < (self.workers or len(jobs)) and (job := next_to_start(waiting, tasks.values())):
                    waiting.remove(job)
                    tasks[task.remote(job, *how)] = job
                for ref in ray.wait([*tasks], num_returns=len(tasks), timeout=self.poll_s)[0]:
                    ended[tasks[ref]] = _exit_code(tasks[ref], ref)
                    del tasks[ref]
                yield Status([job for job in tasks.values() if under_way(job)], dict(ended))
        finally:
            for ref in tasks:
                ray.cancel(ref)
            if tasks:
                ray.wait([*tasks], num_returns=len(tasks), timeout=GRACE_S)
            if ours:
                ray.shutdown()

    def _connect(self) -> bool:
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported unless the user asks for it
        here = {} if self.address else {"num_cpus": threads(), "include_dashboard": False}
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, **here)
        except (ConnectionError, ValueError) as error:
            said = str(error).partition("\n")[0]
            raise InputError(f"no Ray cluster at {self.address} ({said}); start one: ray start --head") from error
        signal.signal(signal.SIGTERM, ours)  # Ray has set its own
        return True


def _settings(num_cpus: float, num_gpus: float, **_: object) -> dict[str, str]:
    """Environment variables of a run with this share of a machine; the user's own win."""
    settings = {"OMP_NUM_THREADS": str(max(1, int(num_cpus)))}
    settings |= {} if num_gpus else {"JAX_PLATFORMS": "cpu"}
    settings |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if 0 < num_gpus < 1 else {}
    return {name: os.environ.get(name, value) for name, value in settings.items()}


def _exit_code(job: Job, task: Any) -> int:
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(task)
    except RayError as error:
        add_to_log(job, f"Ray: {str(error).strip().splitlines()[-1]}")
        return 1
