"""The default task's environment against the one it is made of, and against its own contract."""

import os
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

from calql.paper.envs import pointmaze


def actions(seed: int, steps: int = 80) -> np.ndarray:
    """Pushes that are held for some steps, so that the ball gets fast and meets walls."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps // 5, 2)).repeat(5, axis=0).astype(np.float32)


def rollout(env, seed, pushes) -> np.ndarray:
    return np.stack([env.reset(seed=seed)[0], *(env.step(push)[0] for push in pushes)])


@pytest.fixture
def env():
    env = pointmaze.make()
    yield env
    env.close()


def test_follows_gymnasium(env):
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("seed", range(5))
def test_physics_are_pointmaze_s_own(env, seed):
    theirs = PointMazeEnv(maze_map=pointmaze.maze_map(), continuing_task=False)
    theirs.point_env.frame_skip = pointmaze.FRAME_SKIP
    theirs.reset(seed=0)
    env.reset(seed=seed)
    theirs.point_env.set_state(env.unwrapped._data.qpos, np.zeros(2))
    fastest = 0.0
    for push in actions(seed, 400):
        ours, *_ = env.step(push)
        state, *_ = theirs.step(push)
        np.testing.assert_array_equal(ours, state["observation"].astype(np.float32) / pointmaze.OBSERVATION_SCALE)
        fastest = max(fastest, np.abs(state["observation"][2:]).max())
    assert fastest > pointmaze.MAX_SPEED  # so the clipping was at work


def test_reset_determines_the_episode(env):
    first = rollout(env, 7, actions(0))
    rollout(env, 1, actions(1))  # whatever happened before
    np.testing.assert_array_equal(rollout(env, 7, actions(0)), first)
    np.testing.assert_array_equal(rollout(pointmaze.make(), 7, actions(0)), first)
    assert not np.array_equal(rollout(env, 8, actions(0))[0], first[0])


def test_rendering_changes_nothing(env):
    seen = pointmaze.make("rgb_array")
    pushes = actions(2)
    plain, observations = rollout(env, 3, pushes), [seen.reset(seed=3)[0]]
    for push in pushes:
        image = seen.render()
        observations.append(seen.step(push)[0])
    seen.close()
    np.testing.assert_array_equal(np.stack(observations), plain)
    assert image.shape == (480, 480, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


def test_starts_at_rest_in_the_start_region(env):
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(200)]) * pointmaze.OBSERVATION_SCALE
    offset = starts[:, :2] - pointmaze.START_CENTER
    assert np.abs(offset).max() <= pointmaze.START_NOISE + 1e-6
    assert np.abs(offset).max() > 0.9 * pointmaze.START_NOISE
    assert not starts[:, 2:].any()
    cells = {pointmaze.cell_of(start) for start in starts[:, :2]}
    assert cells == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert all(pointmaze.MEDIUM_MAZE[row][column] != 1 for row, column in cells)


def test_goal_is_one_fixed_point(env):
    for seed in range(5):
        env.reset(seed=seed)
        np.testing.assert_array_equal(env.unwrapped._goal, pointmaze.cell_center(pointmaze.GOAL_CELL))


@pytest.mark.parametrize("distance", [0.3, 0.6])
def test_success_ends_and_pays_once(env, distance):
    env.reset(seed=0)
    env.unwrapped._data.qpos[:] = pointmaze.cell_center(pointmaze.GOAL_CELL) - (0, distance)
    _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    expected = distance < pointmaze.GOAL_RADIUS
    assert (reward, terminated, truncated, info["success"]) == (float(expected), expected, False, expected)


def test_observations_stay_in_their_space(env):
    for seed in range(10):
        states = rollout(env, seed, np.sign(actions(seed, 400)))
        assert states.dtype == np.float32
        assert np.abs(states).max() <= env.observation_space.high.max()


def test_actions_beyond_the_bounds_are_clipped(env):
    np.testing.assert_array_equal(rollout(env, 0, 5 * np.ones((5, 2))), rollout(env, 0, np.ones((5, 2))))


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pointmaze.make().close()
    assert list(tmp_path.iterdir()) == []


def test_import_is_silent_and_renders_without_a_display():
    code = (
        "import os; from calql.paper.envs import pointmaze; assert 'MUJOCO_GL' not in os.environ\n"
        "env = pointmaze.make('rgb_array'); env.reset(seed=0); print(env.render().shape); env.close()"
    )
    bare = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MUJOCO_GL", "PYOPENGL_PLATFORM")}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("(480, 480, 3)", "")
