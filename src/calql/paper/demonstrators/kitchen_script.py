"""Scripts of five kitchen subtasks by inverse kinematics.

A script is a generator of joint targets [9] (arm 7, fingers 2; rad, m), one per decision. It reads the simulator, not
the noisy observation. Positions are in metres in the world: x to the right, y into the kitchen, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np

from calql.paper.envs.kitchen import START, Kitchen

Targets = Iterator[np.ndarray]

X, Y, Z = range(3)
OPEN, CLOSED = 0.04, -0.02
"""Target positions of a finger in metres; below 0 it presses."""
REACH = 0.15
"""Maximum joint motion per decision in rad; a full action moves a joint by 0.16."""
LEVER = 0.25
"""Weight of one radian of rotation error, in metres of position error."""
MICROWAVE_HINGE = np.array([-1.1276, 0.4549])
"""x and y of the axis of the microwave's door."""
LIGHT, SLIDE, MICROWAVE, KNOB, KETTLE = 17, 19, 22, 11, slice(23, 26)
"""Indices of the objects' joints."""


def turn(axis: int, angle: float) -> np.ndarray:
    """[3, 3] rotation by an angle (rad) about an axis of the world."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
    return matrix


FORWARD = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Orientation of the gripper that points into the kitchen, fingers side by side."""


def by(right: float, ahead: float, up: float) -> np.ndarray:
    """[3] an offset in metres."""
    return np.array([right, ahead, up])


