"""Any Gymnasium environment as the learner sees it, or one clear line about why not."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from calql.envs.headless import headless_gl
from calql.envs.make import make_env
from calql.envs.wrappers import action_bounds
from calql.paper.tasks import TASKS
from calql.tasks import Task
from calql.types import InputError
from calql.units import ActionBounds


class Toy(gymnasium.Env):
    """Echoes its last action in its observation."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.action = action
        return self.observation_space.sample(), 0.0, False, False, {"success": False}


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


def made(observation_space=BOX, action_space=BOX) -> gymnasium.Env:
    return make_env(Task(id="toy", env=lambda: Toy(observation_space, action_space), horizon=5, data=None))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_keeps_the_contract(name):
    env = make_env(TASKS[name])
    try:
        observation, _ = env.reset(seed=0)
        assert env.observation_space.contains(observation)
        assert env.action_space == spaces.Box(-1.0, 1.0, env.action_space.shape, np.float32)
        observation, _, _, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert isinstance(info["success"], bool | np.bool_)
    finally:
        env.close()


def test_actions_are_rescaled_and_clipped():
    env = made(action_space=spaces.Box(np.array([0.0, -3.0]), np.array([10.0, 1.0]), dtype=np.float64))
    env.reset(seed=0)
    for action, expected in [((-1, -1), (0, -3)), ((1, 1), (10, 1)), ((0, 0), (5, -1)), ((2, -2), (10, -3))]:
        env.step(np.array(action, np.float32))
        np.testing.assert_allclose(env.unwrapped.action, expected)
        assert env.unwrapped.action.dtype == np.float64


def test_observations_become_float32_and_images_stay():
    space = spaces.Dict(
        {
            "state": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "count": spaces.Box(0, 9, (1,), np.int64),
            "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
        }
    )
    env = made(observation_space=space)
    for observation in (env.reset(seed=0)[0], env.step(np.zeros(2, np.float32))[0]):
        assert {key: str(leaf.dtype) for key, leaf in observation.items()} == {
            "state": "float32",
            "count": "float32",
            "image": "uint8",
        }
        assert env.observation_space.contains(observation)
    assert made(observation_space=spaces.Box(-1, 1, (3,), np.float64)).reset(seed=0)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "space", "cause"),
    [
        ("action_space", spaces.Discrete(3), "continuous"),
        ("action_space", spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        ("action_space", spaces.Box(-1, 1, (2, 2)), "flatten"),
        ("observation_space", spaces.Discrete(3), "needs a Box"),
        ("observation_space", spaces.Dict({"a": spaces.Dict({"b": BOX})}), "needs a Box"),
    ],
)
def test_unusable_spaces_are_named(kind, space, cause):
    with pytest.raises(InputError, match=cause) as error:
        made(**{kind: space})
    assert "\n" not in str(error.value)


def test_an_environment_that_cannot_be_made_is_named():
    def broken(render_mode=None):
        raise RuntimeError("no such robot")

    with pytest.raises(InputError, match=r"no such robot.*fix its factory"):
        make_env(Task(id="toy", env=broken, horizon=5, data=None))
    with pytest.raises(InputError, match="nowhere"):
        make_env(Task(id="toy", env="calql.nowhere:make", horizon=5, data=None))


def test_several_environments_in_one_are_refused():
    def three(render_mode=None):
        return gymnasium.make_vec("Pendulum-v1", num_envs=3)

    with pytest.raises(InputError, match=r"made 3 at once .*; let it return one, as gymnasium.make does"):
        make_env(Task(id="toy", env=three, horizon=5))


def test_missing_gl_is_named_when_the_environment_is_made_to_be_drawn(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")

    def no_gl(render_mode=None):
        raise RuntimeError("an OpenGL platform library has not been loaded")

    with pytest.raises(InputError, match=r"OpenGL.*MUJOCO_GL"):
        make_env(Task(id="toy", env=no_gl, horizon=5), render_mode="rgb_array")


class Bare(Toy):
    def __init__(self):
        super().__init__(BOX, BOX)


class Silent(gymnasium.Env):
    """Without a function of its own that makes it."""


@pytest.mark.parametrize("factory", [lambda: Toy(BOX, BOX), Bare, Silent])
def test_a_factory_that_knows_no_render_mode_is_named(factory):
    with pytest.raises(InputError, match="let its factory take a render_mode, or leave the video out"):
        make_env(Task(id="toy", env=factory, horizon=5), render_mode="rgb_array")


def test_a_task_may_hold_the_factory_itself():
    task = dataclasses.replace(TASKS["pointmaze-medium-narrow"], env=lambda render_mode=None: Toy(BOX, BOX))
    assert isinstance(make_env(task).unwrapped, Toy)


@pytest.mark.parametrize(
    ("display", "chosen", "expected"), [("", None, "egl"), (":0", None, None), ("", "osmesa", "osmesa")]
)
def test_headless_gl_respects_the_user(monkeypatch, display, chosen, expected):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if chosen:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    headless_gl()
    import os

    assert os.environ.get("MUJOCO_GL") == expected


def test_the_unit_of_actions_is_that_of_the_environment_outside_its_own_wrappers():
    """A policy acts in what the user's environment takes: after her wrappers, before ours."""
    wide = spaces.Box(-2.0, 4.0, (2,), np.float32)
    assert str(action_bounds(made(action_space=wide))) == "[−2, 4]"
    rescaled = gymnasium.wrappers.RescaleAction(Toy(BOX, wide), np.float32(-1), np.float32(1))
    assert action_bounds(make_env(Task(id="toy", env=lambda: rescaled, horizon=5))) == ActionBounds.unit(2)
