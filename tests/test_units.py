"""A perfect clone of a log commands what was logged, in any unit; a log of another unit is refused, with a fix."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import an_episode

from calql.data.actions import in_unit
from calql.data.check.describe import check
from calql.data.episodes import Episodes
from calql.envs.wrappers import action_bounds, unit_actions
from calql.tasks import Task
from calql.types import InputError
from calql.units import ActionBounds

TASK = Task(id="arm", env="none:none", horizon=100)


class Recorder(gymnasium.Env):
    """Keeps the commands that it is given."""

    observation_space = spaces.Box(-9, 9, (2,), np.float32)

    def __init__(self, low, high, dtype=np.float32):
        self.action_space = spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), dtype=dtype)
        self.commands = []

    def step(self, action):
        self.commands.append(np.array(action))
        return np.zeros(2, np.float32), 0.0, False, False, {}


def a_log(actions, **how):
    actions = np.asarray(actions, np.float32)
    return Episodes((an_episode(len(actions), dims=(2, actions.shape[1]))._replace(actions=actions),), "log", **how)


bounds = st.lists(
    st.tuples(st.floats(-50, 50), st.floats(0.05, 100)), min_size=1, max_size=4
).map(lambda pairs: ([low for low, _ in pairs], [low + width for low, width in pairs]))  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(bounds, st.integers(0, 9), st.sampled_from([np.float32, np.float64, np.float16]), st.booleans())
def test_a_perfect_clone_commands_what_was_logged(pair, seed, dtype, known):
    """±0.4, ±2, [0, 1], bounds per component: the environment receives the log's numbers, whatever its dtype."""
    env = Recorder(*pair)
    own = action_bounds(env)
    assert own is not None
    share = np.random.default_rng(seed).uniform(size=(20, own.size))
    share[0], share[1] = 0.0, 1.0
    logged = (own.low + share * (own.high - own.low)).astype(dtype)
    log = a_log(logged, bounds=own if known else None)
    width = own.high - own.low
    # With wide bounds and a largest action of 1 the unit has to be stated; it is tried elsewhere.
    unit = in_unit(log, own, "env")
    if known or not (np.maximum(-own.low, own.high) > 1.0).all():
        with_auto = in_unit(log, own) if np.abs(own.beyond(logged)).max() <= 1e-3 else unit
        assert np.array_equal(with_auto.episodes[0].actions, unit.episodes[0].actions)
    wrapped = unit_actions(env)
    for action in unit.episodes[0].actions:
        wrapped.step(action)
    rounding = 1e-3 if dtype is np.float16 else 1e-6
    tolerance = rounding * np.maximum(abs(own.low), abs(own.high)) + 1e-6 * width
    assert (abs(np.array(env.commands) - logged.astype(np.float64)) <= tolerance).all()
    assert unit.bounds == own
    assert unit.unit_actions
    assert in_unit(unit, own) is unit  # once


@settings(max_examples=100, deadline=None)
@given(bounds, st.integers(0, 9))
def test_to_unit_and_back(pair, seed):
    own = ActionBounds(*map(np.array, pair))
    unit = np.random.default_rng(seed).uniform(-1, 1, (5, own.size)).astype(np.float32)
    assert np.allclose(own.to_unit(own.from_unit(unit)), unit, atol=1e-6)
    assert np.allclose(own.from_unit(-np.ones(own.size)), own.low)
    assert np.allclose(own.from_unit(np.ones(own.size)), own.high)
    assert not own.beyond(own.from_unit(3.0 * unit)).any()  # clipped


def test_unit_bounds_change_no_byte():
    log = a_log(np.random.default_rng(0).uniform(-1, 1, (9, 2)))
    unit = in_unit(log, ActionBounds.unit(2))
    assert unit.episodes[0].actions.tobytes() == log.episodes[0].actions.tobytes()
    assert unit.notes == ()
    assert unit.fingerprint() == log.fingerprint()


def test_a_component_that_cannot_move_is_0():
    own = ActionBounds(np.array([0.3, -1.0]), np.array([0.3, 1.0]))
    assert np.array_equal(own.to_unit(np.array([0.3, 0.5])), np.float32([0.0, 0.5]))
    assert np.array_equal(own.from_unit(np.array([0.7, 0.5])), [0.3, 0.5])