class Arm:
    """Moves the point between the fingers by damped least squares, away from the joints' limits."""

    def __init__(self, env: Kitchen, rng: np.random.Generator):
        self._model, self._data, self._rng = env.model, env.data, rng
        self._hand = self._id("end_effector")
        self._low, self._high = env.model.jnt_range[:7].T + np.array([[0.02], [-0.02]])
        self._integral = np.zeros(3)

    def _id(self, site: str) -> int:
        return mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, site)

    def site(self, name: str) -> np.ndarray:
        """[3] position of a mark on the model."""
        return self._data.site_xpos[self._id(name)].copy()

    def joint(self, index: int | slice) -> Any:
        """Position of a joint, or of several."""
        return self._data.qpos[index].copy()

    @property
    def hand(self) -> np.ndarray:
        """[3] position of the point between the fingers."""
        return self._data.site_xpos[self._hand].copy()

    def scatter(self, scale: float) -> np.ndarray:
        """[3] a random offset in metres, so that no two attempts are alike."""
        return self._rng.normal(0.0, scale, 3)

    def towards(
        self,
        position: np.ndarray,
        fingers: float,
        rotation: np.ndarray = FORWARD,
        lever: float = LEVER,
        fast: float = 0.12,
    ) -> np.ndarray:
        """Joint target [9] of one decision on the way to a pose, at most `fast` metres from here."""
        gap = position - self.hand
        near = np.linalg.norm(gap) < 0.08
        self._integral = np.clip(self._integral + 0.25 * gap, -0.06, 0.06) if near else 0.7 * self._integral
        gap = gap + self._integral
        gap *= min(1.0, fast / max(np.linalg.norm(gap), 1e-9))
        spin = rotation @ self._data.site_xmat[self._hand].reshape(3, 3).T
        twist = 0.5 * np.array([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]])
        error = np.concatenate([gap, lever * np.clip(twist, -0.5, 0.5)])
        joints = self._data.qpos[:7]
        motion = 1.6 * self._solve(error, joints, lever)
        arm = joints + motion * min(1.0, REACH / max(np.abs(motion).max(), 1e-9))
        now = self._data.qpos[7:9]
        return np.concatenate([arm, now + 1.5 * (fingers - now)])

    def _solve(self, error: np.ndarray, joints: np.ndarray, lever: float) -> np.ndarray:
        """[7] joint motion that removes the pose error [6]; joints that would leave their range are held."""
        jacobian = np.zeros((2, 3, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, jacobian[0], jacobian[1], self._hand)
        full = np.concatenate([jacobian[0], lever * jacobian[1]])[:, :7]
        free, motion = np.ones(7), np.zeros(7)
        for _ in range(3):
            part = full * free
            inverse = part.T @ np.linalg.inv(part @ part.T + 2e-3 * np.eye(6))
            home = 0.05 * (np.eye(7) - inverse @ part) @ (START[:7] - joints)  # in the null space of the pose
            motion = inverse @ error + home * free
            low = (joints + motion < self._low) & (motion < 0) & (joints < self._low + 0.03)
            high = (joints + motion > self._high) & (motion > 0) & (joints > self._high - 0.03)
            if not ((low | high) & (free > 0)).any():
                break
            free = free * ~(low | high)
        return motion

    def go(self, position: np.ndarray, fingers: float, within: float = 0.02, steps: int = 30, **pose) -> Targets:
        """Targets until the hand is `within` metres of a position, at most `steps` of them."""
        for _ in range(steps):
            yield self.towards(position, fingers, **pose)
            if np.linalg.norm(position - self.hand) < within:
                break


def microwave(arm: Arm) -> Targets:
    """Grip the bar, yawed past the door's normal so that a finger hooks behind it, and follow the door's arc."""
    bar, yaw = arm.site("microhandle_site") + arm.scatter(0.004), 0.905
    facing, forward = turn(Z, yaw) @ FORWARD, turn(Z, yaw)[:, Y]
    yield from arm.go(bar - 0.15 * forward, OPEN, 0.03, rotation=facing)
    yield from arm.go(bar - 0.07 * forward, OPEN, 0.02, 10, rotation=facing)
    yield from arm.go(bar - 0.015 * forward, OPEN, 0.012, 12, rotation=facing, fast=0.06)
    for _ in range(3):
        yield arm.towards(bar - 0.015 * forward, CLOSED, facing)
    hinge = np.append(MICROWAVE_HINGE, bar[Z])
    for _ in range(34):
        angle = arm.joint(MICROWAVE) - 0.22
        yield arm.towards(hinge + turn(Z, angle) @ (bar - hinge), CLOSED, turn(Z, 0.6 * angle) @ facing, fast=0.08)
        if arm.joint(MICROWAVE) < -0.68:
            break
    hand, back = arm.hand, turn(Z, 0.6 * arm.joint(MICROWAVE))
    for _ in range(3):
        yield arm.towards(hand, OPEN, back @ facing)
    yield from arm.go(hand - 0.14 * back @ forward + by(0.05, 0.0, 0.04), OPEN, 0.05, 10)


def kettle(arm: Arm) -> Targets:
    """Open fingers under the top bar, lift, carry forward, set down."""
    bar, offset, facing = arm.site("kettle_site"), arm.scatter(0.004), turn(X, 0.12) @ FORWARD
    under = bar - by(0.0, 0.0, 0.075)
    yield from arm.go(under + by(0.0, -0.20, 0.04), OPEN, 0.06, 22)
    under[X] += offset[X]
    yield from arm.go(under + by(0.0, -0.13, 0.0), OPEN, 0.025, 16, rotation=facing)
    yield from arm.go(under + by(0.0, 0.015, 0.0), OPEN, 0.02, 14, rotation=facing)
    for lift in (0.05, 0.05, 0.09, 0.09):
        yield arm.towards(under + by(0.0, 0.02, lift), OPEN, facing)
    for share in np.linspace(0.0, 1.0, 7).repeat(2):
        yield arm.towards(under + by(0.05 * share, 0.02 + 0.33 * share, 0.10), OPEN, facing)
        if arm.joint(KETTLE)[Y] > 0.66:
            break
    down = np.array([under[X] + 0.05, arm.hand[Y], under[Z]])
    for lift in (0.06, 0.06, 0.02, 0.02, -0.01, -0.01):
        yield arm.towards(down + by(0.0, 0.0, lift), OPEN)
    yield from arm.go(down + by(0.0, -0.20, 0.0), OPEN, 0.04, 10)


def light_switch(arm: Arm) -> Targets:
    """Push the lever to the left with the closed fingers."""
    lever = arm.site("light_site") + arm.scatter(0.003)
    yield from arm.go(lever + by(0.09, -0.15, 0.0), CLOSED, 0.03)
    yield from arm.go(lever + by(0.075, -0.02, 0.0), CLOSED, 0.02, 20)
    for right in np.linspace(0.04, -0.12, 7):
        yield arm.towards(lever + by(right, -0.015, 0.0), CLOSED)
    for _ in range(8):
        if arm.joint(LIGHT) < -0.6:
            break
        yield arm.towards(lever + by(-0.14, -0.01, 0.0), CLOSED)
    yield from arm.go(arm.hand + by(0.02, -0.14, 0.0), CLOSED, 0.05, 10)


def slide_cabinet(arm: Arm) -> Targets:
    """Push the handle to the right with the closed fingers."""
    handle = arm.site("slide_site") + arm.scatter(0.004) - by(0.0, 0.0, 0.05)
    yield from arm.go(handle + by(-0.10, -0.14, 0.0), CLOSED, 0.04)
    yield from arm.go(handle + by(-0.075, 0.0, 0.0), CLOSED, 0.025, 20)
    for right in np.linspace(-0.03, 0.34, 12):
        yield arm.towards(handle + by(right, 0.0, 0.0), CLOSED)
        if arm.joint(SLIDE) > 0.30:
            break
    yield from arm.go(arm.hand + by(-0.05, -0.12, 0.0), CLOSED, 0.05, 10)


def bottom_burner(arm: Arm) -> Targets:
    """Push the lower end of the knob's bar along its circle; wrist rolled, because fingers are stiff that way."""
    knob, rolled = arm.site("knob2_site") + arm.scatter(0.002), turn(Y, np.pi / 2) @ FORWARD
    for depth, within, steps, fast in ((-0.16, 0.02, 40, 0.12), (-0.10, 0.012, 14, 0.12), (-0.055, 0.01, 14, 0.05)):
        beside = knob + by(0.04, depth, -0.03)
        yield from arm.go(beside, CLOSED, within, steps, rotation=rolled, lever=0.4, fast=fast)
    for _ in range(24):
        ahead = turn(Y, 0.5 - arm.joint(KNOB))
        yield arm.towards(knob + ahead @ by(0.028, -0.055, -0.03), CLOSED, rolled, lever=0.3)
        if arm.joint(KNOB) < -0.80:
            break
    yield from arm.go(arm.hand + by(0.0, -0.14, 0.0), CLOSED, 0.05, 10)


SCRIPTS: dict[str, Callable[[Arm], Targets]] = {
    "microwave": microwave,
    "kettle": kettle,
    "bottom burner": bottom_burner,
    "light switch": light_switch,
    "slide cabinet": slide_cabinet,
}
"""Subtask → its script, from wherever the arm is to a place out of the way."""
