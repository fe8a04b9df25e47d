"""The clock, without any environment: whatever the lengths of episodes, a run keeps its promises."""

import dataclasses
import itertools

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from calql.training.schedule import CHUNK, Counters, Schedule

HORIZON = tiny.HORIZON


@st.composite
def runs(draw):
    """(schedule, lengths of episodes) of a run with any numbers."""
    some = st.integers(1, 60)
    method = draw(st.sampled_from(["cal-ql", "hybrid", "bc"]))
    options = {
        "offline_steps": draw(st.integers(0, 60)),
        "online_steps": draw(st.integers(0, 60)),
        "utd": draw(st.integers(1, 4)),
        "updates_per_episode": draw(st.none() | st.integers(1, 30)),
        "start_steps": draw(st.integers(0, 20)),
        "warmup_steps": draw(st.integers(0, 20)),
        **{name: draw(some) for name in ("eval_every_offline", "eval_every_online", "log_every", "checkpoint_every")},
    }
    experiment = tiny.made(method, **tiny.fitting(method, options))
    return Schedule(experiment), draw(st.lists(st.integers(1, HORIZON), min_size=1, max_size=20))


def simulate(schedule, lengths, stop=None):
    """[(what, clock, counters before)] of a run, as the loop would do it."""
    c, done, episode = Counters(), [], 0
    while len(done) < 20_000:
        want = schedule.wants(c)
        done.append((want, schedule.now(c), c))
        if want == "evaluate":
            c = schedule.after_evaluation(c)
        elif want == "collect":
            c = schedule.after_episode(c, lengths[episode % len(lengths)])
            episode += 1
        elif want == "update":
            count = schedule.updates(c)
            assert 1 <= count <= CHUNK
            c = schedule.after_updates(c, count)
        elif c.phase + 1 == len(schedule.experiment.phases):
            return done, c
        else:
            c = schedule.next_phase(c)
    raise AssertionError("the run does not end")


@settings(deadline=None, max_examples=150)
@given(runs())
def test_a_run_ends_where_its_record_says(run):
    schedule, lengths = run
    done, last = simulate(schedule, lengths)
    phase = schedule.phase(last)
    assert schedule.now(last) == phase.length
    if phase.name == "offline":
        assert last.grad_step == phase.offline_steps
    elif phase.updates_per_episode is None:
        random = sum(
            c.due == after.due and c.env_step != after.env_step for (_, _, c), (_, _, after) in itertools.pairwise(done)
        )
        assert random or last.grad_step == phase.online_steps * phase.utd
    assert last.grad_step <= last.due or phase.name == "offline"


@settings(deadline=None, max_examples=150)
@given(runs())
def test_the_clock_never_goes_back_and_nothing_is_learned_before_it_is_collected(run):
    schedule, lengths = run
    done, _ = simulate(schedule, lengths)
    for (_, now, c), (_, later, after) in itertools.pairwise(done):
        assert after.phase > c.phase or later >= now
        assert after.total_grad_step >= c.total_grad_step
        if schedule.phase(after).name == "online":
            assert after.grad_step <= after.due


