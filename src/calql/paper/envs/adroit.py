"""A 24-joint hand that turns a pen, opens a door or carries a ball: the binary Adroit tasks.

Physics, observations, starts and the test of success are Gymnasium-Robotics' (`envs/adroit_hand`; Rajeswaran et al.
2018), whose success rules and actuator gains equal those of the paper's environments (`nakamotoo/mj_envs`). The reward
is the paper's: success − 1 at every step. A step is 5 physics steps of 2 ms.

| hand       | observation | action | success                                                                  |
|------------|-------------|--------|--------------------------------------------------------------------------|
| `pen`      | 45          | 24     | pen within 0.075 m of its place and along the target (cosine above 0.95) |
| `door`     | 39          | 28     | door hinge at 1.35 rad or more                                           |
| `relocate` | 39          | 30     | ball within 0.1 m of the target                                          |
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from calql.envs.headless import headless_gl
from calql.tasks import nearest
from calql.types import Episode, InputError

with contextlib.redirect_stderr(io.StringIO()):  # hides a notice about other environments of the package
    from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv
    from gymnasium_robotics.envs.adroit_hand.adroit_pen import AdroitHandPenEnv
    from gymnasium_robotics.envs.adroit_hand.adroit_relocate import AdroitHandRelocateEnv

HANDS = {"pen": AdroitHandPenEnv, "door": AdroitHandDoorEnv, "relocate": AdroitHandRelocateEnv}
"""Gymnasium-Robotics' class per hand."""
DOOR_OPEN = 1.35
"""Minimum hinge angle of an open door in rad."""
PEN_DISTANCE, PEN_COSINE = 0.075, 0.95
"""The pen is in place below this distance, in metres, and above this cosine to the target."""
BALL_DISTANCE = 0.1
"""The ball is in place below this distance to the target, in metres."""


