"""A small arm puts an object into a bowl, observed by a camera: the visual task of the paper, rebuilt in MuJoCo.

The original (roboverse's `PickPlaceInterferingDistractors-v0` in PyBullet) was never fully released: its meshes and its
lists of objects are lost. What is known of it is kept: an arm of WidowX's size, five task objects and five others of
which one each lies on the table beside a bowl, the 7-dim action (Δx, Δy, Δz, Δroll, Δpitch, Δyaw, gripper), an image
with a 10-dim proprioceptive state, reward 1 and the end at success, 40 steps (the horizon is the task's).

Everything is made of MuJoCo's primitive bodies and rendered without shadows, so that a decision with its image takes
about 3 ms on one core. The gripper always points down: roll and pitch are accepted and do nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from calql.paper.envs.camera import Camera
from calql.types import Episode, InputError


class Thing(NamedTuple):
    """An object: shape, half sizes in metres (as MuJoCo takes them) and colour."""

    shape: str
    size: tuple[float, ...]
    colour: tuple[float, float, float]


TARGETS: dict[str, Thing] = {
    "ball": Thing("sphere", (0.022,), (0.90, 0.20, 0.20)),
    "cube": Thing("box", (0.019, 0.019, 0.019), (0.20, 0.30, 0.90)),
    "can": Thing("cylinder", (0.018, 0.024), (0.20, 0.80, 0.30)),
    "egg": Thing("ellipsoid", (0.026, 0.019, 0.019), (0.95, 0.90, 0.60)),
    "brick": Thing("box", (0.026, 0.015, 0.019), (0.80, 0.40, 0.10)),
}
"""Objects that belong into the bowl."""
DISTRACTORS: dict[str, Thing] = {
    "puck": Thing("cylinder", (0.022, 0.017), (0.10, 0.10, 0.10)),
    "pill": Thing("capsule", (0.015, 0.014), (0.90, 0.30, 0.90)),
    "block": Thing("box", (0.016, 0.016, 0.028), (0.10, 0.80, 0.80)),
    "stone": Thing("ellipsoid", (0.022, 0.022, 0.016), (0.50, 0.50, 0.50)),
    "peg": Thing("cylinder", (0.014, 0.028), (0.90, 0.90, 0.10)),
}
"""Objects that must stay where they are."""
UPPER, FORE, HAND = 0.25, 0.25, 0.16
"""Lengths of the arm's links, and of the hand down to the grasp point, in metres."""
BASE, SHOULDER = -0.12, 0.12
"""y of the base and height of the shoulder."""
BOWL, BOWL_HEIGHT = 0.058, 0.044
"""Radius of the bowl's wall and its height."""
REACH = np.array([[-0.22, 0.10, 0.035], [0.22, 0.36, 0.22]])
"""[lowest, highest] position of the grasp point."""
TABLE = np.array([[-0.13, 0.17], [-0.03, 0.26]])
"""[lowest, highest] (x, y) of the objects at the start: 10 by 9 cm, as in the original."""
BOWL_PLACES = np.array([[-0.04, 0.22], [0.16, 0.22]])
"""[lowest, highest] (x, y) of the bowl: a line of 20 cm."""
APART, FROM_BOWL = 0.07, 0.11
"""Minimum distances between objects, and from objects to the bowl's centre."""
MOVE, TURN = 0.04, 0.2
"""Metres and radians ahead that a full action aims at; the arm gets about half as far before the next action."""
OPEN, CLOSED = 0.04, 0.0
"""Target finger positions of the gripper."""
SUBSTEPS = 25
"""Physics steps of 4 ms per decision; twice as many when the gripper opens or closes."""
SPEC = EnvSpec(id="calql/PickPlace-v0", entry_point="calql.paper.envs.pick_place:make")
"""Lets Minari record and recover the environment; it is not registered, and the horizon belongs to the task."""


