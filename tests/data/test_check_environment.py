"""Do data fit an environment: shapes and their fixes, bounds, walls, and recorded steps taken again."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from recordings import TASK, an_episode

from calql.data import Episodes
from calql.data.check.describe import check
from calql.data.check.environment import compare, physics_error, share_in_walls
from calql.envs.make import make_env
from calql.envs.wrappers import action_names, control_rate
from calql.paper.envs import antmaze
from calql.paper.tasks import TASKS
from calql.tasks import Source
from calql.types import Episode, InputError


class Cart(gymnasium.Env):
    """Position and velocity, pushed by an action; `mass` is its physics."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, mass=1.0):
        self.mass = mass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.set_state(np.zeros(2))
        return self.state, {}

    def set_state(self, observation):
        self.state = np.asarray(observation, np.float32)

    def step(self, action):
        speed = self.state[1] + 0.1 * action[0] / self.mass
        self.state = np.array([self.state[0] + 0.1 * speed, speed], np.float32)
        return self.state, 0.0, False, False, {}


def drive(env, steps=40, episodes=3):
    rng, made = np.random.default_rng(0), []
    for _ in range(episodes):
        states, actions = [env.reset()[0]], rng.uniform(-1, 1, (steps, 1)).astype(np.float32)
        states += [env.step(action)[0] for action in actions]
        made.append(Episode(np.array(states), actions, np.zeros(steps), np.zeros(steps, bool), True))
    return Episodes(tuple(made), "toy")


def test_steps_of_the_same_physics_lead_to_the_same_states():
    assert physics_error(drive(Cart()), Cart()) < 1e-6


def test_steps_of_other_physics_are_refused():
    found = compare(drive(Cart()), TASK, Cart(mass=10.0))
    assert found.physics_error > 0.4
    assert "in other physics than this environment's: repeated, 64 steps deviate by" in found.errors[0]
    report = check(drive(Cart()), TASK, Cart(mass=10.0))
    assert report.facts["physics_error"] == found.physics_error
    assert found.errors[0] in report.errors


def test_nearly_the_same_physics_are_warned_of():
    found = compare(drive(Cart()), TASK, Cart(mass=1.15))
    assert not found.errors
    assert "nearly this environment's physics" in found.warnings[0]
    assert not compare(drive(Cart()), TASK, Cart(mass=1.001)).warnings


@pytest.mark.parametrize(("stated", "odd"), [(20, False), (20.1, False), (50, True), (None, False)])
def test_another_rate_is_warned_of(stated, odd):
    env = Cart()
    env.metadata = {"render_fps": stated}
    data = dataclasses.replace(drive(Cart()), rate=20.0)
    told = [text for text in compare(data, TASK, env).warnings if "20 steps per second" in text]
    assert len(told) == odd
    assert not any("steps per second" in text for text in compare(drive(Cart()), TASK, env).warnings)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"render_fps": 0}, r"metadata\['render_fps'\] is 0"),
        ({"render_fps": "fast"}, r"metadata\['render_fps'\] is 'fast'"),
        ({"render_fps": float("nan")}, r"metadata\['render_fps'\] is nan"),
        ({"action_names": "force"}, r"metadata\['action_names'\] is 'force'"),
        ({"action_names": ["a", "b", "c"]}, r"metadata\['action_names'\] is \['a', 'b', 'c'\]"),
        ({"action_names": [1]}, r"metadata\['action_names'\] is \[1\]"),
    ],
)
def test_metadata_that_mean_nothing_are_refused(metadata, message):
    env = Cart()
    env.metadata = metadata
    read = control_rate if "render_fps" in metadata else action_names
    with pytest.raises(InputError, match=message):
        read(env)


def test_where_the_row_knows_of_other_physics_it_is_said():
    task = dataclasses.replace(TASK, sources=(Source("minari:toys/*", env_options={"mass": 10.0}),))
    assert "recorded in (minari:toys/* has mass=10.0)" in compare(drive(Cart()), task, Cart(10.0)).errors[0]
    paired = task.for_data("minari:toys/cart-v0")
    assert compare(drive(Cart(10.0)), paired, Cart(1.0)).errors[0].endswith("recorded in")


def test_states_after_terminal_steps_are_not_compared():
    data = drive(Cart())
    ends = np.ones(40, bool)
    assert physics_error(Episodes(tuple(e._replace(terminations=ends) for e in data.episodes)), Cart()) is None
    wrong = [e.observations.copy() for e in data.episodes]
    ends[:-1] = False
    for states in wrong:
        states[-1] = 99.0
    moved = tuple(e._replace(observations=x, terminations=ends) for e, x in zip(data.episodes, wrong, strict=True))
    assert physics_error(Episodes(moved), Cart()) < 1e-6


def test_environments_without_such_a_method_are_not_replayed():
    class Two(Cart):
        def set_state(self, qpos, qvel=None):
            super().set_state(qpos)

    class MuJoCo(Cart):
        def reset(self, *, seed=None, options=None):
            self.state = np.zeros(2, np.float32)
            return self.state, {}

        def set_state(self, qpos, qvel):
            raise AssertionError

    data = drive(Cart())
    assert physics_error(data, Two()) < 1e-6
    assert physics_error(data, MuJoCo()) is None
    still = tuple(e._replace(observations=np.zeros_like(e.observations)) for e in data.episodes)
    assert physics_error(Episodes(still), Cart()) is None
    assert "cannot be set to recorded states" in check(data, TASK, MuJoCo()).text()


