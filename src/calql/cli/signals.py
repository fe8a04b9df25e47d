"""SIGTERM and warnings (SLURM, systemd, timeout), a closed terminal and Ctrl-C: clean up, save, say how to continue."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from calql.types import RunError

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before the end, if asked to (sbatch --signal); left alone, they would kill."""
ASKING = (signal.SIGTERM, signal.SIGHUP, *WARNINGS)
T = TypeVar("T")
Handler = Callable[[int, FrameType | None], object]


class Stopped(RunError):
    """A run was asked to stop and has saved its state."""

    def __init__(self, number: int, how_to_continue: str) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; all work is saved; to continue: {how_to_continue}")
        self.code = 128 + number
        """Exit code by the convention of shells: 128 + signal."""


@contextmanager
def terminating() -> Iterator[None]:
    """SIGTERM, SIGHUP and warnings end the block as an exception does (SystemExit), so that every `finally` runs."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handling(ASKING, leave):
        yield


def until_stopped(events: Iterable[T], save: Callable[[], None], how_to_continue: str) -> Iterator[T]:
    """Yield the events; on a signal, finish the current event, call `save` and raise Stopped.

    A run is consistent only between two events. A second signal does not wait, and nothing is saved.
    """
    asked: list[int] = []
    with _handling((*ASKING, signal.SIGINT), lambda number, frame: asked.append(number), once=True):
        for event in events:
            yield event
            if asked:
                save()
                raise Stopped(asked[0], how_to_continue)


@contextmanager
def _handling(numbers: Iterable[int], handler: Handler, once: bool = False) -> Iterator[None]:
    """Handle signals in the block, in the main thread only, but for ignored ones (nohup); `once`: only the first."""
    before = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if once:
            restore()
        handler(number, frame)

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if threading.current_thread() is threading.main_thread():
        now = {number: signal.getsignal(number) for number in numbers}
        before |= {number: old for number, old in now.items() if old not in (signal.SIG_IGN, None)}
        for number in before:
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