def scene() -> str:
    """The model as MuJoCo's XML: the arm, the bowl, and all ten objects, which lie beside the table until used."""

    def rgba(colour: tuple[float, float, float]) -> str:
        return " ".join(f"{part:g}" for part in colour) + " 1"

    things = "".join(
        f'<body name="{name}" pos="{3 + 0.2 * i:g} 3 0.03"><freejoint name="{name}"/><geom name="{name}" class="thing" '
        f'type="{thing.shape}" size="{" ".join(map(str, thing.size))}" rgba="{rgba(thing.colour)}"/></body>'
        for i, (name, thing) in enumerate((TARGETS | DISTRACTORS).items())
    )
    sides = 16
    wall = "".join(
        f'<geom class="bowl" type="box" size="0.004 {BOWL * np.pi / sides * 1.1:.4f} {BOWL_HEIGHT / 2:g}" '
        f'pos="{BOWL * np.cos(a):.4f} {BOWL * np.sin(a):.4f} {BOWL_HEIGHT / 2:g}" euler="0 0 {a:.4f}"/>'
        for a in 2 * np.pi * np.arange(sides) / sides
    )

    def finger(name: str, side: int) -> str:
        return (
            f'<body name="{name}" pos="0 0 -0.1"><joint name="{name}" type="slide" axis="{side} 0 0" '
            'range="0.004 0.04" damping="8"/><geom class="finger" type="box" size="0.005 0.012 0.035" '
            'pos="0 0 -0.035"/></body>'
        )

    gains = {"turn": (120, 8), "lift": (200, 12), "elbow": (200, 12), "wrist": (100, 5), "hand": (40, 3)}
    gains |= {"left": (150, 5), "right": (150, 5)}
    motors = "".join(f'<position joint="{name}" kp="{kp}" kv="{kv}"/>' for name, (kp, kv) in gains.items())
    return f"""<mujoco model="pick and place">
<compiler angle="radian"/>
<option timestep="0.004" integrator="implicitfast" cone="elliptic" impratio="10"/>
<visual>
  <quality shadowsize="0" offsamples="0"/><global offwidth="480" offheight="480"/>
  <headlight ambient="0.45 0.45 0.45" diffuse="0.45 0.45 0.45"/>
</visual>
<asset>
  <texture type="skybox" builtin="gradient" rgb1="0.82 0.87 0.92" rgb2="0.55 0.62 0.70" width="64" height="64"/>
  <texture name="table" type="2d" builtin="checker" rgb1="0.66 0.52 0.37" rgb2="0.62 0.48 0.34" width="64" height="64"/>
  <material name="table" texture="table" texrepeat="12 12" specular="0.1"/>
</asset>
<default>
  <joint damping="4" armature="0.1"/><geom solimp="0.95 0.99 0.001"/>
  <default class="arm"><geom contype="0" conaffinity="0" rgba="0.16 0.17 0.19 1"/></default>
  <default class="finger"><geom rgba="0.55 0.57 0.60 1" mass="0.03" friction="1.5 0.02 0.002" condim="6"/></default>
  <default class="bowl"><geom rgba="0.88 0.89 0.94 1"/></default>
  <default class="thing">
    <geom mass="0.03" friction="1.2 0.02 0.002" condim="6" solref="0.005 1"/>
  </default>
</default>
<worldbody>
  <light pos="0.3 0.2 1.5" dir="-0.2 0 -1" castshadow="false"/>
  <geom name="table" type="plane" size="1 1 0.1" material="table"/>
  <camera name="front" pos="0 0.62 0.42" xyaxes="-1 0 0 0 -0.66 0.75" fovy="42"/>
  <body name="base" pos="0 {BASE} 0">
    <geom class="arm" type="cylinder" size="0.05 0.06" pos="0 0 0.06"/>
    <body pos="0 0 {SHOULDER}">
      <joint name="turn" axis="0 0 1" range="-3 3"/>
      <geom class="arm" type="cylinder" size="0.045 0.02" mass="0.5" rgba="0.85 0.45 0.10 1"/>
      <body>
        <joint name="lift" axis="1 0 0" range="-2 2"/>
        <geom class="arm" type="capsule" fromto="0 0 0 0 0 {UPPER}" size="0.025" mass="0.5"/>
        <body pos="0 0 {UPPER}">
          <joint name="elbow" axis="1 0 0" range="-3 3"/>
          <geom class="arm" type="capsule" fromto="0 0 0 0 {FORE} 0" size="0.022" mass="0.4"/>
          <body pos="0 {FORE} 0">
            <joint name="wrist" axis="1 0 0" range="-3 3"/><joint name="hand" axis="0 0 1" range="-3 3"/>
            <geom class="arm" type="capsule" fromto="0 0 0 0 0 -0.08" size="0.02" mass="0.2" rgba="0.24 0.26 0.30 1"/>
            <geom type="box" size="0.045 0.015 0.01" pos="0 0 -0.09" rgba="0.3 0.3 0.3 1" mass="0.05"/>
            <site name="grasp" pos="0 0 {-HAND}" rgba="0 0 0 0"/>
            {finger("left", 1)}{finger("right", -1)}
          </body>
        </body>
      </body>
    </body>
  </body>
  <body name="bowl" mocap="true"><geom class="bowl" type="cylinder" size="0.056 0.003" pos="0 0 0.003"/>{wall}</body>
  {things}
</worldbody>
<actuator>{motors}</actuator>
</mujoco>"""


