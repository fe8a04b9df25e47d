"""Odd environments: what they return becomes plain values, or one line names what is wrong."""

from collections import OrderedDict

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from calql.envs.make import make_env
from calql.envs.rollout import collect_episode, evaluate
from calql.rewards import Rewards
from calql.tasks import Task
from calql.types import InputError

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
LIKE = {"a": BOX, "b": spaces.Box(-1, 1, (1,), np.float64), "c": spaces.Box(0, 255, (4, 4, 1), np.uint8)}

IMAGE = spaces.Box(0, 255, (4, 4, 1), np.uint8)


class Odd(gymnasium.Env):
    """Returns what it is told to."""

    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, space=BOX, look=lambda: np.zeros(2, np.float32), paid=0.0, info=None, ends=(False, False)):
        self.observation_space, self.look, self.paid, self.info, self.ends = space, look, paid, info or {}, ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.look(), {}

    def step(self, action):
        action *= 0.5  # in place, as other libraries allow
        return self.look(), self.paid, *self.ends, self.info


def task(env, **options):
    return Task(**{"id": "odd", "env": lambda render_mode=None: env, "horizon": 3, "rewards": Rewards()} | options)


def rolled(env, **options):
    made = make_env(task(env, **options))
    act = lambda observations, steps, rewards: np.full((len(steps), 1), 0.8, np.float32)  # noqa: E731
    evaluate([made], task(env, **options), act, [0])
    return collect_episode(made, task(env, **options), act, 0)


values = st.floats(-9, 9, width=32)
ways = {  # of telling one number
    "float": float, "array": np.array, "row": lambda x: np.array([x]), "f2": np.float16, "list": lambda x: [x],
}  # fmt: skip
flags = {"bool": bool, "np": np.bool_, "int": int, "row": lambda x: np.array([x])}
tell = {
    "float64": np.float64,
    "list": lambda x: x.tolist(),
    "float16": np.float16,
    "tuple": lambda x: tuple(x.tolist()),
}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(ways)), st.sampled_from(sorted(flags)), st.sampled_from(sorted(tell)), values,
    st.sampled_from(["success", "is_success", None]), st.booleans(), st.sampled_from([dict, OrderedDict, "array"]),
)  # fmt: skip
def test_whatever_type_the_values_have_they_are_the_same(way, flag, telling, number, key, won, container):
    number = float(np.float16(number))
    state = np.array([number, 0.5])

    def look():
        if container == "array":
            return tell[telling](state)
        pairs = [("b", tell[telling](state[:1] / 9)), ("a", tell[telling](state)), ("c", np.full((4, 4, 1), 7, "u1"))]
        return container(pairs) | {"not in the space": "text"} if container is dict else container(pairs)

    space = BOX if container == "array" else spaces.Dict(LIKE)
    info = {} if key is None else {key: flags[flag](won)}
    env = Odd(space, look, ways[way](number), info, (flags[flag](won), flags[flag](False)))
    episode = rolled(env)
    assert np.allclose(episode.rewards, number)
    assert episode.length == (1 if won else 3)
    assert episode.successes is None if key is None else (episode.successes == won).all()
    assert (episode.actions == np.float32(0.8)).all()  # what the policy chose
    if container == "array":
        assert np.allclose(episode.observations, state, atol=1e-2)
        assert episode.observations.dtype == np.float32
    else:
        assert type(episode.observations) is dict
        assert {k: (v.shape[1:], str(v.dtype)) for k, v in episode.observations.items()} == {
            "a": ((2,), "float32"), "b": ((1,), "float32"), "c": ((4, 4, 1), "uint8"),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"paid": np.zeros(2)}, r"the reward has shape \(2,\); it must be one number"),
        ({"paid": None}, "the reward has type NoneType"),
        ({"paid": np.nan}, "the reward is nan"),
        ({"info": {"success": np.array([True, False])}}, r"info\['success'\] has shape \(2,\)"),
        ({"paid": 1e39}, r"the reward is 1e\+39"),  # infinite in float32
        ({"info": {"is_success": "yes"}}, r"info\['is_success'\] has type str"),
        ({"info": {"success": np.nan}}, r"info\['success'\] is nan; it must be true or false"),
        ({"info": {"success": 0.5}}, r"info\['success'\] is 0.5; it must be true or false"),
        ({"info": [1]}, r"step\(\) must return .* info a dict"),
        ({"ends": (0.5, False)}, "terminated is 0.5; it must be true or false"),
        ({"ends": (False, None)}, "truncated has type NoneType"),
        ({"look": lambda: "abc"}, r"'observation' has shape \(\), its space \(2,\)"),
        ({"look": lambda: ["a", "b"]}, "'observation' holds no numbers"),
        ({"look": lambda: [1, [2, 3]]}, "'observation' does not hold numbers of one shape"),
        ({"look": lambda: np.ones(2) * 1j}, "'observation' holds no numbers"),
        ({"look": lambda: np.array([1, None])}, "'observation' holds no numbers"),
        ({"look": lambda: np.array([1.0, 1e39])}, "'observation' is not finite"),
        *(
            ({"space": IMAGE, "look": lambda x=x: np.full((4, 4, 1), x)}, "holds .* not 0 to 255")
            for x in (0.5, -1, 256, np.nan)
        ),
        ({"look": lambda: np.zeros(3)}, r"'observation' has shape \(3,\), its space \(2,\)"),
        ({"look": lambda: np.array([0, np.inf])}, "'observation' is not finite"),
        ({"space": spaces.Dict(LIKE), "look": lambda: {"a": np.zeros(2)}}, "the observation has a, its space a, b, c"),
        ({"space": spaces.Dict(LIKE)}, "the observation has ndarray, its space a, b, c"),
        ({"ends": (np.zeros(2, bool), False)}, r"terminated has shape \(2,\)"),
    ],
)
def test_what_cannot_be_used_is_named(how, message):
    with pytest.raises(ValueError, match=message):
        rolled(Odd(**how))


