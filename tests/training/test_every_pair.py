"""Every method on a task of every kind, and the first method on every task, by the command, on the task's own data."""

import pytest
from test_smoke_runs import STEPS, first_steps

from calql.cli import main
from calql.data.episodes import Episodes
from calql.data.load import load_for
from calql.data.readers.npz import save_npz
from calql.paper.methods import DEFAULT_METHOD, METHODS
from calql.paper.tasks import TASKS
from calql.tasks import load_attribute
from calql.training.options import experiment, matching
from calql.training.run_dir import RunDir

REFUSED = {(name, "odt"): "does not take images" for name, task in TASKS.items() if task.domain == "visual"}


def smaller(name):
    """Options that make its images small."""
    return {"env.image_size": 16} if "image_size" in TASKS[name].env_options else {}


def save_first_steps(task, path):
    """The first steps of the task's own data."""
    load_attribute(task.builder)(task, seed=0, transitions=STEPS)
    save_npz(Episodes(first_steps(load_for(task, task.data).episodes)), path)


FAMILIES: dict[str, list[str]] = {}
"""Tasks of a kind in one test, as most of them share their programs."""
for name, task in TASKS.items():
    FAMILIES.setdefault(task.domain, []).append(name)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_finishes(family, tmp_path, capsys):
    for number, task in enumerate(FAMILIES[family]):
        row = experiment(task, "bc", "paper", options=smaller(task)).task
        save_first_steps(row, tmp_path / f"{task}.npz")
        for method in (DEFAULT_METHOD,) if number else METHODS:
            finishes(task, method, tmp_path, capsys)


def finishes(name, method, path, capsys):
    out = path / name / method
    few = [f"{option}={value}" for option, value in smaller(name).items()]
    budget = {
        "offline_steps": 10,
        "online_steps": 30,
        "eval_every_offline": 10,
        "eval_every_online": 30,
        "task.horizon": 20,
    }
    if TASKS[name].domain != "pointmaze":  # whose programs are those of test_smoke_runs
        # One layer, as it is compiling that takes the time.
        budget |= {"eval_episodes": 1, "actor_hidden": 8, "critic_hidden": 8}
    made = experiment(name, method, "smoke")
    few += [f"{option}={value}" for option, value in budget.items() if matching(made, option)]
    what = ["--task", name, "--method", method, "--data", f"npz:{path / name}.npz"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *what, "--scale", "smoke", "--out", str(out), "--set", *few])
    if refusal := REFUSED.get((name, method)):
        assert (stop.value.code, out.exists()) == (2, False)
        assert refusal in capsys.readouterr().err
        return
    assert stop.value.code == 0, (name, method, capsys.readouterr())
    rows = RunDir(out).read_rows("eval.csv")
    assert RunDir(out).done
    assert rows[-1]["phase"] == ("online" if METHODS[method].online else "offline")
    assert int(rows[-1]["grad_step"]) > 0
