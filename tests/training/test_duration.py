"""Estimates of how long a run takes, against runs whose durations are known."""

import tempfile
from pathlib import Path

import pytest
import tiny
from test_schedule import simulate

from calql.training.duration import Pace, measure, spoken
from calql.training.loop import Event
from calql.training.schedule import Schedule

UPDATE, STEP, EVALUATION = {"offline": 0.003, "online": 0.004}, 0.01, 2.0
COMPILATION = 50.0


def timed_events(experiment, lengths):
    """[(event, seconds, position after it)] of a run that takes the seconds above, and compiles in the first event of
    each kind."""
    schedule, seen = Schedule(experiment), set()
    done, last = simulate(schedule, lengths)
    events, episode, evaluated = [], 0, -1
    for (want, _, c), after in zip(done, [c for _, _, c in done[1:]] + [last], strict=True):
        phase = schedule.phase(c)
        if want == "end":
            continue
        if want == "evaluate":
            seconds = 0.0 if c.total_grad_step == evaluated else EVALUATION
            evaluated = c.total_grad_step
            episodes = experiment.measurement.eval_episodes
            # Text, as the row of the pre-trained policy is where a run goes on from a file.
            info = {"episodes": str(episodes), "length_mean": str(EVALUATION / episodes / STEP)}
        elif want == "collect":
            length = lengths[episode % len(lengths)]
            seconds, info, episode = STEP * length, {"length": length}, episode + 1
        else:
            seconds, info = UPDATE[phase.name] * (after.grad_step - c.grad_step), {}
        kind = {"evaluate": "evaluation", "collect": "episode", "update": "update"}[want]
        if (kind, phase.name) not in seen and seconds:
            seen.add((kind, phase.name))
            seconds += COMPILATION * (kind != "evaluation")
        events.append((Event(kind, phase.name, schedule.now(after), phase.length, info), seconds, after))
    return events


@pytest.mark.parametrize("utd", [1, 3])
@pytest.mark.parametrize("method", ["cal-ql", "hybrid", "bc"])
def test_what_is_left_is_what_the_rest_takes(method, utd):
    """To a few percent in the last phase; before, fine-tuning is judged by the pre-training."""
    options = {"offline_steps": 4000, "online_steps": 3000, "utd": utd, "eval_every_offline": 700, "log_every": 50}
    options |= {"eval_every_online": 800, "updates_per_episode": None}
    experiment = tiny.made(method, **tiny.fitting(method, options))
    events = timed_events(experiment, [8, 3, 5])
    pace, checked, online = Pace(experiment), 0, 0
    for number, (event, seconds, _) in enumerate(events):
        pace.saw(event, seconds)
        later = [s for _, s, _ in events[number + 1 :] if s < COMPILATION]
        online += (event.kind, event.phase) == ("update", "online")
        if event.kind == "update" and number > len(events) // 10:
            assert pace.left() == pytest.approx(sum(later), rel=0.05 if online > 2 else 0.25, abs=0.1)
            checked += 1
    assert checked > 10
    assert pace.left() == 0


@pytest.mark.parametrize("method", ["cal-ql", "hybrid", "bc"])
def test_a_run_that_goes_on_takes_what_it_has_not_done_yet(method):
    options = {"offline_steps": 4000, "online_steps": 3000, "eval_every_offline": 700, "eval_every_online": 800}
    experiment = tiny.made(method, **tiny.fitting(method, options | {"log_every": 50, "updates_per_episode": None}))
    events = timed_events(experiment, [8, 3, 5])
    whole = Pace(experiment)
    for event, seconds, _ in events:
        whole.saw(event, seconds)
    for number, (_, _, at) in list(enumerate(events))[5 :: len(events) // 20]:
        later = sum(s for _, s, _ in events[number + 1 :] if s < COMPILATION)
        assert Pace(experiment, whole, at).left() == pytest.approx(later, rel=0.05, abs=0.1)
    assert Pace(experiment, whole, events[-1][-1]).left() == 0


def test_nothing_is_said_before_there_is_something_to_go_by():
    pace = Pace(tiny.made())
    assert pace.left() is None
    pace.saw(Event("evaluation", "offline", 0, 14, {"episodes": 3, "length_mean": 5.0}), 1.0)
    assert pace.left() is None
    assert pace.seconds("online") is None


@pytest.mark.parametrize("method", ["cal-ql", "sac", "bc", "odt"])
def test_a_short_run_measures_every_part(method, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    experiment = tiny.made(method)
    pace = measure(experiment, tiny.DATA)
    parts = [pace.seconds(phase.name) for phase in experiment.phases] + [pace.seconds("evaluation")]
    assert all(
        part is not None and (part > 0 or phase.length == 0)
        for part, phase in zip(parts, experiment.phases, strict=False)
    )
    assert pace.left() == pytest.approx(sum(parts))
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("source", ["training", "nothing"])
def test_scores_that_are_not_measured_in_episodes_of_their_own_take_no_time(source):
    experiment = tiny.made(eval_from=source)
    pace = Pace(experiment)
    row = {"episodes": 0, "length_mean": None}
    pace.saw(Event("evaluation", "offline", 0, experiment.pretrain.length, row), 1.0)
    assert pace.seconds("evaluation") == 0.0


def test_durations_are_said_as_people_say_them():
    said = [spoken(s) for s in (0.4, 40, 600, 12_000, 190_800)]
    assert said == ["0 s", "40 s", "10 min", "3 h 20 min", "2 d 5 h"]