@cache
def model() -> mujoco.MjModel:
    """The model, one for all environments of the process; it never changes."""
    return mujoco.MjModel.from_xml_string(scene())


@cache
def camera() -> Camera:
    """The camera that all environments of the process share."""
    return Camera(model(), "front")


def joint_angles(position: np.ndarray, yaw: float) -> np.ndarray:
    """[5] angles that bring the grasp to a position [3] in metres, gripper down, turned by `yaw`."""
    x, y, z = position[0], position[1] - BASE, position[2] - SHOULDER + HAND
    turn, r = np.arctan2(-x, y), np.hypot(x, y)
    far = np.clip(np.hypot(r, z), 0.05, UPPER + FORE - 1e-3)
    bend = np.arccos(np.clip((UPPER**2 + far**2 - FORE**2) / (2 * UPPER * far), -1, 1))
    upper = np.arctan2(z, r) + bend
    fore = np.arctan2(z - UPPER * np.sin(upper), r - UPPER * np.cos(upper))
    lift = upper - np.pi / 2
    elbow = fore - lift
    return np.array([turn, lift, elbow, -(lift + elbow), yaw - turn])


class PickPlace(gymnasium.Env):
    """Observation: `image` [S, S, 3] uint8 and `state` [10] float32. Action [7] in [−1, 1].

    The state: position of the grasp (3), its orientation as a quaternion (4), both fingers (2), whether the gripper is
    open (1). The gripper opens if the last action is above 0.5, closes below −0.5, and otherwise stays as it is.
    Reward 1 and termination when the task object rests in the bowl, else 0; no time limit.
    An episode depends only on `reset(seed=…)` and the actions.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(
        self,
        image_size: int = 48,
        target: str | None = None,
        distractor: str | None = None,
        render_mode: str | None = None,
    ):
        for name, things in ((target, TARGETS), (distractor, DISTRACTORS)):
            if name is not None and name not in things:
                raise InputError(f"there is no object '{name}'; choose one of {', '.join(things)}")
        self.render_mode, self.image_size, self._chosen = render_mode, image_size, (target, distractor)
        box = spaces.Box
        self.observation_space = spaces.Dict(
            {
                "image": box(0, 255, (image_size, image_size, 3), np.uint8),
                "state": box(-1.0, 1.0, (10,), np.float32),
            }
        )
        self.action_space = box(-1.0, 1.0, (7,), np.float32)
        self._model, self._data = model(), mujoco.MjData(model())
        self._grasp = self._model.site("grasp").id
        self.target = self.distractor = ""
        self._open = True
        self._yaw = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Put the arm over the table; draw one object of each kind (unless they are fixed) and all positions."""
        super().reset(seed=seed)
        random = self.np_random
        drawn = [list(things)[random.integers(len(things))] for things in (TARGETS, DISTRACTORS)]
        self.target, self.distractor = (mine or other for mine, other in zip(self._chosen, drawn, strict=True))
        mujoco.mj_resetData(self._model, self._data)
        while True:
            bowl, *places = random.uniform(BOWL_PLACES[0], BOWL_PLACES[1]), *random.uniform(TABLE[0], TABLE[1], (2, 2))
            from_bowl = np.linalg.norm(np.array(places) - bowl, axis=1)
            if np.linalg.norm(places[0] - places[1]) > APART and from_bowl.min() > FROM_BOWL:
                break
        self._data.mocap_pos[0, :2] = bowl
        for name, place in zip((self.target, self.distractor), places, strict=True):
            self.put(name, [*place, 0.032], random.uniform(-np.pi, np.pi))
        self._place = np.array(places[0])  # of the task object
        self._open, self._yaw = True, 0.0
        angles = joint_angles(np.array([0.0, 0.22, 0.17]), 0.0)
        self._data.qpos[:7] = self._data.ctrl[:] = [*angles, OPEN, OPEN]
        mujoco.mj_step(self._model, self._data, nstep=40)
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Move, turn and perhaps open or close for 0.1 s (0.2 s when the gripper changes)."""
        action = np.clip(action, -1.0, 1.0)
        goal = np.clip(self.grasp() + MOVE * action[:3], *REACH)
        self._yaw = float(np.clip(self._yaw + TURN * action[5], -1.6, 1.6))
        was_open, self._open = self._open, bool(action[6] > 0.5 or (self._open and action[6] >= -0.5))
        self._data.ctrl[:] = [*joint_angles(goal, self._yaw), *[OPEN if self._open else CLOSED] * 2]
        mujoco.mj_step(self._model, self._data, nstep=SUBSTEPS * (1 if self._open == was_open else 2))
        success = self.solved()
        return self._observe(), float(success), success, False, {"success": success}

    def ending(self, episode: Episode) -> tuple[str, float]:
        """How the episode that has just been stepped ended, and the share of the object's way to the bowl."""
        if np.linalg.norm(self.place(self.distractor)[:2] - self.bowl) < BOWL:
            return "the wrong object is in the bowl", 0.0
        thing = self.place(self.target)
        left = np.linalg.norm(thing[:2] - self.bowl) / np.linalg.norm(self._place - self.bowl)
        how = (
            "the object was moved, not into the bowl"
            if np.linalg.norm(thing[:2] - self._place) > 0.02
            else "the object was not moved"
        )
        return how, float(np.clip(1.0 - left, 0.0, 1.0))

    def render(self) -> np.ndarray:
        """[480, 480, 3] uint8 image from the same camera."""
        return camera().image(self._data, 480)

    # -- for scripts and tests -----------------------------------------------------------------------------------------

    def grasp(self) -> np.ndarray:
        """[3] the point where the fingers meet."""
        return self._data.site_xpos[self._grasp].copy()

    def place(self, name: str) -> np.ndarray:
        """[3] centre of an object."""
        return self._data.joint(name).qpos[:3].copy()

    @property
    def bowl(self) -> np.ndarray:
        """[2] centre of the bowl."""
        return self._data.mocap_pos[0, :2].copy()

    @property
    def is_open(self) -> bool:
        """Whether the gripper's last command was to open."""
        return self._open

    def put(self, name: str, position: Any, yaw: float = 0.0) -> None:
        """Place an object, at rest and upright."""
        joint = self._data.joint(name)
        joint.qpos[:] = [*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        joint.qvel[:] = 0.0

    def solved(self) -> bool:
        """The task object's centre is within the bowl, between floor and rim, and no closed gripper is about it."""
        thing = self.place(self.target)
        inside = np.linalg.norm(thing[:2] - self.bowl) < 0.05 and 0.006 < thing[2] < 0.05
        return bool(inside and (self._open or np.linalg.norm(thing - self.grasp()) > 0.06))

    def _observe(self) -> dict[str, np.ndarray]:
        turned = np.zeros(4)
        mujoco.mju_mat2Quat(turned, self._data.site_xmat[self._grasp])
        state = np.concatenate([self.grasp(), turned, self._data.qpos[5:7], [float(self._open)]], dtype=np.float32)
        return {"image": camera().image(self._data, self.image_size), "state": state}


def make(
    image_size: int = 48, target: str | None = None, distractor: str | None = None, render_mode: str | None = None
) -> PickPlace:
    """The environment.

    Args:
        image_size: side of the image in pixels, at most 480.
        target: the task object, one of TARGETS; None: drawn at every reset.
        distractor: the other object, one of DISTRACTORS; None: drawn at every reset.
        render_mode: `rgb_array` or None.

    Raises:
        InputError: for an unknown object, or if no GL library can render.
    """
    env = PickPlace(image_size, target, distractor, render_mode)
    env.spec = SPEC
    return env