SIGNS = np.array([[1.0, -1.0], [-1.0, 1.0], [0.2, 0.1], [0.0, -0.5]])


@pytest.mark.parametrize(
    ("actions", "recorded", "own", "fits", "fix"),
    [
        (0.4 * SIGNS, None, 0.4, 0.4, None),
        (2.0 * SIGNS, None, 2.0, 2.0, None),
        (SIGNS, None, 1.0, 1.0, None),
        (0.3 * SIGNS, 1.0, 0.4, 1.0, None),  # recorded in unit actions
        (0.3 * SIGNS, 0.4, 1.0, 0.4, None),  # the environment is wrapped to take unit actions
        (SIGNS, None, 2.0, None, "action_unit=unit"),
        (SIGNS, None, 0.4, None, "action_unit=unit"),
        (2.0 * SIGNS, None, 1.0, None, "RescaleAction"),
        (90.0 * SIGNS, None, 1.0, None, "RescaleAction"),
        (np.concatenate([2.0 * SIGNS[:1], 0.1 * SIGNS, 0.1 * SIGNS, 0.1 * SIGNS]), None, 1.0, None, "action_unit=env"),
        (0.3 * SIGNS, 0.4, 2.0, None, "action_unit=env"),  # two machines
        (1.9 * SIGNS, 1.0, 1.0, None, "RescaleAction"),
    ],
)
def test_the_unit_is_known_or_the_log_is_refused(actions, recorded, own, fits, fix):
    two = np.ones(2)
    log = a_log(actions, bounds=None if recorded is None else ActionBounds(-recorded * two, recorded * two))
    mine = ActionBounds(-own * two, own * two)
    if fix is None:
        unit = in_unit(log, mine)
        assert np.allclose(unit.episodes[0].actions * fits, actions, atol=1e-6)
        assert bool(unit.notes) == (recorded not in (None, own) or own != 1.0)  # never in silence
        return
    with pytest.raises(InputError) as refused:
        in_unit(log, mine)
    assert fix in str(refused.value)
    # The fix is followed: the log can be read, and its meaning is the stated one.
    if "RescaleAction" in fix:
        low, high = (np.float32(x) for x in (actions.min(axis=0), actions.max(axis=0)))
        rescaled = gymnasium.wrappers.RescaleAction(Recorder(mine.low, mine.high), low, high)
        bounds = action_bounds(rescaled)
        assert bounds is not None
        assert np.allclose(bounds.from_unit(in_unit(log, bounds, "env").episodes[0].actions), actions, atol=1e-4)
    else:
        unit = in_unit(log, mine, fix.partition("=")[2])
        back = unit.episodes[0].actions * (1.0 if fix.endswith("unit") else own)
        assert np.allclose(back, actions, atol=1e-5)


def test_the_check_judges_the_unit():
    env = Recorder([-2.0, -2.0], [2.0, 2.0])
    env.unwrapped.action_space = env.action_space
    good = check(a_log(1.9 * SIGNS), TASK, env)
    assert not good.errors
    assert "[−2, 2]" in good.text()
    assert any("mapped" in line for line in good.text().splitlines() if line.startswith("note"))
    small = check(a_log(0.3 * SIGNS), TASK, env)
    assert any("range" in warning and "15%" in warning for warning in small.warnings)
    assert "outside the bounds" in check(a_log(5.0 * SIGNS), TASK, env).errors[0]
    told = check(a_log(2.1 * SIGNS), TASK, env, action_unit="env")
    assert not told.errors
    assert any("clipped" in warning for warning in told.warnings)


@pytest.mark.parametrize(
    ("low", "high"),
    [([1.0], [0.0]), ([0.0], [np.inf]), ([0.0, 1.0], [1.0]), ([], []), (0.0, 1.0)],
)
def test_bounds_that_are_none(low, high):
    with pytest.raises(InputError):
        ActionBounds(np.array(low), np.array(high))


def test_whole_numbers_are_rounded():
    env = Recorder([0], [10], np.int64)
    unit_actions(env).step(np.float32([0.39]))
    assert env.commands[0].tolist() == [7]
