"""An ant walks from one corner of a maze to the other, in D4RL's or Gymnasium-Robotics' physics; data fit only one.

`physics="d4rl"` is `antmaze-{medium,large}-{play,diverse}-v2` (Farama-Foundation/D4RL, `d4rl/locomotion`) on today's
MuJoCo, and what the paper ran. D4RL's ant is gymnasium's `ant.xml` with another time step, other motors and softer
contacts. Trajectories from equal states equal those of OGBench's antmaze bit for bit, if contacts begin where they
did when the data were recorded (`antmaze_model.SUMS_MARGINS`).

`physics="gymnasium"` is Gymnasium-Robotics' `AntMaze_{Medium,Large}-v4` with one start and one goal cell (the maps that
Minari's `D4RL/antmaze` sets name for evaluation) and `continuing_task=False`. Starts, goals and trajectories equal v4's
bit for bit (under the same condition), and also v5's with `include_cfrc_ext_in_observation=False`: v4 and v5 differ in
nothing that matters here.

The ant may fall on its back. As in both originals, the episode then continues.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec

from calql.envs.headless import headless_gl
from calql.paper.envs.antmaze_model import (
    CELL,
    FRAME_SKIP,
    LAYOUTS,
    PHYSICS,
    PIXELS,
    Cell,
    Maze,
    Physics,
    build_model,
)
from calql.paper.envs.floor import Floor
from calql.paper.envs.ways import share_of_way, shortest_ways
from calql.tasks import nearest
from calql.types import Episode, InputError

__all__ = [
    "CELL",
    "FRAME_SKIP",
    "LAYOUTS",
    "PHYSICS",
    "AntMaze",
    "Cell",
    "Maze",
    "Physics",
    "from_gymnasium_robotics",
    "make",
]


LAST_STEPS, STILL = 100, 0.5
"""An ant that has stayed within this distance (metres) in as many last steps is stuck."""


class AntMaze(gymnasium.Env):
    """Observation [29] float32: torso x, y, z, its quaternion, 8 joint angles, 14 velocities, without the goal.

    Action [8] in [−1, 1]: the motors' torques over `Physics.gear`. Reward 1 and termination at the first decision that
    ends within `Physics.goal_radius` of the goal, else 0; no time limit. An episode depends only on `reset(seed=…)`
    and the actions. `maze` and `physics` describe the environment, and `goal` is the episode's goal [2] in metres.
    """

    def __init__(self, maze: Maze, physics: Physics, render_mode: str | None = None):
        self.maze, self.physics, self.render_mode = maze, physics, render_mode
        fps = round(1 / (physics.timestep * FRAME_SKIP))
        self.metadata = {"render_modes": ["rgb_array", "human"], "render_fps": fps}
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (29,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self._model = build_model(maze, physics)
        self._data = mujoco.MjData(self._model)
        self._renderer = None
        self.set_goal(maze.cell_center(maze.goal))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Draw goal, start and pose as the original does. `options` may hold an exact `start` or `goal` [2] in metres.

        Raises InputError if such a position lies in a wall, or the options hold anything else.
        """
        super().reset(seed=seed)
        options, noise = options or {}, self.physics.pose_noise
        if unknown := options.keys() - {"start", "goal"}:
            raise InputError(f"unknown reset options {sorted(unknown)}; give start or goal, as (x, y) in metres")
        goal = self._near(self.maze.goal, self.physics.goal_noise)
        start = self._near(self.maze.start, self.physics.start_noise)
        mujoco.mj_resetData(self._model, self._data)  # also resets the solver's warm start
        qpos, qvel = self._data.qpos, self._data.qvel
        qpos[:2] = start
        qpos += self.np_random.uniform(-noise, noise, qpos.shape)
        qvel += noise * self.np_random.standard_normal(qvel.shape)
        if "start" in options:
            qpos[:2] = self._free(options["start"])
        mujoco.mj_normalizeQuat(self._model, qpos)  # MuJoCo does this in its first step, as D4RL's recordings show
        mujoco.mj_forward(self._model, self._data)
        self.set_goal(options.get("goal", goal))
        return self._observe(), {"success": self._at_goal()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Apply the torques for `FRAME_SKIP` physics steps. The model clips the action to [−1, 1]."""
        self._data.ctrl[:] = action
        mujoco.mj_step(self._model, self._data, nstep=FRAME_SKIP)
        success = self._at_goal()
        if self.render_mode == "human":
            self.render()
        return self._observe(), float(success), success, False, {"success": success}

    def floor_plan(self) -> Floor:
        """Walls, start, and the mean of the goals that `reset` draws."""
        maze = self.maze
        walls = np.array([maze.cell_center(cell) for cell in maze.walls])
        goal = maze.cell_center(maze.goal) + sum(map(np.mean, self.physics.goal_noise))
        return Floor(walls, CELL, maze.cell_center(maze.start), goal, self.physics.goal_radius, 1.0)

    def ending(self, episode: Episode) -> tuple[str, float]:
        """How an episode without success ended, and the share of the way to the goal, in cells, that it came."""
        places = np.asarray(episode.observations)[:, :2]
        ways = shortest_ways(self.maze.is_free, self.maze.cell_of(self.goal))
        progress = share_of_way(ways, list(map(self.maze.cell_of, places)))
        _, x, y, _ = np.asarray(episode.observations)[-1, 3:7]
        if 1.0 - 2.0 * (x * x + y * y) < 0.0:
            return "fell on its back", progress
        last = places[-LAST_STEPS:]
        if np.linalg.norm(last - last[-1], axis=1).max() < STILL:
            return "stuck near ({:.0f}, {:.0f})".format(*last[-1]), progress
        return "out of time on the way", progress

    def set_goal(self, position: np.ndarray) -> None:
        """Set the goal [2] in metres. Raises InputError if it lies in a wall."""
        self.goal = self._free(position)
        self._model.site("goal").pos[:2] = self.goal

    def set_state(self, observation: np.ndarray) -> None:
        """Set the ant to a recorded observation [29]; the goal stays.

        An observation is the complete state: from float64 the next one follows to 1e-6, from float32 to about the same,
        unless the rounding makes or breaks a contact.
        """
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:], self._data.qvel[:] = np.split(np.asarray(observation, float), [self._model.nq])
        mujoco.mj_forward(self._model, self._data)

    def render(self) -> np.ndarray | None:
        """[rows · 64, columns · 64, 3] uint8 image of the whole maze from above, x to the right and y upwards."""
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer  # loads OpenGL

            rows, columns = self.maze.shape
            middle = self.maze.cell_center(((rows - 1) / 2, (columns - 1) / 2))
            view = {"distance": 10.0, "azimuth": 90.0, "elevation": -90.0, "lookat": np.append(middle, 0.0)}
            self._renderer = MujocoRenderer(self._model, self._data, view, width=columns * PIXELS, height=rows * PIXELS)
        mujoco.mj_kinematics(self._model, self._data)  # mj_step leaves positions of bodies one physics step behind
        return self._renderer.render(self.render_mode)  # pyright: ignore[reportReturnType] (the other kinds are of depth modes)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _near(self, cell: Cell, noise: tuple[tuple[float, float], ...]) -> np.ndarray:
        return self.maze.cell_center(cell) + sum(self.np_random.uniform(low, high, 2) for low, high in noise)

    def _free(self, position: np.ndarray) -> np.ndarray:
        cell = self.maze.cell_of(position)
        if not self.maze.is_free(cell):
            raise InputError(f"position {position} lies in cell {cell}, which is not a free cell of the maze")
        return np.array(position, float)

    def _at_goal(self) -> bool:
        dx, dy = self._data.qpos[:2] - self.goal
        return bool(dx * dx + dy * dy <= self.physics.goal_radius**2)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel], dtype=np.float32)


def make(maze: str = "medium", physics: str = "d4rl", render_mode: str | None = None) -> AntMaze:
    """The environment. `maze`: medium or large. `physics`: d4rl or gymnasium. `render_mode`: None, rgb_array or human.

    Raises InputError for other mazes and physics.
    """
    if maze not in LAYOUTS:
        raise nearest(maze, LAYOUTS, "maze")
    if physics not in PHYSICS:
        raise nearest(physics, PHYSICS, "physics")
    if render_mode is not None:
        headless_gl()
    env = AntMaze(Maze(LAYOUTS[maze], PHYSICS[physics].centred), PHYSICS[physics], render_mode)
    # Lets Minari record and recover the environment; it is not registered, and the horizon belongs to the task.
    name, arguments = f"AntMaze{maze.title()}{physics.title()}", {"maze": maze, "physics": physics}
    env.spec = EnvSpec(id=f"calql/{name}-v0", entry_point=f"{__name__}:make", kwargs=arguments)
    return env


def from_gymnasium_robotics(episode: Episode, maze: str, physics: str = "gymnasium") -> Episode:
    """An AntMaze v4 episode (Minari's `D4RL/antmaze`) with observations [T + 1, 29], rewarded for the task's goal.

    The recorded rewards are for a goal that differs between episodes and that the observation does not show. So
    every step that ends within the goal radius of the goal cell's centre pays 1 and is terminal, and the recording
    continues after it, as in D4RL's own sets (`scripts/generation/relabel_antmaze_rewards.py`).
    Raises InputError unless there are an `achieved_goal` [T + 1, 2] and an `observation` [T + 1, 27].
    """
    parts = episode.observations if isinstance(episode.observations, dict) else {}
    parts = [np.asarray(parts.get(name, ())) for name in ("achieved_goal", "observation")]
    if [part.shape[1:] for part in parts] != [(2,), (27,)]:
        raise InputError("this is not an AntMaze v4 episode: it must hold achieved_goal [T, 2] and observation [T, 27]")
    walls = Maze(LAYOUTS[maze], PHYSICS[physics].centred)
    distance = np.linalg.norm(parts[0][1:] - walls.cell_center(walls.goal), axis=1)
    reached = distance <= PHYSICS[physics].goal_radius
    return episode._replace(
        observations=np.concatenate(parts, axis=1, dtype=np.float32),
        rewards=reached.astype(np.float32),
        terminations=reached,
        truncated=not reached[-1],
        successes=reached,
    )
