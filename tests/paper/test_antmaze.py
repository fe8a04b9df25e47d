"""The AntMaze environments against those they follow, bit for bit, and against their own contract."""

import os
import subprocess
import sys
from collections import deque

import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.maze import maps
from gymnasium_robotics.envs.maze.ant_maze_v4 import AntMazeEnv as AntMazeV4
from gymnasium_robotics.envs.maze.ant_maze_v5 import AntMazeEnv as AntMazeV5

from calql.paper.envs import antmaze, antmaze_model
from calql.types import Episode, InputError

BOTH = [(maze, physics) for maze in antmaze.LAYOUTS for physics in antmaze.PHYSICS]
EVERY = pytest.mark.parametrize("env", BOTH, ids="-".join, indirect=True)
THEIR_MAPS = {"medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}
GOALS = {"medium": (6, 6), "large": (7, 9)}


@pytest.fixture
def env(request):
    env = antmaze.make(*getattr(request, "param", ("medium", "d4rl")))
    yield env
    env.close()


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The environments we compare with leave their model files behind; let it be here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def with_the_contacts_of_the_recordings(model: mujoco.MjModel) -> None:
    """The one deliberate difference from packages that run on a newer MuJoCo than the data were recorded in."""
    if antmaze_model.SUMS_MARGINS:
        model.geom_margin[:] /= 2


def torques(seed: int, steps: int, hold: int = 5) -> np.ndarray:
    """[steps, 8] actions that are held for some steps, so that the ant moves about."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps // hold, 8)).repeat(hold, axis=0).astype(np.float32)


def rollout(env, seed, actions, **options) -> np.ndarray:
    first, _ = env.reset(seed=seed, options=options or None)
    return np.stack([first, *(env.step(action)[0] for action in actions)])


def touches_a_wall(env) -> bool:
    pairs = env.unwrapped._data.contact.geom
    return any(env.unwrapped._model.geom(geom).name.startswith("wall") for geom in pairs.ravel())


def beside_a_wall(maze) -> np.ndarray:
    """A start from which the feet reach a wall."""
    return maze.cell_center(maze.start) - (1.1, 1.1 * np.sign(maze.cell_center((0, 0))[1] * -1))


def state(env) -> np.ndarray:
    """[29] as float64."""
    return np.concatenate([env.unwrapped._data.qpos, env.unwrapped._data.qvel])


@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")
@EVERY
def test_follows_gymnasium(env):
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("maze", antmaze.LAYOUTS)
def test_d4rl_physics_are_ogbench_s_bit_for_bit(maze, scratch):
    from ogbench.locomaze.maze import make_maze_env

    ours, theirs = antmaze.make(maze, "d4rl"), make_maze_env("ant", "maze", maze_type=maze)
    with_the_contacts_of_the_recordings(theirs.model)
    free = [list(map(int, cell)) for cell in np.argwhere(theirs.maze_map == 0)]
    assert free == list(map(list, ours.maze.free_cells))
    assert all(np.array_equal(theirs.ij_to_xy(cell), ours.maze.cell_center(cell)) for cell in free)
    contacts = 0
    for seed in range(3):
        ours.reset(seed=seed, options={"start": beside_a_wall(ours.maze)})
        theirs.reset(seed=seed)
        mujoco.mj_resetData(theirs.model, theirs.data)
        theirs.set_state(ours.unwrapped._data.qpos, ours.unwrapped._data.qvel)
        for action in torques(seed, 250):
            seen, *_ = ours.step(action)
            expected, *_ = theirs.step(action)
            np.testing.assert_array_equal(state(ours), expected)
            np.testing.assert_array_equal(seen, expected.astype(np.float32))
            contacts += touches_a_wall(ours)
    theirs.close()
    assert contacts > 20


@pytest.mark.parametrize("maze", antmaze.LAYOUTS)
@pytest.mark.parametrize(
    ("original", "options"),
    [(AntMazeV4, {}), (AntMazeV5, {"include_cfrc_ext_in_observation": False})],
    ids=["v4", "v5"],
)
def test_gymnasium_physics_are_gymnasium_robotics_own(maze, original, options, scratch):
    cells = [list(row) for row in THEIR_MAPS[maze]]
    ours = antmaze.make(maze, "gymnasium")
    (start, goal), free = (ours.maze.start, ours.maze.goal), ours.maze.free_cells
    assert free == [(row, column) for row, line in enumerate(cells) for column, cell in enumerate(line) if cell == 0]
    cells[start[0]][start[1]], cells[goal[0]][goal[1]] = maps.RESET, maps.GOAL
    theirs = original(maze_map=cells, continuing_task=False, **options)
    with_the_contacts_of_the_recordings(theirs.ant_env.model)
    assert all(np.array_equal(theirs.maze.cell_rowcol_to_xy(cell), ours.maze.cell_center(cell)) for cell in free)
    contacts = 0
    for seed in range(4):
        seen, info = ours.reset(seed=seed)
        expected, expected_info = theirs.reset(seed=seed)
        np.testing.assert_array_equal(ours.goal, expected["desired_goal"])
        assert info["success"] == expected_info["success"]
        for action in torques(seed, 250, hold=10):
            joined = np.concatenate([expected["achieved_goal"], expected["observation"]])
            np.testing.assert_array_equal(state(ours), joined)
            np.testing.assert_array_equal(seen, joined.astype(np.float32))
            seen, *rest, info = ours.step(action)
            expected, *expected_rest, expected_info = theirs.step(action)
            assert rest == expected_rest
            assert info["success"] == expected_info["success"]
            contacts += touches_a_wall(ours)
    theirs.close()
    assert contacts > 0


@EVERY
def test_a_contact_begins_one_margin_away(env):
    """As before MuJoCo 3.5, where a pair's margin was the larger of the two and not their sum."""
    env.reset(seed=0)
    floor = env._model.geom("floor").id
    for height, touching in ((0.005, True), (0.015, False)):
        mujoco.mj_resetData(env._model, env._data)
        env._data.qpos[2] = 5.0
        mujoco.mj_forward(env._model, env._data)
        distances = [
            mujoco.mj_geomDistance(env._model, env._data, floor, geom, 10.0, None)
            for geom in range(env._model.ngeom)
            if env._model.geom_bodyid[geom]
        ]
        env._data.qpos[2] += height - min(distances)
        mujoco.mj_forward(env._model, env._data)
        assert any(floor in contact.geom for contact in env._data.contact) == touching


@EVERY
def test_observation_is_the_whole_state_in_d4rl_s_order(env):
    observation, _ = env.reset(seed=3)
    assert observation.shape == (29,)
    assert observation.dtype == np.float32
    joints = [env._model.joint(number) for number in range(env._model.njnt)]
    assert [joint.name for joint in joints[1:]] == [
        f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle")
    ]
    np.testing.assert_array_equal(observation[:15], env._data.qpos.astype(np.float32))
    np.testing.assert_array_equal(observation[15:], env._data.qvel.astype(np.float32))
    assert np.linalg.norm(observation[3:7]) == pytest.approx(1, abs=1e-6)
    motors = [
        env._model.actuator(number).name or env._model.joint(env._model.actuator(number).trnid[0]).name
        for number in range(8)
    ]
    assert motors == ["hip_4", "ankle_4", "hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3"]


@pytest.mark.parametrize("maze", antmaze.LAYOUTS)
def test_d4rl_resets(maze):
    env = antmaze.make(maze, "d4rl")
    assert (env.maze.start, env.maze.goal) == ((1, 1), GOALS[maze])
    np.testing.assert_array_equal(env.maze.cell_center(env.maze.start), 0)
    starts, jitter = [], []
    for seed in range(300):
        starts.append(env.reset(seed=seed)[0])
        jitter.append(env.goal - env.maze.cell_center(env.maze.goal))
    starts, jitter = np.stack(starts), np.stack(jitter)
    assert jitter.min() >= 0
    assert 1.3 < jitter.max() <= 1.5
    np.testing.assert_allclose(jitter.mean(axis=0), 0.75, atol=0.06)  # U(0, 1) + U(0, ½)
    np.testing.assert_allclose(jitter.std(axis=0), np.sqrt(1 / 12 + 1 / 48), atol=0.03)
    pose = np.delete(starts[:, :15], [3, 4, 5, 6], axis=1) - np.delete(env._model.qpos0, [3, 4, 5, 6])
    assert 0.099 < np.abs(pose).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(starts[:, 15:].std(), 0.1, atol=0.005)


@pytest.mark.parametrize("maze", antmaze.LAYOUTS)
def test_gymnasium_resets(maze):
    env = antmaze.make(maze, "gymnasium")
    for cell, draw in [(env.maze.start, lambda: env._data.qpos[:2].copy()), (env.maze.goal, lambda: env.goal)]:
        offset = np.stack([env.reset(seed=seed) and draw() for seed in range(200)]) - env.maze.cell_center(cell)
        assert 0.9 < np.abs(offset).max() <= 1
    observation, _ = env.reset(seed=0)
    assert not observation[15:].any()


@EVERY
def test_reset_determines_the_episode(env):
    actions = torques(0, 60)
    first, goal = rollout(env, 7, actions), env.goal
    rollout(env, 1, torques(1, 60))  # whatever happened before
    np.testing.assert_array_equal(rollout(env, 7, actions), first)
    np.testing.assert_array_equal(env.goal, goal)
    fresh = antmaze.make(*env.spec.kwargs.values())
    np.testing.assert_array_equal(rollout(fresh, 7, actions), first)
    assert not np.array_equal(env.reset(seed=8)[0], first[0])
    assert not np.array_equal(env.goal, goal)
    assert not np.array_equal(env.reset()[0], env.reset()[0])


@EVERY
@pytest.mark.parametrize("inside", [True, False])
def test_the_goal_radius_ends_the_episode_and_pays(env, inside):
    radius = {0.02: 0.5, 0.01: 0.45}[env.physics.timestep]
    goal = env.maze.cell_center(env.maze.goal)
    start = goal - np.array([0, radius - 0.02 if inside else radius + 0.15])
    _, info = env.reset(seed=0, options={"start": start, "goal": goal})
    assert info["success"] is inside
    observation, *rest, info = env.step(np.zeros(8, np.float32))
    assert (np.linalg.norm(observation[:2] - goal) <= radius) == inside
    assert (*rest, info) == (float(inside), inside, False, {"success": inside})


def test_neither_a_fall_nor_time_ends_the_episode(env):
    observation, _ = env.reset(seed=0)
    observation[2:7] = 0.4, 0, 1, 0, 0  # on its back
    env.set_state(observation)
    for _ in range(1100):
        observation, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
        assert (reward, terminated, truncated, info) == (0.0, False, False, {"success": False})
    up = 1 - 2 * (observation[4] ** 2 + observation[5] ** 2)
    assert up < -0.9


@EVERY
def test_a_recorded_state_can_be_put_back(env):
    env.reset(seed=2, options={"start": beside_a_wall(env.maze)})
    actions, exact = torques(2, 100), [state(env)]
    for action in actions:
        env.step(action)
        exact.append(state(env))
    env.reset(seed=5)
    goal, errors = env.goal, []
    for before, action, after in zip(exact, actions, exact[1:], strict=False):
        env.set_state(before)
        env.step(action)
        np.testing.assert_allclose(state(env), after, atol=1e-6)
        env.set_state(before.astype(np.float32))
        np.testing.assert_array_equal(state(env), before.astype(np.float32))
        following, *_ = env.step(action)
        errors.append(np.abs(following - after).max())
    assert np.quantile(errors, 0.9) < 1e-5  # rounding can make or break a contact
    np.testing.assert_array_equal(env.goal, goal)


@EVERY
def test_nothing_of_the_past_remains_in_a_state_that_is_put_back(env):
    observation, actions = env.reset(seed=0)[0], torques(3, 20)
    env.set_state(observation)
    first = [env.step(action)[0] for action in actions]
    env.set_state(observation)
    np.testing.assert_array_equal([env.step(action)[0] for action in actions], first)


@EVERY
def test_starts_and_goals_can_be_chosen(env):
    start, goal = env.maze.cell_center((3, 2)), env.maze.cell_center((5, 1)) + 0.3
    observation, _ = env.reset(seed=0, options={"start": start, "goal": goal})
    np.testing.assert_array_equal(observation[:2], start.astype(np.float32))
    np.testing.assert_array_equal(env.goal, goal)
    np.testing.assert_array_equal(env._model.site("goal").pos[:2], goal)
    assert not np.array_equal(env.reset(seed=0)[0], observation)
    env.set_goal(start)
    np.testing.assert_array_equal(env.goal, start)
    for options, cause in [
        ({"start": env.maze.cell_center((0, 0))}, "not a free cell"),
        ({"goal": (99, 99)}, "not a free cell"),
        ({"cell": 1}, "unknown"),
    ]:
        with pytest.raises(InputError, match=cause):
            env.reset(options=options)


@EVERY
def test_the_maze(env):
    maze = env.maze
    assert (maze.start, maze.goal) == ((1, 1), GOALS[env.spec.kwargs["maze"]])
    assert len(maze.free_cells) + len(maze.walls) == np.prod(maze.shape)
    rng = np.random.default_rng(0)
    for cell in maze.free_cells:
        assert maze.is_free(cell)
        assert maze.cell_of(maze.cell_center(cell) + rng.uniform(-1.99, 1.99, 2)) == cell
    assert not any(map(maze.is_free, maze.walls))
    assert not maze.is_free((-1, 1))
    box = env._model.geom("wall_0_3")
    np.testing.assert_array_equal(box.pos, [*maze.cell_center((0, 3)), 1])
    np.testing.assert_array_equal(box.size, [2, 2, 1])
    reached, ahead = {maze.start}, deque([maze.start])
    while ahead:
        row, column = ahead.popleft()
        beside = {(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)}
        fresh = set(filter(maze.is_free, beside)) - reached
        reached |= fresh
        ahead.extend(fresh)
    assert reached == set(maze.free_cells)


def test_actions_beyond_the_bounds_are_clipped(env):
    np.testing.assert_array_equal(rollout(env, 0, 5 * torques(0, 10).round()), rollout(env, 0, torques(0, 10).round()))


@pytest.mark.parametrize(("options", "nearest"), [({"maze": "larg"}, "large"), ({"physics": "d4r"}, "d4rl")])
def test_unknown_names_get_the_nearest(options, nearest):
    with pytest.raises(InputError, match=nearest):
        antmaze.make(**options)


@EVERY
def test_can_be_made_again_from_its_spec(env):
    again = env.spec.make(disable_env_checker=True)
    np.testing.assert_array_equal(again.reset(seed=4)[0], env.reset(seed=4)[0])
    again.close()


def test_published_episodes_become_ours():
    steps, maze = 6, antmaze.make("large", "gymnasium").maze
    goal = maze.cell_center(maze.goal)
    position = goal + np.linspace(-1.2, 1.2, steps + 1)[:, None] * (1, 0)
    recorded = Episode(
        observations={
            "achieved_goal": position,
            "desired_goal": np.zeros((steps + 1, 2)),
            "observation": np.arange(27.0) + np.zeros((steps + 1, 1)),
        },
        actions=np.zeros((steps, 8), np.float32),
        rewards=np.ones(steps),
        terminations=np.zeros(steps, bool),
        truncated=True,
    )
    episode = antmaze.from_gymnasium_robotics(recorded, maze="large")
    assert episode.observations.dtype == np.float32
    np.testing.assert_array_equal(episode.observations[:, :2], position.astype(np.float32))
    np.testing.assert_array_equal(episode.observations[:, 2:], recorded.observations["observation"])
    reached = np.array([0, 1, 1, 1, 0, 0], bool)  # at −0.8, −0.4, 0, 0.4, 0.8 and 1.2 m
    for found in (episode.rewards, episode.terminations, episode.successes):
        np.testing.assert_array_equal(found, reached)
    assert episode.rewards.dtype == np.float32
    assert episode.truncated
    for broken in (
        position,
        {"observation": position},
        recorded.observations | {"observation": np.zeros((steps + 1, 105))},
    ):
        with pytest.raises(InputError, match="AntMaze v4"):
            antmaze.from_gymnasium_robotics(recorded._replace(observations=broken), maze="large")


@pytest.mark.parametrize(("maze", "shape"), [("medium", (512, 512, 3)), ("large", (576, 768, 3))])
def test_rendering_changes_nothing(maze, shape):
    plain, seen, actions = antmaze.make(maze), antmaze.make(maze, render_mode="rgb_array"), torques(2, 15)
    observations = [seen.reset(seed=3)[0]]
    for action in actions:
        image = seen.render()
        observations.append(seen.step(action)[0])
    seen.close()
    np.testing.assert_array_equal(np.stack(observations), rollout(plain, 3, actions))
    assert image.shape == shape
    assert image.dtype == np.uint8


@pytest.mark.parametrize("physics", antmaze.PHYSICS)
def test_the_image_shows_walls_ant_and_goal(physics):
    env = antmaze.make("large", physics, render_mode="rgb_array")
    env.reset(seed=0)
    image = env.render().astype(int)
    env.close()

    def at(position) -> np.ndarray:
        rows, columns = env.maze.shape
        x, y = position - env.maze.cell_center(((rows - 1) / 2, (columns - 1) / 2))
        return image[int((rows / 2 - y / 4) * 64), int((columns / 2 + x / 4) * 64)]

    red, green, blue = at(env.goal)
    assert green > red + 50
    assert green > blue + 50
    red, green, blue = at(env._data.qpos[:2])
    assert red > green + 50
    assert red > blue + 50
    for cell in env.maze.walls:
        red, _, blue = at(env.maze.cell_center(cell))
        assert blue > red + 20
    for cell in set(env.maze.free_cells) - {env.maze.start, env.maze.goal}:
        assert np.ptp(at(env.maze.cell_center(cell))) < 20


def test_import_is_light_and_renders_without_a_display():
    code = (
        "import os, sys; from calql.paper.envs import antmaze\n"
        "assert 'MUJOCO_GL' not in os.environ and not {'jax', 'gymnasium_robotics'} & set(sys.modules)\n"
        "env = antmaze.make(render_mode='rgb_array'); env.reset(seed=0); print(env.render().shape); env.close()"
    )
    bare = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("(512, 512, 3)", "")
