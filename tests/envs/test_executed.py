"""What a machine executes: never beyond its limits, whoever acts, and recorded as it was executed."""

import dataclasses

import gymnasium
import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from calql.envs import operator
from calql.envs.executed import executing, is_machine
from calql.envs.make import make_env
from calql.envs.rollout import collect_episode, roll
from calql.limits import Limiter, Limits
from calql.tasks import Task
from calql.types import InputError

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)


class Machine(gymnasium.Env):
    """Keeps every action that reaches it."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, space=None):
        self.action_space = space or spaces.Box(LOW, HIGH, dtype=np.float32)
        self.reached = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.reached.append([])
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.reached[-1].append(np.array(action))
        action[...] = 0  # it may write into what it gets
        return np.zeros(1, np.float32), 0.0, False, False, {}


class Person(gymnasium.Wrapper):
    """Takes over at some steps, and tells so as HIL-SERL does."""

    def __init__(self, env, takes):
        super().__init__(env)
        self.takes = takes  # {step: action}

    def reset(self, **options):
        self.count = -1
        return self.env.reset(**options)

    def step(self, action):
        self.count += 1
        taken = self.takes.get(self.count)
        *found, info = self.env.step(np.array(action if taken is None else taken))
        return *found, info if taken is None else {**info, "intervene_action": taken, "intervention": True}


def policy(actions):
    """Acts as listed."""
    return lambda observations, steps, rewards: np.stack([actions[int(step)] for step in steps])


def task(env, limits=Limits(), horizon=4, **more):  # noqa: B008 (frozen)
    return Task(id="machine", env=lambda render_mode=None: env, horizon=horizon, limits=limits, **more)


NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def cases(draw):
    """(action space, limits that leave something, actions of the policy, actions of a person by step)."""
    size = draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int16]))
    vector = numpy_strategies.arrays(np.float64, size, elements=st.floats(-50.0, 50.0))
    low, width = draw(vector), abs(draw(vector)) + 1.0
    if dtype is np.int16:
        low, width = np.rint(low), np.ceil(width)
    low, high = low.astype(dtype), (low + width).astype(dtype)
    share = numpy_strategies.arrays(np.float64, size, elements=st.floats(0.0, 1.0))
    inside = np.sort([draw(share), draw(share), draw(share)], axis=0) * width + low
    if dtype is np.int16:
        inside = np.rint(inside)
    limits = Limits(
        low=draw(st.sampled_from([None, tuple(inside[0])])),
        high=draw(st.sampled_from([None, tuple(inside[2])])),
        change=draw(st.none() | st.floats(1e-3, 30.0) | st.tuples(*[st.floats(1e-3, 30.0)] * size)),
        rest=draw(st.sampled_from([None, tuple(inside[1])])),
    )
    wild = numpy_strategies.arrays(np.float64, size, elements=NUMBERS)
    acts = draw(st.lists(wild, min_size=1, max_size=8))
    person = draw(st.dictionaries(st.integers(0, 7), share.map(lambda x: (low + x * width).astype(dtype)), max_size=8))
    return spaces.Box(low, high, dtype=dtype), limits, acts, person


def bound(value, other, dtype):
    """A limit as the machine's own numbers hold it."""
    return other.astype(np.float64) if value is None else np.asarray(value).astype(dtype).astype(np.float64)


@given(cases())
def test_no_executed_action_is_beyond_the_limits_whoever_acts_and_it_is_what_is_recorded(case):
    space, limits, acts, person = case
    machine = Machine(space)
    env = make_env(task(Person(gymnasium.wrappers.TimeLimit(machine, 50), person), limits))
    for _ in range(2):  # the second episode is measured from the rest again
        observation, _ = env.reset(seed=0)
        queue = iter(acts)
        episode = roll(env, observation, lambda *_: next(queue, None), 50)  # noqa: B023
        reached = np.array(machine.reached[-1], np.float64)
        assert machine.reached[-1][0].dtype == space.dtype
        assert (reached >= np.maximum(bound(limits.low, space.low, space.dtype), space.low)).all()
        assert (reached <= np.minimum(bound(limits.high, space.high, space.dtype), space.high)).all()
        if limits.change is not None:
            before = [] if limits.rest is None else [bound(limits.rest, space.low, space.dtype)]
            moved = abs(np.diff(np.stack([*before, *reached]), axis=0))
            assert (moved <= np.asarray(limits.change) * (1 + 1e-12) + 1e-12).all()
        width = (space.high.astype(np.float64) - space.low).clip(1e-9)
        np.testing.assert_allclose((episode.actions + 1) / 2 * width + space.low, reached, atol=1e-5 * width.max())
        told = [step in person for step in range(episode.length)]
        assert (episode.interventions is None) == (not any(told))
        assert episode.interventions is None or episode.interventions.tolist() == told


