"""A run that a signal stops between two events saves all its work, and goes on as if it never had stopped."""

import os
import signal

import pytest
import tiny

from calql.cli.signals import Stopped, terminating, until_stopped
from calql.training import checkpoint, loop
from calql.training.run_dir import RunDir


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    made = tiny.trainer(tmp_path_factory.mktemp("undisturbed") / "run")
    events = [event.kind for event in loop.run(made)]
    return tiny.outcome(made), len(events)


def signalled(events, save, number, at, times=1):
    """Go through the events; at that one come so many signals."""
    for count, _ in enumerate(until_stopped(events, save, "THIS")):
        for _ in range(times if count == at else 0):
            os.kill(os.getpid(), number)


def stopped(folder, event, number=signal.SIGTERM):
    """Run, or go on, and be stopped at that event."""
    made = tiny.trainer(folder)
    made.restore()
    with pytest.raises(Stopped, match=rf"{number.name}.*all work is saved.*THIS") as stop:
        signalled(loop.run(made), made.save, number, event)
    assert stop.value.code == 128 + number
    assert checkpoint.load_meta(checkpoint.newest(made.run_dir.checkpoints)[0])["step"] == made.counters.total_grad_step
    made.close()


def test_stopped_at_any_event(tmp_path, undisturbed):
    outcome, events = undisturbed
    for event in [0, 5, 12, 13, 14, 15, 20, events - 2]:  # the border lies between the 9th and the 16th
        folder = tmp_path / str(event)
        stopped(folder, event)
        made = tiny.trainer(folder)
        assert made.restore() == []
        list(loop.run(made))
        made.close()
        found = tiny.outcome(made)
        assert [name for name in outcome if found[name] != outcome[name]] == [], f"stopped at event {event}"


def test_stopped_at_every_event(tmp_path, undisturbed):
    """Nothing is done twice: one event per start is progress enough."""
    outcome, events = undisturbed
    for _ in range(events - 1):
        stopped(tmp_path / "run", 0)
    made = tiny.trainer(tmp_path / "run")
    made.restore()
    assert len(list(loop.run(made))) <= 2
    found = tiny.outcome(made)
    assert [name for name in outcome if found[name] != outcome[name]] == []
    made.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_does_not_wait(number):
    saved = []
    before = signal.getsignal(number)
    with terminating(), pytest.raises((SystemExit, KeyboardInterrupt)):
        signalled(range(9), lambda: saved.append(True), number, 0, times=2)
    assert not saved
    assert signal.getsignal(number) == before


def test_signals_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminating():
            for _ in until_stopped(range(2), lambda: None, ""):
                os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_directory_is_read_while_it_is_written(tmp_path):
    made = tiny.trainer(tmp_path / "run")
    with made.run_dir.lock():
        next(loop.run(made))
        assert len(RunDir(tmp_path / "run").read_rows("eval.csv")) == 1
    made.close()
