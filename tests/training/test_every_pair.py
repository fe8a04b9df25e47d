"""Every row of the table of methods on every row of the table of tasks, by the command, on the task's own data."""

import numpy as np
import pytest

from calql.cli import main
from calql.datasets.load import load_for
from calql.methods import METHODS
from calql.tasks import TASKS, load_attribute
from calql.tracking import RunDir

STEPS = 300
"""So many of all data, so that tasks of one shape share their compiled programs."""


def first_steps(task):
    """The first steps of the task's own data as columns of an npz file, the last episode cut."""
    load_attribute(task.builder)(task, seed=0, transitions=600)
    episodes = load_for(task, task.data).episodes
    columns = {
        "observations": np.concatenate([e.observations[:-1] for e in episodes]),
        "next_observations": np.concatenate([e.observations[1:] for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "terminals": np.concatenate([e.terminations for e in episodes]),
        "timeouts": np.concatenate([np.arange(e.length) == e.length - 1 for e in episodes]),
    }
    assert len(columns["rewards"]) >= STEPS
    columns = {name: column[:STEPS] for name, column in columns.items()}
    columns["timeouts"][-1] = True
    columns["timeouts"] &= ~columns["terminals"]
    return columns


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_method_finishes(name, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", **first_steps(TASKS[name]))
    for method in METHODS:
        out = tmp_path / method
        few = ["--set", "offline_steps=20", "online_steps=60"]
        what = ["--task", name, "--method", method, "--data", f"npz:{tmp_path / 'data.npz'}"]
        with pytest.raises(SystemExit) as stop:
            main(["train", *what, "--scale", "smoke", "--out", str(out), *few])
        assert stop.value.code == 0, capsys.readouterr()
        rows = RunDir(out).read_rows("eval.csv")
        assert RunDir(out).done
        assert rows[-1]["phase"] == ("online" if METHODS[method].online else "offline")
        assert int(rows[-1]["grad_step"]) > 0