def test_the_limits_change_no_action_within_them():
    limiter = Limiter(Limits(low=-1.0, high=(1.0, 9.0), change=(0.5, 20.0), rest=(0.0, 1.0)), LOW, HIGH)
    for action in ([0.5, 9.0], [0.1, 0.0], [-0.4, 3.3]):
        np.testing.assert_allclose(limiter(action), np.float32(action), atol=1e-7)
    np.testing.assert_allclose(limiter([9.0, -9.0]), [0.1, 0.0], atol=1e-7)  # as near as it gets
    limiter.begin()
    np.testing.assert_array_equal(limiter([-9.0, 99.0]), np.float32([-0.5, 9.0]))


def test_the_first_action_is_free_without_a_rest_and_so_is_that_of_the_next_episode():
    limiter = Limiter(Limits(change=0.1), LOW, HIGH)
    assert [limiter([x, 5.0])[0] for x in (2.0, -2.0)] == pytest.approx([2.0, 1.9])
    limiter.begin()
    assert limiter([-2.0, 5.0])[0] == -2.0


@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        (Limits(low=(1.0, 2.0, 3.0)), "limits.low has 3 numbers for 2 actions"),
        (Limits(low=1.0, high=0.5), "leave no action"),
        (Limits(low=3.0), "leave no action"),
        (Limits(rest=(5.0, 1.0)), "limits.rest is .* outside"),
        (Limits(change=0.0), "limits.change positive"),
        (Limits(high=float("nan")), "must be finite"),
    ],
)
def test_limits_that_do_not_fit_are_refused_before_anything_moves(limits, cause):
    with pytest.raises(InputError, match=cause):
        make_env(task(Machine(), limits))


def test_the_tighter_of_two_limits_holds():
    one, two = Limits(low=-1.0, change=(0.5, 2.0), rest=0.0), Limits(low=(-2.0, 0.5), high=3.0, change=1.0)
    assert one.tightened(two) == Limits((-1.0, 0.5), 3.0, (0.5, 1.0), 0.0)
    assert Limits().tightened(Limits()) == Limits()
    with pytest.raises(InputError, match=r"limits\.low is"):
        Limits(low=(1.0, 2.0)).tightened(Limits(low=(1.0, 2.0, 3.0)))


def test_a_converting_wrapper_leaves_no_unit_in_which_limits_could_be_stated():
    scaled = gymnasium.wrappers.RescaleAction(Machine(), np.float32(-1), np.float32(1))
    with pytest.raises(InputError, match=r"a wrapper around it takes Box\(-1.0, 1.0.*leave that wrapper out"):
        make_env(task(scaled, Limits(change=0.1)))
    make_env(task(scaled))


class Turned(gymnasium.Wrapper):
    """Takes actions in another frame."""

    def step(self, action):
        return self.env.step(np.array([-action[0], action[1]]))


class Past(gymnasium.Wrapper):
    """Keeps the machine by itself."""

    def __init__(self, env):
        super().__init__(env)
        self.machine = env

    def step(self, action):
        return self.machine.step(action)