@pytest.mark.parametrize("kind", ["u1", "i8", "f4", "f8", "?"])
def test_whole_numbers_of_any_type_are_bytes_where_the_space_says_so(kind):
    seen = rolled(Odd(IMAGE, lambda: np.full((4, 4, 1), 1, kind))).observations
    assert seen.dtype == np.uint8
    assert (seen == 1).all()


def test_what_cannot_be_closed_is_told_and_ends_nothing():
    class Stuck(Odd):
        def close(self):
            raise OSError("port busy")

    with pytest.warns(UserWarning, match="failed to close .OSError: port busy"):
        make_env(task(Stuck())).close()


def test_the_old_interface_is_named():
    class Old(Odd):
        def step(self, action):
            return np.zeros(2), 0.0, False, {}

    class Older(Odd):
        def reset(self, **options):
            return np.zeros(2)

    with pytest.raises(ValueError, match=r"step\(\) must return \(observation, reward, terminated, truncated, info\)"):
        rolled(Old())
    with pytest.raises(ValueError, match=r"reset\(\) must return \(observation, info\)"):
        rolled(Older())


@pytest.mark.parametrize(
    ("shape", "kind", "fix"),
    [
        ((6,), "u1", "make numbers float32"),
        ((24, 24), "u1", r"\[H, W, 1\]"),
        ((4, 24, 24, 3), "u1", r"along their channels"),
        ((4, 3), "f4", "flatten"),
        ((), "f4", "flatten"),
    ],
)
def test_observations_that_no_network_takes_are_refused_with_a_fix(shape, kind, fix):
    for space in (spaces.Box(0, 255, shape, kind), spaces.Dict(x=spaces.Box(0, 255, shape, kind))):
        with pytest.raises(InputError, match=fix):
            make_env(task(Odd(space)))


def test_bounds_that_float32_cannot_hold_are_infinite():
    wide = spaces.Box(-1.7e308, 1.7e308, (2,), np.float64)
    space = make_env(task(Odd(wide))).observation_space
    assert np.isinf(space.high).all()
    assert space.dtype == np.float32


def test_what_is_no_environment_is_named():
    for made, name in ((None, "NoneType"), ({}, "dict")):
        with pytest.raises(InputError, match=f"made a {name}; it must return a gymnasium.Env"):
            make_env(task(made))
