"""`python -m calql.cli.child ARGUMENTS`: a command that shuts down cleanly when the process that started it is gone.

Standard input is a pipe whose other end only the parent holds: however the parent ends, the pipe is closed. Engines
start runs in this way (`calql.sweeps.process`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from calql.cli import main
from calql.cli.signals import WARNINGS
from calql.training.run_dir import RunDir
from calql.types import InputError

PATIENCE_S = 90.0
"""How long the run may still be written by another process: one that is saving, or whose machine was lost."""


def stop_with_parent() -> None:
    """Wait until the parent has ended, then ask this process to stop."""
    while os.read(0, 1):  # not through sys.stdin: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_others(run_dir: RunDir) -> None:
    """Wait until no other process writes to the run directory, but not for ever: the command will then say who does."""
    end = time.monotonic() + PATIENCE_S
    while (run_dir.path / ".lock").exists() and time.monotonic() < end:
        try:
            with run_dir.lock():
                return
        except InputError:
            time.sleep(1)


if __name__ == "__main__":
    for number in WARNINGS:
        signal.signal(number, signal.SIG_IGN)  # they are for the parent, which will ask
    threading.Thread(target=stop_with_parent, daemon=True).start()
    if "--out" in sys.argv:
        wait_for_others(RunDir(Path(sys.argv[sys.argv.index("--out") + 1])))
    sys.argv[0] = "calql"
    main()
