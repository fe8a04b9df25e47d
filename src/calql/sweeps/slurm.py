"""The SLURM engine: one job array by submitit, whose jobs save and are queued again when they are told to leave."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calql import files
from calql.extras import needed_for
from calql.sweeps.engine import Status, read_engine_options
from calql.sweeps.plan import Job
from calql.sweeps.process import under_way
from calql.sweeps.slurm_jobs import Task, ended_early, in_the_queue
from calql.types import InputError, RunError


@dataclasses.dataclass
class Slurm:
    """Runs as jobs of one array, which live on without this process: the same plan, started again, finds its jobs.

    Raises InputError if submitit or SLURM is missing, or for an option that is not one of submitit's parameters.
    """

    options: Sequence[str]
    """`name=value` texts: parameters of sbatch as submitit names them; `cluster=local` rehearses on this machine."""
    folder: Path
    """Where submitit keeps its files, on a file system that all machines see. jobs.json: the job of each run."""
    workers: int | None = None
    """Number of parallel runs; None: as many as SLURM allows."""
    cores: int = 1
    """Cores that a run uses."""
    poll_s: float = 10.0
    """Seconds between two looks at the jobs."""

    def __post_init__(self) -> None:
        with needed_for("--engine slurm"):
            import submitit
        known = submitit.SlurmExecutor._valid_parameters() | {"cluster"}
        given = {"time": 240, "job_name": "calql", "cpus_per_task": self.cores, "srun_args": []}
        given |= {"array_parallelism": self.workers} if self.workers else {}
        given |= read_engine_options(self.options, known, "slurm")
        for name in ("setup", "teardown", "srun_args"):  # lists, and one text is a list of one
            given |= {name: [given[name]]} if isinstance(given.get(name), str) else {}
        given["srun_args"].append(f"--cpus-per-task={given['cpus_per_task']}")  # since SLURM 22.05 not sbatch's own
        self.cluster, minutes = given.pop("cluster", "slurm"), given.pop("time")
        if not isinstance(minutes, int) or minutes < 5:  # the warning comes up to 150 seconds before the end
            raise InputError(f"time is {minutes}; give a whole number of minutes, at least 5, as in time=240")
        try:  # 1000: how often a job may reach its time limit and be queued again
            self.executor = submitit.AutoExecutor(self.folder, cluster=self.cluster, slurm_max_num_timeout=1000)
            self.executor.update_parameters(timeout_min=minutes, **{f"slurm_{name}": given[name] for name in given})
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            said = str(error).partition("\n")[0]
            raise InputError(f"--engine slurm: {said}; correct --engine-options, or use another --engine") from error
        self.ids: set[str] = set()

    def left(self) -> str:
        """See `Engine.left`."""
        end = f"scancel {' '.join(sorted(self.ids))}"
        return f"the jobs stay in the queue, and the same command shows them again; to end them (they save): {end}"

    def run(self, jobs: Sequence[Job]) -> Generator[Status, None, None]:
        """See `Engine.run`."""
        ended = {job: 0 for job in jobs if job.done}
        queue = self._queued([job for job in jobs if not job.done])
        queue |= self._submit([job for job in jobs if not job.done and job not in queue])
        self.ids = {place.job_id.partition("_")[0] for place in queue.values()}
        gone: set[Job] = set()
        while queue:
            before, gone = gone, {job for job, lives in self._living(queue).items() if not lives}
            for job, place in list(queue.items()):
                result = place.paths.result_pickle.exists()
                if job.done or result or job in gone & before:  # at the second look: a result may come late
                    ended[job] = 0 if job.done else place.result() if result else ended_early(job, place)
                    del queue[job]
            yield Status([job for job in queue if under_way(job)], dict(ended))
            time.sleep(self.poll_s)

    def _living(self, places: Mapping[Job, Any]) -> dict[Job, bool]:
        """Whether the jobs wait or run."""
        if self.cluster != "slurm":
            return {job: not place.done() for job, place in places.items()}
        told = in_the_queue()
        return {job: told is None or place.job_id in told for job, place in places.items()}

    def _queued(self, jobs: Sequence[Job]) -> dict[Job, Any]:
        """Jobs that an earlier call has submitted, and that wait or run."""
        if self.cluster != "slurm":
            return {}
        from submitit import SlurmJob

        known = self._known()
        found = {
            job: SlurmJob(self.folder, known[str(job.out.absolute())])
            for job in jobs
            if str(job.out.absolute()) in known
        }
        return {job: found[job] for job, lives in self._living(found).items() if lives}

    def _submit(self, jobs: Sequence[Job]) -> dict[Job, Any]:
        if not jobs:
            return {}
        try:
            places = self.executor.map_array(Task(), jobs, [os.getcwd()] * len(jobs))
        except (RuntimeError, OSError) as error:
            said = str(error).strip().splitlines()[-1:]
            raise RunError(f"SLURM took no jobs: {''.join(said)}; correct --engine-options, then try again") from error
        queue = dict(zip(jobs, places, strict=True))
        known = self._known() | {str(job.out.absolute()): place.job_id for job, place in queue.items()}
        files.write(self.folder / "jobs.json", json.dumps(known, indent=2) + "\n")
        return queue

    def _known(self) -> dict[str, str]:
        path = self.folder / "jobs.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