def test_wrappers_are_stepped_through():
    class Strong(Cart):
        action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    task = dataclasses.replace(TASK, env=Strong)
    env = make_env(task)  # takes actions in [−1, 1]
    data = drive(env)
    assert physics_error(data, env) < 1e-6
    assert physics_error(data, Cart()) > 0.3


def test_bounds_of_the_observations():
    class Bounded(Cart):
        observation_space = spaces.Box(np.array([-np.inf, 3.0]), np.array([np.inf, 3.0]), dtype=np.float64)

    warnings = compare(drive(Cart()), TASK, Bounded()).warnings
    assert "1 entries of 'observations' leave the bounds of the environment, first entry 1" in warnings[0]
    assert "the environment's in [3, 3]; check the unit, or the goal" in warnings[0]


def test_bounds_of_dicts_are_compared_as_those_of_arrays():
    class Seen(Cart):
        set_state = None
        observation_space = spaces.Dict(
            joints=spaces.Box(-np.pi, np.pi, (2,), np.float32), pixels=spaces.Box(0, 10, (4, 4, 1), np.uint8)
        )

    angles = np.linspace(-170, 170, 12).reshape(6, 2)
    episode = Episode(
        {"joints": angles, "pixels": np.full((6, 4, 4, 1), 255, np.uint8)},
        np.zeros((5, 1)),
        np.zeros(5),
        np.zeros(5),
        True,
    )
    (warning,) = compare(Episodes((episode,)), TASK, Seen()).warnings
    assert warning.startswith("2 entries of 'observations/joints' leave the bounds of the environment")


# -- dicts and arrays --------------------------------------------------------------------------------------------------


def test_dicts_for_a_flat_environment_and_the_reverse():
    class Dicts(Cart):
        observation_space = spaces.Dict(arm=Cart.observation_space)

    task = TASKS["antmaze-medium-play"]
    line = compare(Episodes((an_episode(keys=True),)), task, Cart()).errors[0]
    assert "converted if they are named minari:D4RL/antmaze/medium-play-*" in line
    assert "FlattenObservation" in compare(Episodes((an_episode(keys=True),)), TASK, Cart()).errors[0]
    line = compare(Episodes((an_episode(),)), task, Dicts()).errors[0]
    assert "observations are (2,), the environment's are arm (2,); wrap the environment" in line


def test_images_of_another_size():
    task = TASKS["visual-pick-place"]
    episode = an_episode(3)._replace(
        observations={"image": np.zeros((4, 24, 24, 3), np.uint8), "state": np.zeros((4, 10), np.float32)},
        actions=np.zeros((3, 7), np.float32),
    )
    (line,) = compare(Episodes((episode,)), task, make_env(task)).errors
    assert "image (24, 24, 3) uint8" in line
    assert "calql data build visual-pick-place --set image_size=48" in line
    assert "or learn from these: --set image_size=24" in line


# -- the ant -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walks():
    """A few seconds of random torques in each physics, from the middle of the maze."""
    made = {}
    for physics in ("d4rl", "gymnasium"):
        env, rng = antmaze.make("medium", physics), np.random.default_rng(0)
        cells = env.maze.free_cells
        start = env.reset(seed=0, options={"start": env.maze.cell_center(cells[len(cells) // 2])})[0]
        actions = rng.uniform(-1, 1, (20, 8)).repeat(4, axis=0).astype(np.float32)
        states = np.array([start, *(env.step(action)[0] for action in actions)])
        rewards, ends = np.zeros(80), np.zeros(80, bool)
        made[physics] = Episodes((Episode(states, actions, rewards, ends, True),), "toy")
    return made


@pytest.mark.parametrize("physics", ["d4rl", "gymnasium"])
def test_the_ant_is_replayed_in_its_own_physics_only(walks, physics):
    task = TASKS["antmaze-medium-play"]
    own = compare(walks[physics], task, antmaze.make("medium", physics))
    assert own.physics_error < 1e-3
    assert own.errors == own.warnings == []
    other = compare(walks[physics], task, antmaze.make("medium", {"d4rl": "gymnasium"}.get(physics, "d4rl")))
    assert other.physics_error > 0.5
    assert len(other.errors) == 1


@pytest.mark.parametrize("physics", ["d4rl", "gymnasium"])
@pytest.mark.parametrize(("maze", "other"), [("medium", "large"), ("large", "medium")])
def test_the_other_maze_is_known_by_its_walls(physics, maze, other):
    """Far from walls a step is the same in both mazes: an ant seen in the middle of every free cell."""
    env = antmaze.make(maze, physics)
    states = np.array([env.reset(options={"start": env.maze.cell_center(cell)})[0] for cell in env.maze.free_cells])
    steps = len(states) - 1
    seen = Episodes((Episode(states, np.zeros((steps, 8)), np.zeros(steps), np.ones(steps, bool), False),), "toy")
    assert compare(seen, TASKS["antmaze-large-play"], env).errors == []
    found = compare(seen, TASKS["antmaze-large-play"], antmaze.make(other, physics))
    assert "of the recorded positions lie in walls of this maze; use the task of their maze" in found.errors[0]
    assert share_in_walls(drive(Cart()), Cart()) is None