class Adroit(gymnasium.Env):
    """Observation [45 or 39] float32, action [24, 28 or 30] in [−1, 1]; see the table of the module.

    Reward 0 if a step ends in success, else −1; episodes never terminate. An episode is a function of
    only `reset(seed=…)` and the actions.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 100}  # noqa: RUF012 (Gymnasium's attribute)

    def __init__(self, hand: str, render_mode: str | None = None):
        self.hand, self.render_mode = hand, render_mode
        self.simulation = HANDS[hand](reward_type="sparse", render_mode=render_mode)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, self.simulation.observation_space.shape)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, self.simulation.action_space.shape)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Put the hand at rest; place the door, or ball and target, or the pen's target at random."""
        super().reset(seed=seed)
        self.simulation.np_random = self.np_random
        observation, _ = self.simulation.reset()
        return observation.astype(np.float32), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move for 0.01 s towards joint targets; the action is clipped to [−1, 1]."""
        observation, _, _, _, info = self.simulation.step(action)
        success = bool(info["success"])
        return observation.astype(np.float32), float(success) - 1.0, False, False, {"success": success}

    def ending(self, episode: Episode) -> tuple[str, float]:
        """How an episode without success ended, and how far it came: see `_pen_ended` and the functions after it."""
        how, progress = _ENDING[self.hand](np.asarray(episode.observations, np.float64))
        return how, float(np.clip(progress, 0.0, 1.0))

    def render(self) -> np.ndarray | None:
        """[480, 480, 3] uint8 image."""
        return self.simulation.render()

    def close(self) -> None:
        """Free the renderer."""
        self.simulation.close()


def make(hand: str = "door", render_mode: str | None = None) -> Adroit:
    """The environment of "pen", "door" or "relocate". `render_mode`: None, "rgb_array" or "human".

    Raises InputError for another name.
    """
    if hand not in HANDS:
        raise nearest(hand, HANDS, "hand")
    if render_mode is not None:
        headless_gl()
    env = Adroit(hand, render_mode)
    # Lets Minari record and recover the environment; it is not registered, and the horizon belongs to the task.
    name = f"calql/AdroitHand{hand.capitalize()}Binary-v0"
    env.spec = EnvSpec(id=name, entry_point="calql.paper.envs.adroit:make", kwargs={"hand": hand})
    return env


def _pen(observations: np.ndarray) -> np.ndarray:
    along, target, offset = observations[..., 33:36], observations[..., 36:39], observations[..., 39:42]
    return (np.linalg.norm(offset, axis=-1) < PEN_DISTANCE) & (np.sum(along * target, axis=-1) > PEN_COSINE)


def _door(observations: np.ndarray) -> np.ndarray:
    return observations[..., 28] >= DOOR_OPEN


def _relocate(observations: np.ndarray) -> np.ndarray:
    return np.linalg.norm(observations[..., 36:39], axis=-1) < BALL_DISTANCE


_SUCCESS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"pen": _pen, "door": _door, "relocate": _relocate}


def _pen_ended(observations: np.ndarray) -> tuple[str, float]:
    """Progress: the share of the angle to the target by which the pen was turned, at its best while in place."""
    along, target, offset = observations[..., 33:36], observations[..., 36:39], observations[..., 39:42]
    angle = np.arccos(np.clip(np.sum(along * target, axis=-1), -1.0, 1.0))
    held = np.linalg.norm(offset, axis=-1) < 2 * PEN_DISTANCE
    progress = 1.0 - angle[held].min(initial=angle[0]) / max(angle[0], 1e-6)
    if not held[-1]:
        return "the pen was dropped", progress
    return "the pen was not turned far enough", progress


def _door_ended(observations: np.ndarray) -> tuple[str, float]:
    """Progress: the largest angle of the door over that of an open one."""
    widest = observations[:, 28].max()
    if widest < 0.1:
        turned = observations[:, 27].max() - observations[0, 27] > 0.5
        return "the latch was turned, the door not opened" if turned else "the latch was not turned", widest / DOOR_OPEN
    return "the door was opened a little", widest / DOOR_OPEN


def _relocate_ended(observations: np.ndarray) -> tuple[str, float]:
    """Progress: the share of the ball's distance to the target that was overcome."""
    away = np.linalg.norm(observations[:, 36:39], axis=-1)
    lifted = observations[:, 38].max() - observations[0, 38] > 0.03
    how = "the ball was not lifted"
    if lifted:
        how = (
            "the ball was lifted, and not held"
            if observations[-1, 38] < observations[0, 38] + 0.03
            else "the ball was carried elsewhere"
        )
    return how, 1.0 - away.min() / max(away[0], 1e-6)


_ENDING: dict[str, Callable[[np.ndarray], tuple[str, float]]] = {
    "pen": _pen_ended,
    "door": _door_ended,
    "relocate": _relocate_ended,
}


def success_of(hand: str, observations: np.ndarray) -> np.ndarray:
    """[...] bool from observations [..., 45 or 39]: `info["success"]` of the step that led to each observation.

    Raises InputError for an unknown hand or another number of dimensions.
    """
    if hand not in HANDS:
        raise nearest(hand, HANDS, "hand")
    expected = 45 if hand == "pen" else 39
    if np.shape(observations)[-1:] != (expected,):
        raise InputError(
            f"observations of shape {np.shape(observations)} are not the {hand} task's, whose last axis has "
            f"{expected} entries; give the recording of that task"
        )
    return _SUCCESS[hand](np.asarray(observations, np.float64))


def relabel(episode: Episode, hand: str) -> Episode:
    """The episode with binary rewards (success − 1) and successes, both computed from its observations.

    For recordings of the same tasks with dense rewards (D4RL's `*-human-v1`, Minari's `D4RL/*/human-v2`, …), which
    never end at success; terminations are left as recorded. Raises InputError as `success_of`.
    """
    successes = success_of(hand, np.asarray(episode.observations)[1:])
    return episode._replace(rewards=successes.astype(np.float32) - 1.0, successes=successes)
