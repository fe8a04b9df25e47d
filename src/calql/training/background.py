"""Evaluations in processes of their own, on copies of the policy, while training goes on.

`python -m calql.training.background FD` is such a process. It gets its work over the socket FD, which is closed when
the run's process is gone, however that ended. Rows come back in the order of the evaluations, and are the same as if
the run had waited for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

import jax

from calql.algorithms.protocol import UpdateRule
from calql.machine import refuse_workers
from calql.tasks import Task
from calql.training.collect import EnvironmentFailed, Environments
from calql.training.experiment import name_of
from calql.training.measure import policy_row
from calql.types import InputError, PyTree, Spec

NOT_THERE = (
    "another process cannot make this task's environment: {}; define it in a module of its own, or leave "
    "--eval-workers out"
)


class Worker:
    """A process that evaluates policies on a CPU, one at a time, in environments of its own."""

    def __init__(self, task: Task, eval_envs: int, eval_episodes: int) -> None:
        if "<" in name_of(task) or name_of(task).startswith("__main__:"):
            raise InputError(NOT_THERE.format(f"{name_of(task)} belongs to the running program"))
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self.tell(sys.path)
        self.tell((task, eval_envs, eval_episodes))

    def tell(self, what: Any) -> None:
        """Send something; if the process has ended, nothing: what it left behind is found by `answer`."""
        with suppress(ConnectionError):
            self.connection.send(what)

    def answer(self) -> dict[str, Any]:
        """The outcome of an evaluation. Raises EnvironmentFailed if there is none."""
        try:
            outcome = self.connection.recv()
        except (EOFError, ConnectionError):
            raise EnvironmentFailed(f"its process ended with code {self.process.wait()}") from None
        if isinstance(outcome, str):
            raise EnvironmentFailed(outcome)
        return outcome

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.terminate()
        self.process.wait()


class Background:
    """The evaluations that have begun and whose rows have not been taken yet, at most `workers` of them.

    Raises InputError if the run may open only one environment, or another process cannot open it.
    """

    def __init__(self, task: Task, workers: int, eval_envs: int, eval_episodes: int) -> None:
        refuse_workers("eval_workers", workers, least=0)
        if eval_envs == 1:
            raise InputError("eval_envs=1 means a run with a single environment; leave --eval-workers out")
        self._idle = [Worker(task, eval_envs, eval_episodes) for _ in range(workers)]
        self._busy: deque[tuple[Worker, dict[str, Any]]] = deque()

    def in_the_way(self) -> Iterator[dict[str, Any]]:
        """The row to be waited for before the next evaluation can start, if any. Errors are those of `finished`."""
        if not self._idle:
            yield self._next()

    def start(self, rule: UpdateRule, spec: Spec, state: PyTree, seeds: Sequence[int], row: dict[str, Any]) -> None:
        """Begin an evaluation of the policy as it is now, whose outcome completes `row`."""
        worker = self._idle.pop()
        worker.tell((rule, spec, jax.device_get(state), seeds))
        self._busy.append((worker, row))

    def finished(self, wait: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of evaluations that are over, in order; `wait`: of all. EnvironmentFailed where one failed."""
        while self._busy and (wait or self._busy[0][0].connection.poll()):
            yield self._next()

    def _next(self) -> dict[str, Any]:
        worker, row = self._busy.popleft()
        self._idle.append(worker)
        return row | worker.answer()

    def close(self) -> None:
        """End the processes; evaluations that are not over are lost."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy)]:
            worker.close()
        self._idle, self._busy = [], deque()


def work(connection: Connection) -> None:
    """Evaluate until the connection is closed."""
    try:
        sys.path[:] = connection.recv()
        try:
            envs = Environments(*connection.recv())
        except (AttributeError, ImportError) as error:
            return connection.send(NOT_THERE.format(error))
        while True:
            rule, spec, state, seeds = connection.recv()
            try:
                connection.send(policy_row(envs.evaluation, envs.task, rule, spec, state, seeds))
            except EnvironmentFailed as error:
                connection.send(str(error))
    except (EOFError, ConnectionError):
        pass


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])))