@settings(deadline=None, max_examples=150)
@given(runs())
def test_every_stretch_of_the_grid_is_evaluated_once_and_both_ends_are(run):
    schedule, lengths = run
    done, _ = simulate(schedule, lengths)
    for index, phase in enumerate(schedule.experiment.phases):
        clocks = [now for want, now, c in done if want == "evaluate" and c.phase == index]
        assert (clocks[0], clocks[-1]) == (0, phase.length)
        cells = [now // phase.eval_every for now in clocks[:-1]]
        assert cells == sorted(set(cells))
        by_the_step = phase.name == "offline" or (phase.updates_per_episode is None and not phase.steps_before_updates)
        if by_the_step:
            assert clocks == sorted({*range(0, phase.length, phase.eval_every), phase.length})


@settings(deadline=None, max_examples=100)
@given(runs())
def test_updates_begin_with_the_first_episode_after_the_random_and_the_warm_up_steps(run):
    schedule, lengths = run
    done, last = simulate(schedule, lengths)
    finetune, owed = schedule.experiment.finetune, 0
    for (want, now, c), (_, later, after) in itertools.pairwise(done):
        if want != "collect":
            continue
        length, waits = after.env_step - c.env_step, c.env_step < max(finetune.start_steps, finetune.warmup_steps)
        assert schedule.random_actions(c) == (c.env_step < finetune.start_steps)
        assert after.due - c.due == (0 if waits else finetune.updates_per_episode or finetune.utd * length)
        assert (now, later) == (c.env_step, min(after.env_step, finetune.length) if waits else c.env_step)
        owed += after.due - c.due
    assert finetune is None or last.due == owed


@settings(deadline=None, max_examples=100)
@given(runs())
def test_no_update_crosses_a_row_of_the_log_or_a_checkpoint(run):
    schedule, lengths = run
    done, _ = simulate(schedule, lengths)
    m = schedule.experiment.measurement
    for (want, _, c), (_, _, after) in itertools.pairwise(done):
        if want == "update":
            for every in (m.log_every, m.checkpoint_every):
                assert (after.total_grad_step - 1) // every == c.total_grad_step // every


@settings(deadline=None, max_examples=100)
@given(runs(), st.integers(1, 60))
def test_a_run_that_is_extended_goes_on_as_a_longer_one_would_have(run, more):
    """The counters at the end, with a later end, lead to the end of the longer run."""
    schedule, lengths = run
    last = schedule.experiment.phases[-1]
    name = "offline_steps" if last.name == "offline" else "online_steps"
    part = "pretrain" if last.name == "offline" else "finetune"
    longer = dataclasses.replace(last, **{name: last.length + more})
    extended = Schedule(dataclasses.replace(schedule.experiment, **{part: longer}))
    _, c = simulate(schedule, lengths)
    episode = c.episode
    for _ in range(20_000):
        want = extended.wants(c)
        if want == "end":
            break
        if want == "evaluate":
            c = extended.after_evaluation(c)
        elif want == "collect":
            c = extended.after_episode(c, lengths[episode % len(lengths)])
            episode += 1
        else:
            c = extended.after_updates(c, extended.updates(c))
    whole = simulate(extended, lengths)[1]
    assert (c.grad_step, c.env_step, c.due, c.episode) == (whole.grad_step, whole.env_step, whole.due, whole.episode)


@settings(deadline=None, max_examples=100)
@given(runs())
def test_no_more_updates_are_announced_than_full_episodes_bring(run):
    """`gradient_steps` counts what waits; the last waiting episode is completed, which may take a few more steps."""
    schedule = run[0]
    finetune = schedule.experiment.finetune
    if finetune is None:
        return
    _, last = simulate(schedule, [HORIZON])
    episode = finetune.updates_per_episode or finetune.utd * HORIZON
    assert last.grad_step <= finetune.gradient_steps(HORIZON) + (finetune.updates_per_episode or 0)
    assert finetune.gradient_steps(HORIZON) <= last.grad_step + 2 * episode


def test_random_episodes_bring_no_updates():
    schedule = Schedule(tiny.made("hybrid", start_steps=10))
    c = schedule.after_episode(Counters(), 8)
    assert (c.due, schedule.random_actions(c)) == (0, True)
    c = schedule.after_episode(c, 8)
    assert (c.due, schedule.random_actions(c)) == (0, False)
    assert schedule.after_episode(c, 5).due == 5 * 2


@pytest.mark.parametrize("updates", [3, 50])
def test_updates_by_the_episode(updates):
    schedule = Schedule(tiny.made("hybrid", updates_per_episode=updates))
    assert schedule.after_episode(Counters(), 5).due == updates
