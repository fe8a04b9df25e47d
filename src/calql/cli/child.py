"""`python -m calql.cli.child ARGUMENTS`: a command that shuts down cleanly when the process that started it is gone.

Standard input is a pipe whose other end only the parent holds: however the parent ends, the pipe is closed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from calql.cli import main


def stop_with_parent() -> None:
    """Wait until the parent has ended, then ask this process to stop."""
    while os.read(0, 1):  # not through sys.stdin: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.argv[0] = "calql"
    threading.Thread(target=stop_with_parent, daemon=True).start()
    main()