@pytest.mark.parametrize(
    ("wrapper", "cause"), [(Turned, "none may convert them"), (Past, "not stepped through its limits")]
)
def test_a_wrapper_past_which_nothing_is_known_is_named(wrapper, cause):
    env = make_env(task(wrapper(Machine()), Limits(change=0.1)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=cause):
        env.step(np.full(2, 0.5, np.float32))


def test_no_limited_machine_gets_an_action_that_is_not_finite():
    machine = Machine(spaces.Box(-1.0, 1.0, (2,), np.float32))
    env = make_env(task(machine, Limits(change=0.1)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="2 finite numbers"):
        env.step(np.array([0.0, np.nan], np.float32))
    assert machine.reached == [[]]


# -- whose action ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(), Limits(change=100.0)])
def test_a_person_s_action_is_recorded_inside_in_unit_actions(limits):
    machine = Machine()
    env = make_env(task(Person(machine, {1: np.array([1.0, 2.5]), 3: np.array([2.0, 10.0])}), limits))
    acts = np.float32([[0.5, 0.5], [-1, -1], [0, 0], [0, 0]])
    episode = collect_episode(env, task(machine), policy(acts), 0)
    np.testing.assert_allclose(episode.actions, [[0.5, 0.5], [0.5, -0.5], [0, 0], [1, 1]], atol=1e-6)
    assert episode.interventions.tolist() == [False, True, False, True]


class Tells(Machine):
    def __init__(self, info):
        super().__init__()
        self.info = info

    def step(self, action):
        *found, _ = super().step(action)
        return *found, self.info


@pytest.mark.parametrize(
    ("info", "cause"),
    [
        ({"intervention": True}, "tell the action that was executed in 'intervene_action'"),
        ({"intervention": [True, False]}, r"info\['intervention'\] has shape \(2,\)"),
        ({"intervene_action": [0.0]}, "2 finite numbers"),
        ({"intervene_action": [0.0, np.nan]}, "2 finite numbers"),
        ({"intervene_action": "left"}, "2 finite numbers"),
        ({"intervene_action": [3.0, 0.0]}, r"outside \[−2, 2\] × \[0, 10\]"),
    ],
)
def test_an_intervention_that_cannot_be_recorded_is_named(info, cause):
    env = make_env(task(Tells(info)))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=cause):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(("told", "expected"), [(False, [False] * 4), (np.array([0]), [False] * 4), (None, None)])
def test_whether_a_person_could_act_is_told_by_the_environment(told, expected):
    info = {} if told is None else {"intervention": told}
    episode = collect_episode(make_env(task(Tells(info))), task(Machine()), policy(np.zeros((4, 2), np.float32)), 0)
    assert (None if episode.interventions is None else episode.interventions.tolist()) == expected
    np.testing.assert_array_equal(episode.actions, np.zeros((4, 2)))


# -- before an episode -------------------------------------------------------------------------------------------------

CALLS = []


def note_call(env):
    CALLS.append(env)


def test_the_hook_gets_the_environment_before_every_reset():
    CALLS.clear()
    machine = Machine()
    env = make_env(task(machine, before_episode=f"{__name__}:note_call"))
    assert CALLS == []
    env.reset(seed=0)
    assert len(CALLS) == len(machine.reached) == 1
    env.reset(seed=1)
    assert len(CALLS) == 2
    assert CALLS[0].unwrapped is machine
    with pytest.raises(InputError, match=r"cannot import 'calql\.nowhere:wait'"):
        make_env(task(machine, before_episode="calql.nowhere:wait"))


def test_moves_of_the_hook_are_limited_too():
    machine = Machine()
    env = executing(gymnasium.wrappers.TimeLimit(machine, 9), Limits(high=1.0), None)
    env.reset()
    env.step(np.array([2.0, 10.0], np.float32))
    np.testing.assert_array_equal(machine.reached[0][0], [1.0, 1.0])


def test_what_stands_for_a_machine_is_known():
    assert not is_machine(make_env(task(Machine())))
    assert is_machine(make_env(task(Machine(), Limits(change=1.0))))
    assert is_machine(make_env(task(Machine(), before_episode=f"{__name__}:note_call")))


def test_the_operator_begins_an_episode_or_stops_the_run(monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda: "")
    operator.wait_for_enter(Machine())
    assert "Enter begins it" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda: " Q ")
    with pytest.raises(RuntimeError, match="stopped by the operator"):
        operator.wait_for_enter(Machine())

    def closed():
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    with pytest.raises(RuntimeError, match="no terminal"):
        operator.wait_for_enter(Machine())


def test_limits_are_a_part_of_the_task_that_stays_by_default():
    assert Task(id="a", env="a:b", horizon=1).limits == Limits()
    assert dataclasses.replace(task(Machine()), limits=Limits(change=1.0)) != task(Machine())
