"""Evaluations in other processes: the same rows in the same order, wherever the run is left, and no process stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import pytest
import tiny

from calql.tasks import Task
from calql.training import background
from calql.training.background import Background
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError, RunError

METHODS = pytest.mark.parametrize("method", ["cal-ql", "odt"])


def outcome(folder, method, **options):
    made = tiny.trainer(folder, method, **options)
    assert made.restore() == []
    return tiny.outcome(made)


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists() and " Z " not in Path(f"/proc/{process}/stat").read_text()


@METHODS
def test_rows_and_results_do_not_depend_on_how_many_there_are(method, tmp_path):
    found = {}
    for workers in (0, 1, 2):
        train(tiny.made(method), tmp_path / str(workers), tiny.DATA, eval_workers=workers)
        found[workers] = outcome(tmp_path / str(workers), method)
    assert found[0] == found[1] == found[2]
    assert len(found[0]["eval"]) > 4


def test_a_run_that_is_left_at_any_event_goes_on_as_if_nothing_had_been(tmp_path):
    made = tiny.made("cal-ql")
    whole = list(events(made, tmp_path / "whole", tiny.DATA, eval_workers=2))
    wanted = outcome(tmp_path / "whole", "cal-ql")
    for stop in range(0, len(whole), 20):
        folder, seen = tmp_path / str(stop), 0
        for _ in events(made, folder, tiny.DATA, eval_workers=2):
            seen += 1
            if seen > stop:
                break
        assert seen == stop + 1
        train(made, folder, tiny.DATA, resume=True, eval_workers=1)
        assert outcome(folder, "cal-ql") == wanted


def test_events_tell_when_an_evaluation_was_asked_for(tmp_path):
    told = [e for e in events(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=2) if e.kind == "evaluation"]
    rows = RunDir(tmp_path / "run").read_rows("eval.csv")
    assert [(e.phase, str(e.info["grad_step"])) for e in told] == [(row["phase"], row["grad_step"]) for row in rows]
    assert [e.step for e in told if e.phase == "online"] == [int(r["env_step"]) for r in rows if r["phase"] == "online"]


class Falling(tiny.Slope):
    """Breaks in the third evaluation."""

    def reset(self, **options):
        mark = Path(os.environ["RESETS"])
        mark.write_text(mark.read_text() + "." if mark.exists() else ".")
        if len(mark.read_text()) == 8 and os.environ.get("JAX_PLATFORMS") == "cpu" and "FAILS" in os.environ:
            raise OSError("no power")
        return super().reset(**options)


def test_an_environment_that_fails_stops_the_run_which_resumes_from_before(tmp_path, monkeypatch):
    monkeypatch.setenv("RESETS", str(tmp_path / "resets"))
    monkeypatch.setenv("FAILS", "")
    monkeypatch.setitem(
        tiny.WORLDS, "falling", (Task(id="slope", env=Falling, horizon=tiny.HORIZON, rewards=tiny.PAYS), tiny.DATA)
    )
    made = tiny.made("bc", world="falling")
    with pytest.raises(RunError, match=r"failed in an evaluation \(OSError: no power\).* --resume"):
        train(made, tmp_path / "run", tiny.DATA, eval_workers=1)
    monkeypatch.delenv("FAILS")
    train(made, tmp_path / "run", tiny.DATA, resume=True, eval_workers=1)
    train(made, tmp_path / "other", tiny.DATA)
    assert outcome(tmp_path / "run", "bc", world="falling") == outcome(tmp_path / "other", "bc", world="falling")


def test_a_single_environment_stays_single(tmp_path):
    with pytest.raises(InputError, match="single environment; leave --eval-workers out"):
        train(tiny.made(eval_envs=1), tmp_path / "run", tiny.DATA, eval_workers=1)
    assert not (tmp_path / "run").exists()


def test_there_is_no_negative_number_of_processes(tmp_path):
    with pytest.raises(InputError, match="eval_workers is -1"):
        train(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=-1)
    with pytest.raises(InputError, match="eval_workers is 1000000; it must be at least 0, and at most"):
        train(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=10**6)


def test_a_task_of_the_running_program_alone_is_refused():
    task = Task(id="here", env=lambda: gymnasium.make("Pendulum-v1"), horizon=8, rewards=tiny.PAYS)
    with pytest.raises(InputError, match="define it in a module of its own"):
        Background(task, 1, 2, 2)


@pytest.fixture
def started(monkeypatch):
    """The processes that are started."""
    begun = []

    class Noted(background.Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            begun.append(self.process)

    monkeypatch.setattr(background, "Worker", Noted)
    return begun


def test_no_process_stays_behind(tmp_path, started):
    run = events(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=2)
    for _ in zip(run, range(3), strict=False):
        pass
    assert [process.poll() for process in started] == [None, None]
    run.close()
    assert None not in [process.poll() for process in started]


def test_no_process_and_no_file_stays_where_the_run_cannot_begin(tmp_path, started):
    with pytest.raises(InputError, match="holds no run"):
        train(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=1, init_from=str(tmp_path / "nowhere"))
    assert None not in [process.poll() for process in started]
    assert not (tmp_path / "run").exists()


def test_a_process_that_has_ended_is_named(tmp_path, started):
    """Whether it ended at work or while it waited for work."""
    run = events(tiny.made(), tmp_path / "run", tiny.DATA, eval_workers=1)
    for _ in zip(run, range(5), strict=False):
        pass
    started[0].kill()
    started[0].wait()
    with pytest.raises(RunError, match=r"failed in an evaluation \(its process ended with code -9\).* --resume"):
        list(run)
    train(tiny.made(), tmp_path / "run", tiny.DATA, resume=True)
    train(tiny.made(), tmp_path / "other", tiny.DATA)
    assert outcome(tmp_path / "run", "cal-ql") == outcome(tmp_path / "other", "cal-ql")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_run_however_it_ends(number):
    program = (
        "import sys, time, tiny\n"
        "from calql.training.background import Background\n"
        "both = Background(tiny.TASK, 2, 2, 3)\n"
        "print(*(worker.process.pid for worker in both._idle), flush=True)\n"
        "time.sleep(600)\n"
    )
    there = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=there, text=True) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert all(map(alive, workers))
        parent.send_signal(number)
    end = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)
