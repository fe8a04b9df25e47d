"""A point with inertia moves from one corner of Gymnasium-Robotics' medium maze to the other: the default task.

The model, its contacts and its velocity clipping are those of `gymnasium_robotics` `PointMazeEnv` (MuJoCo): a ball of
4.2 kg and 0.1 m radius, pushed by up to 100 N in x and y through corridors 1 m wide. Fixed here are one start
region (a square of 1.5 m over the four free cells at the top left), one goal point (the centre of the bottom right
cell), and 0.1 s of constant force per decision, in which a full push changes the velocity by 2.3 m/s.

A step is `PointMazeEnv.step` with `frame_skip` 10, bit for bit, without its dict observations and its second
`mj_forward`: about 1.5 times as fast. The way is 8 to 10 m long, about 45 decisions at 2 m/s. Only the time limit ends
an episode without success.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec

from calql.envs.headless import headless_gl
from calql.paper.envs.floor import Floor
from calql.paper.envs.ways import share_of_way, shortest_ways
from calql.types import Episode

with contextlib.redirect_stderr(io.StringIO()):  # hides a notice about other environments of the package
    from gymnasium_robotics.envs.maze.maps import GOAL, MEDIUM_MAZE, RESET
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

START_CELL, GOAL_CELL = (1, 1), (6, 6)
"""(row, column) in the maze map, counted from the top left."""
START_CENTER, START_NOISE = np.array([-2.0, 2.0]), 0.75
"""Centre and half side of the start square in metres: the way to the goal is between 8 and 10 m long."""
FRAME_SKIP = 10
"""Physics steps of 0.01 s per decision."""
GOAL_RADIUS = 0.45
"""Distance to the goal, in metres, that counts as success (Gymnasium-Robotics' own)."""
MAX_SPEED = 5.0
"""Each velocity component is clipped to ± this, in m/s, before a decision (Gymnasium-Robotics' own)."""
OBSERVATION_SCALE = np.array([3.0, 3.0, MAX_SPEED, MAX_SPEED], dtype=np.float32)
"""[4] metres, metres, m/s, m/s in one unit of (x, y, vx, vy). Free space is |x|, |y| < 3 m around the maze's centre."""
FROM_ABOVE = {"distance": 10.5, "azimuth": 90.0, "elevation": -90.0, "lookat": np.zeros(3)}
"""The camera."""
SPEC = EnvSpec(id="calql/PointMazeMediumNarrow-v0", entry_point="calql.paper.envs.pointmaze:make")
"""Lets Minari record and recover the environment; it is not registered, and the horizon belongs to the task."""


def maze_map() -> list[list[int | str]]:
    """The 8 × 8 medium maze: 1 wall, 0 free, one start and one goal cell."""
    cells: list[list[int | str]] = [list(row) for row in MEDIUM_MAZE]
    cells[START_CELL[0]][START_CELL[1]], cells[GOAL_CELL[0]][GOAL_CELL[1]] = RESET, GOAL
    return cells


def cell_of(position: np.ndarray) -> tuple[int, int]:
    """(row, column) of the cell that holds a position [2] in metres."""
    return int(np.floor(4.0 - position[1])), int(np.floor(position[0] + 4.0))


def cell_center(cell: tuple[int, int]) -> np.ndarray:
    """[2] position in metres of the centre of a (row, column) cell: x grows with the column, y falls with the row."""
    return np.array([cell[1] - 3.5, 3.5 - cell[0]])


class PointMaze(gymnasium.Env):
    """Observation [4] float32: (x, y, vx, vy) / `OBSERVATION_SCALE`. Action [2] in [−1, 1]: the force over 100 N.

    Reward 1 and termination at the first decision that ends within `GOAL_RADIUS` of the goal, else 0; no time limit.
    An episode depends only on `reset(seed=…)` and the actions.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-3.0, 3.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._maze = PointMazeEnv(maze_map=maze_map(), render_mode=render_mode, continuing_task=False)
        with contextlib.suppress(OSError):
            os.unlink(self._maze.tmp_xml_file_path)  # the maze does not delete its model file
        self._maze.point_env.mujoco_renderer.default_cam_config = FROM_ABOVE
        self._maze.position_noise_range = 0.0
        self._maze.reset(seed=0)  # sets the goal and its marker in the image
        self._goal = self._maze.goal
        self._model, self._data = self._maze.model, self._maze.data

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start at rest, uniformly in the start square."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)  # also resets the solver's warm start
        self._data.qpos[:] = START_CENTER + self.np_random.uniform(-START_NOISE, START_NOISE, 2)
        mujoco.mj_forward(self._model, self._data)
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Push for 0.1 s. The model clips the action to [−1, 1]."""
        data = self._data
        np.clip(data.qvel, -MAX_SPEED, MAX_SPEED, out=data.qvel)
        data.ctrl[:] = action
        mujoco.mj_step(self._model, data, nstep=FRAME_SKIP)
        dx, dy = data.qpos - self._goal
        success = bool(dx * dx + dy * dy <= GOAL_RADIUS**2)
        if self.render_mode == "human":
            self.render()
        return self._observe(), float(success), success, False, {"success": success}

    def floor_plan(self) -> Floor:
        """Walls, start and goal."""
        cells = [(i, j) for i, row in enumerate(maze_map()) for j, sign in enumerate(row) if sign == 1]
        walls = np.array([cell_center(cell) for cell in cells])
        return Floor(walls, 1.0, START_CENTER, cell_center(GOAL_CELL), GOAL_RADIUS, OBSERVATION_SCALE[:2])

    def ending(self, episode: Episode) -> tuple[str, float]:
        """How an episode without success ended, and the share of the way to the goal, in cells, that it came."""
        walls = maze_map()
        ways = shortest_ways(lambda cell: walls[cell[0]][cell[1]] != 1, GOAL_CELL)
        cells = [cell_of(place) for place in np.asarray(episode.observations)[:, :2] * OBSERVATION_SCALE[:2]]
        return "out of time on the way", share_of_way(ways, cells)

    def render(self) -> np.ndarray | None:
        """[480, 480, 3] uint8 image of the whole maze from above."""
        mujoco.mj_kinematics(self._model, self._data)  # mj_step leaves positions of bodies one physics step behind
        return self._maze.render()  # pyright: ignore[reportReturnType] (the other kinds are of depth modes)

    def close(self) -> None:
        """Free the renderer."""
        self._maze.close()

    def _observe(self) -> np.ndarray:
        data = self._data
        return np.concatenate([data.qpos, data.qvel], dtype=np.float32) / OBSERVATION_SCALE


def make(render_mode: str | None = None) -> PointMaze:
    """The environment of the default task. `render_mode`: None, "rgb_array" or "human"."""
    if render_mode is not None:
        headless_gl()
    env = PointMaze(render_mode)
    env.spec = SPEC
    return env
