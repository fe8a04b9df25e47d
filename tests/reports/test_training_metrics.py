"""The log of the training in reports: a folded figure per method, and its raw rows."""

import csv
import re

import numpy as np
import pytest
from fake_runs import write_run, write_study

from calql.reports import figures
from calql.reports.load import LONGEST, TRAINING, load_runs
from calql.reports.report import write_report
from calql.types import InputError

NAMES = ("actor_loss", "critic_loss", "q_data")


def write_log(run, count=6, names=NAMES):
    """train.csv: metric number i is (i + 1) × its gradient step."""
    with (run / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "env_step", "grad_step", *names])
        for step in range(100, 100 * count + 1, 100):
            phase = "offline" if step <= 50 * count else "online"
            cells = [(i + 1) * step for i in range(len(names))]
            writer.writerow([phase, max(0, step - 50 * count), step, *cells])


@pytest.fixture
def study(tmp_path):
    for run in write_study(tmp_path / "runs", ["cal-ql", "cql"], range(2)):
        write_log(run)
    write_log(write_run(tmp_path / "runs", "cql", 7, done=False), 3)
    return tmp_path / "runs"


def test_each_method_has_a_folded_figure_of_all_its_seeds(study, tmp_path):
    page = write_report([study], tmp_path / "report").read_text()
    folded = re.findall(r"<details><summary>(Training metrics: [^<]*)</summary><figure><svg", page)
    assert folded == ["Training metrics: Cal-QL", "Training metrics: CQL"]
    for name in ("Cal-QL", "CQL"):
        assert (tmp_path / "report" / "figures" / f"toy-maze-training-{name}.png").stat().st_size > 10_000
    runs = [run for run in load_runs([study]) if run.method == "cql"]
    figure = figures.training_figure(runs)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["actor_loss", "critic_loss", "q_data"]  # losses first
    for number, axes in enumerate(panels):
        lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) > 2]
        assert sorted(len(line) for line in lines) == [3, 6, 6, 6]  # three seeds and the aggregate of the finished
        for line in lines:
            np.testing.assert_allclose(line[:, 1], (number + 1) * line[:, 0])


def test_a_long_log_is_averaged_and_a_short_one_is_not(tmp_path):
    run = write_run(tmp_path, "cal-ql", 0)
    write_log(run, LONGEST)
    assert len(load_runs([run])[0].curve(TRAINING, "q_data")[0]) == LONGEST
    write_log(run, 4 * LONGEST - 2)
    steps, values = load_runs([run])[0].curve(TRAINING, "actor_loss")
    assert len(steps) == LONGEST
    assert steps[:2].tolist() == [400, 800]
    assert values[:2].tolist() == [250, 650]
    assert steps[-1] == 100 * (4 * LONGEST - 2)
    assert values[-1] == steps[-1] - 50  # of the two rows that are left


def test_a_report_of_a_report_has_the_same_log(study, tmp_path):
    write_report([study], tmp_path / "one")
    write_report([tmp_path / "one"], tmp_path / "two")
    for name in ("training.csv", "runs.json", "report.html"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_copy_without_the_log_is_still_a_copy(study, tmp_path):
    write_report([study], tmp_path / "report")
    (tmp_path / "report" / "training.csv").unlink()
    assert len(load_runs([study, tmp_path / "report"])) == 5


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("grad_step", "step", "lacks the column(s) grad_step"),
        ("offline,0,100,100", "offline,0,100,high", "train.csv line 2: wants numbers"),
        ("offline,0,100,", "both,0,100,", "line 2: wants a phase"),
        ("offline,0,100,", "offline,0,,", "line 2: wants a phase"),
        ("offline,0,100,100,200", "offline,0,100,100,200,1,2", "line 2: wants numbers"),
    ],
)
def test_a_log_that_cannot_be_read_is_named(tmp_path, old, new, said):
    run = write_run(tmp_path, "cal-ql", 0)
    write_log(run)
    log = run / "train.csv"
    assert old in log.read_text()
    log.write_text(log.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as error:
        load_runs([run])
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
