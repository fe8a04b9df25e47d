"""TensorBoard: RUN/tensorboard/offline by gradient steps, RUN/tensorboard/online by environment steps.

The files are written with tensorboardX, without TensorFlow and without TensorBoard itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from calql.extras import needed_for
from calql.trackers.rows import Row, Rows
from calql.training.experiment import Experiment
from calql.training.loop import Event

FLUSH_S = 5.0
"""Seconds after which a file is flushed."""


def package() -> None:
    """Import tensorboardX. Raises MissingPackage without the extra `tracking`."""
    with needed_for("the tracker 'tensorboard'"):
        import tensorboardX.event_file_writer  # noqa: F401


class TensorBoard:
    """Writes the rows of a run as scalars.

    At every start, the files of the start before are emptied, and new ones get all rows that the run has kept: nothing
    is there twice, also where a run continues from a checkpoint before its last row. A new file begins with a purge, so
    that a TensorBoard that is open forgets the old one.
    """

    def __init__(self, experiment: Experiment, run_dir: Path) -> None:
        package()
        self._folder, self._rows = run_dir / "tensorboard", Rows(experiment, run_dir)
        self._begun = False
        self._files: dict[str, Any] = {}
        self._flushed = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Write the rows of an event. Raises OSError if a file cannot be written."""
        if not self._begun:
            for old in self._folder.glob("*/events.out.tfevents.*"):
                os.truncate(old, 0)  # a TensorBoard that is open would not leave a file that is gone
            self._begun = True
        for row in self._rows.of(event):
            self._write(row)
        if time.monotonic() > self._flushed + FLUSH_S:
            for file in self._files.values():
                file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left. Raises OSError as a call does."""
        while self._files:
            self._files.popitem()[1].close()

    def _write(self, row: Row) -> None:
        # Not through a SummaryWriter: its thread ends at a full disk, unnoticed, and the run then waits for it.
        if row.phase not in self._files:
            self._files[row.phase] = self._opened(self._folder / row.phase)
        values = [{"tag": name, "simple_value": number} for name, number in row.numbers.items()]
        self._files[row.phase].write_event(_event(step=row.step, summary={"value": values}))

    def _opened(self, folder: Path) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        file = EventsWriter(str(folder / "events"))
        file.write_event(_event(step=0, session_log={"status": "START"}))
        return file


def _event(**fields: Any) -> Any:
    """An entry of TensorBoard's files."""
    from tensorboardX.proto import event_pb2

    modules: Any = event_pb2  # generated: its names are not in its source
    return modules.Event(wall_time=time.time(), **fields)
