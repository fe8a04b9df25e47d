"""Weights & Biases: one W&B run per run directory, online or offline as W&B's own settings say (`WANDB_MODE`)."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from calql.extras import needed_for
from calql.trackers.rows import Rows
from calql.training.experiment import Experiment, encode
from calql.training.loop import Event
from calql.training.run_dir import RunDir

PROJECT = "calql"
"""W&B project, unless WANDB_PROJECT names another."""
STATE = "wandb.json"
"""Of the run directory: {"id": the W&B run, "newest": {table: place of its newest row there}}."""


def package() -> Any:
    """wandb. Raises MissingPackage without the extra `tracking`."""
    with needed_for("the tracker 'wandb'"):
        import wandb
    return wandb


class WandB:
    """Logs the rows of a run. Every start of the run joins the same W&B run, whose id is kept in the run directory.

    W&B's history only grows: rows that an earlier start has logged, and that the run repeats because it continues from
    a checkpoint before them, are not logged again.
    """

    def __init__(self, experiment: Experiment, run_dir: Path) -> None:
        """Asks for the key of W&B if it is online and none is known; wandb.UsageError if nobody can be asked."""
        wandb = package()
        if wandb.setup().settings.mode not in ("offline", "dryrun", "disabled"):
            wandb.login()
        self._experiment, self._run_dir, self._rows = experiment, RunDir(run_dir), Rows(experiment, run_dir)
        self._id = ""
        self._run: Any = None

    def __call__(self, event: Event) -> None:
        """Log the rows of an event that are not in W&B yet."""
        self._run = self._run or self._begin()
        for row in self._rows.of(event):
            self._run.log({**row.numbers, **row.place})
        self._keep()

    def close(self) -> None:
        """Finish this start; with the numbers of summary.json if the run is done."""
        if self._run is None:
            return
        if self._run_dir.done:
            summary = json.loads((self._run_dir.path / "summary.json").read_text())
            self._run.summary.update({name: x for name, x in summary.items() if x is not None})
        self._run.finish()

    def _begin(self) -> Any:
        """Start, or join, the W&B run."""
        file, e = self._run_dir.path / STATE, self._experiment
        state = json.loads(file.read_text()) if file.exists() else {"id": uuid.uuid4().hex[:8], "newest": {}}
        self._id, self._rows.newest = state["id"], state["newest"]
        self._keep()  # the id, before W&B knows it
        run = package().init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(self._run_dir.path)),
            name=f"{e.task.id} {e.method} seed {e.seed}",
            group=f"{e.task.id} {e.method}",
            config=encode(e),
            settings=package().Settings(console="off", silent=True),
        )
        for group, clock in {"train/*": "grad_step", "eval/*": "grad_step", "online/*": "env_step"}.items():
            run.define_metric(group, step_metric=clock)
        return run

    def _keep(self) -> None:
        # Whole, but not synced to the disk each time: after a power cut some rows may be logged twice.
        file = self._run_dir.path / STATE
        temporary = file.with_name(f".{STATE}.tmp")
        temporary.write_text(json.dumps({"id": self._id, "newest": self._rows.newest}))
        os.replace(temporary, file)
