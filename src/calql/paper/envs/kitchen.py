"""A Franka arm in a kitchen: open the microwave, move the kettle, turn on lights, slide a cabinet, in one episode.

The model, its limits and its physics are those of `gymnasium_robotics` FrankaKitchen-v1 (MuJoCo); what the learner
observes and earns is D4RL's `kitchen-*-v0` as the paper used it (`nakamotoo/D4RL:d4rl/kitchen/kitchen_envs.py`):

* observation [60] = robot joints 9, object joints 21, goal 30, with D4RL's noise; no velocities. The goal is constant:
  the goal positions of the subtasks at their places among the 30 joints, zeros elsewhere, the robot's 9 included;
* reward at every step = number of subtasks solved **so far** in the episode: one that is undone later stays counted.
  (Stock D4RL pays one-off bonuses instead; D4RL's recorded rewards count what is solved at that moment.)
* an episode never terminates, not even when everything is solved.

The joints are read straight from MuJoCo's arrays rather than through `KitchenEnv`, whose joint accessors compare
joint types in a way that MuJoCo 3.12 and later answer with False; so no version of MuJoCo needs a patch.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.registration import EnvSpec

from calql.envs.headless import headless_gl
from calql.types import Episode, InputError

with contextlib.redirect_stderr(io.StringIO()):  # hides a notice about other environments of the package
    from gymnasium_robotics.envs.franka_kitchen.franka_env import FrankaRobot
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import BONUS_THRESH, OBS_ELEMENT_GOALS, OBS_ELEMENT_INDICES

SUBTASKS = tuple(OBS_ELEMENT_GOALS)
"""Names of all subtasks of the model."""
MODEL = "../assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"
"""Path relative to the file that defines `FrankaRobot`."""
FRAME_SKIP = 40
"""Physics steps of 2 ms per decision: 12.5 decisions per second."""
MAX_SPEED = 2.0
"""Joint velocity of a full action in rad/s (m/s for the fingers)."""
NOISE = np.repeat([0.1, 0.005, 0.0005, 0.005, 0.1, 0.005, 0.1, 0.005], [9, 2, 6, 3, 3, 3, 3, 1])
"""[30] half width of the uniform noise on each joint at noise 1, in rad or m (`franka_config.xml`, `pos_noise_amp`)."""
START = np.concatenate(
    [
        [0.148388023, -1.76848573, 1.84390296, -2.4768576, 0.260252026, 0.712533105, 1.59515394],
        [0.0479267505, 0.0371350919],
        [-2.6627985e-04, -5.18043486e-05, 3.1287722e-05, -4.51199853e-05],
        [-3.90842156e-06, -4.22629655e-05, 6.28065475e-05, 4.04984708e-05],
        [4.62730939e-04, -2.26906415e-04],
        [-4.65501369e-04, -6.44129196e-03, -1.77048263e-03, 1.08009684e-03],
        [-0.26939744, 0.350383255, 1.61944683, 1.00618764, 4.0639512e-03, -6.62095997e-03, -2.68278933e-04],
    ]
)
"""[30] joints at the start of every episode (D4RL's own): arm 7, fingers 2, knobs and burners 8, light switch and lamp
2, slide cabinet, hinge cabinets 2, microwave, and the kettle's position 3 and quaternion 4."""


def goal_vector(tasks: Sequence[str]) -> np.ndarray:
    """[30] goal positions of these subtasks, zeros elsewhere. Raises InputError for unknown, repeated or no names."""
    if unknown := sorted(set(tasks) - set(SUBTASKS)):
        raise InputError(f"the kitchen has no subtask {', '.join(map(repr, unknown))}; it has {', '.join(SUBTASKS)}")
    if not tasks or len(set(tasks)) < len(tasks):
        raise InputError(f"tasks is {list(tasks)}; name at least one subtask, each once")
    goal = np.zeros(len(START))
    for name in tasks:
        goal[OBS_ELEMENT_INDICES[name]] = OBS_ELEMENT_GOALS[name]
    return goal


def is_solved(name: str, joints: np.ndarray) -> np.ndarray:
    """[…] bool: whether the subtask's joints, out of […, 30], lie within 0.3 (Euclidean distance) of their goal."""
    distance = np.linalg.norm(joints[..., OBS_ELEMENT_INDICES[name]] - OBS_ELEMENT_GOALS[name], axis=-1)
    return distance < BONUS_THRESH


class Kitchen(gymnasium.Env):
    """Observation [60] float32; action [9] in [−1, 1]: joint velocities over `MAX_SPEED`; see the module.

    As in D4RL, a target joint position is the last *observed* one plus velocity times 0.08 s, so noise on the
    observation moves the arm. `info["success"]`: all subtasks solved so far; `info["solved"]`: their names, in order.
    An episode depends only on `reset(seed=…)` and the actions.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 12}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(self, tasks: Sequence[str], noise: float = 0.1, render_mode: str | None = None):
        self.tasks = tuple(tasks)
        self.render_mode = render_mode
        self._goal = goal_vector(self.tasks)
        self._noise = noise * NOISE
        self._robot = FrankaRobot(model_path=MODEL, frame_skip=FRAME_SKIP, render_mode=render_mode)
        self.dt = self._robot.dt
        self._limits = self._robot.robot_pos_bound[:9].T
        self.model, self.data = self._robot.model, self._robot.data
        self.model.light_castshadow[:] = 0  # a frame takes ten times as long with shadows
        self.observation_space = gymnasium.spaces.Box(-8.0, 8.0, (60,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (9,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Reset to the only start; the seed determines the noise."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)  # also resets the solver's warm start
        self.data.qpos[:] = START
        mujoco.mj_forward(self.model, self.data)
        self._solved: list[str] = []
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move for 0.08 s. Actions are clipped to [−1, 1]."""
        velocity = MAX_SPEED * np.clip(action, -1.0, 1.0, dtype=np.float64)
        self.data.ctrl[:] = np.clip(self._joints[:9] + velocity * self.dt, *self._limits)
        mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
        observation = self._observe()
        self._solved += [name for name in self.tasks if name not in self._solved and is_solved(name, self._joints)]
        if self.render_mode == "human":
            self.render()
        return observation, float(len(self._solved)), False, False, self._info()

    def solution_ranks(self, observations: np.ndarray) -> dict[str, int]:
        """Subtask → its rank in the order of first solutions in an episode [T + 1, 60], from 1; 0: never solved.

        The environment's own subtasks come first.
        """
        names = [*self.tasks, *(name for name in SUBTASKS if name not in self.tasks)]
        joints = observations[1:, :30]
        solved = np.stack([is_solved(name, joints) for name in names], axis=1)
        first = np.where(solved.any(axis=0), solved.argmax(axis=0), len(joints))
        ranks = 1 + np.argsort(np.argsort(first, kind="stable"), kind="stable")
        return dict(zip(names, np.where(first < len(joints), ranks, 0).tolist(), strict=True))

    def ending(self, episode: Episode) -> tuple[str, float]:
        """The subtasks that an episode solved, in their order, and the share of all."""
        ranks = self.solution_ranks(np.asarray(episode.observations))
        solved = sorted((name for name in self.tasks if ranks[name]), key=ranks.__getitem__)
        return ", ".join(solved) or "no subtask", len(solved) / len(self.tasks)

    def _observe(self) -> np.ndarray:
        self._joints = self.data.qpos + self._noise * self.np_random.uniform(-1.0, 1.0, len(START))
        return np.concatenate([self._joints, self._goal]).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return {"success": len(self._solved) == len(self.tasks), "solved": tuple(self._solved)}

    def render(self) -> np.ndarray | None:
        """[480, 480, 3] uint8 image; about ten per second without a graphics card."""
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves positions of bodies one physics step behind
        return self._robot.render()  # pyright: ignore[reportReturnType] (the other kinds are of depth modes)

    def close(self) -> None:
        """Free the renderer."""
        self._robot.close()


def make(
    tasks: Sequence[str] = ("microwave", "kettle", "light switch", "slide cabinet"),
    render_mode: str | None = None,
    noise: float = 0.1,
) -> Kitchen:
    """The kitchen with these subtasks (D4RL's "complete" and "partial" by default).

    `noise`: observation noise, as a share of the robot's specification; D4RL has 0.1. `render_mode`: None,
    "rgb_array" or "human". Raises InputError for an unknown subtask.
    """
    if render_mode is not None:
        headless_gl()
    env = Kitchen(tasks, noise, render_mode)
    # Lets Minari record and recover the environment; it is not registered, and the horizon belongs to the task.
    options = {"tasks": list(tasks), "noise": noise}
    env.spec = EnvSpec(id="calql/Kitchen-v0", entry_point="calql.paper.envs.kitchen:make", kwargs=options)
    return env


def from_gymnasium_robotics(episode: Episode, tasks: Sequence[str]) -> Episode:
    """An episode of FrankaKitchen-v1 (Minari's `D4RL/kitchen/*-v2`) with the observation [T + 1, 60] of `Kitchen`.

    Rewards stay as recorded: the number of subtasks solved *at* each step, which falls if one is undone, while
    `Kitchen` counts those solved so far. Successes are the steps at which all of `tasks` are solved.
    Raises InputError unless there is an `observation` [T + 1, 59].
    """
    states = episode.observations.get("observation") if isinstance(episode.observations, dict) else None
    if states is None or np.ndim(states) != 2 or states.shape[1] != 59:
        raise InputError(
            "this is not a FrankaKitchen-v1 episode: it must hold dict observations with 'observation' [T, 59]"
        )
    joints = np.concatenate([states[:, :9], states[:, 18:39]], axis=1)  # drops the velocities
    goal = np.broadcast_to(goal_vector(tasks), joints.shape)
    successes = np.all([is_solved(name, joints[1:]) for name in tasks], axis=0)
    observations = np.concatenate([joints, goal], axis=1).astype(np.float32)
    return episode._replace(observations=observations, successes=successes)
