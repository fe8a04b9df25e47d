"""Adroit demonstrations from planning: model-predictive path integral control (MPPI) on the simulator itself.

After Williams et al. 2017 (*Information Theoretic MPC for Model-Based Reinforcement Learning*): many noisy copies of
the current plan are simulated, the new plan is their average weighted by exp(−cost), its first actions are executed.
Costs are dense and use the full state, unlike the task's reward. A plan is a line through a few knots: planning every
action separately succeeds as often and faster, but with jerks that no network learns from 25 demonstrations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mujoco
import numpy as np
from mujoco import rollout

from calql.paper.envs.adroit import BALL_DISTANCE, DOOR_OPEN, PEN_COSINE, PEN_DISTANCE, Adroit

FINGER_TIPS = ("S_fftip", "S_mftip", "S_rftip", "S_lftip", "S_thtip")
"""Sites at the ends of the four fingers and the thumb."""


@dataclasses.dataclass(frozen=True)
class MPPI:
    """Options of the search. Between the knots of a plan, actions are interpolated."""

    samples: int = 48
    """Plans that are simulated per search; one of them without noise."""
    knots: int = 6
    """Knots per plan, in addition to the one at its start, the action that was executed last."""
    spacing: int = 8
    """Steps between knots."""
    every: int = 4
    """Steps that are executed between searches."""
    noise: float = 0.35
    """Standard deviation of the noise on knots, whose entries are within [−1, 1]."""
    noise_at_once: float = 0.0
    """Share of the noise at the start of the plan: 0 for smooth motions, 1 if every step counts."""
    temperature: float = 0.2
    """Temperature of the weights, in standard deviations of the costs; smaller is greedier."""

    @property
    def horizon(self) -> int:
        """Steps in a plan."""
        return self.knots * self.spacing


class States:
    """Input of the costs: `samples` simulations of `horizon` steps each."""

    def __init__(self, model: mujoco.MjModel, states: np.ndarray, sensors: np.ndarray):
        self._model, self._sensors = model, sensors
        self.qpos = states[..., 1 : 1 + model.nq]
        """[samples, horizon, nq] joint positions; the first entry of a state is the time."""

    def point(self, name: str) -> np.ndarray:
        """[samples, horizon, 3] position in metres of a site or body that the planner tracks."""
        start = int(self._model.sensor(name).adr[0])
        return self._sensors[..., start : start + 3]


def pen_cost(states: States) -> np.ndarray:
    """Position, direction, and not dropping the pen: it lies at 0.25 m, and is lost below 0.2 m."""
    pen, target = (states.point(f"{name}_top") - states.point(f"{name}_bottom") for name in ("object", "target"))
    cosine = np.sum(pen * target, -1) / (np.linalg.norm(pen, axis=-1) * np.linalg.norm(target, axis=-1))
    position = states.point("Object")
    distance = np.linalg.norm(position - states.point("eps_ball"), axis=-1)
    solved = (distance < PEN_DISTANCE) & (cosine > PEN_COSINE)
    return 20 * distance + 6 * (1 - cosine) + 40 * np.maximum(0, 0.2 - position[..., 2]) - 2 * solved


def door_cost(states: States) -> np.ndarray:
    """Palm to the handle and latch turned (1.8 rad) until the door moves, then the hinge; joints near their zero."""
    hinge, latch = states.qpos[..., 28], states.qpos[..., 29]
    distance = np.linalg.norm(states.point("S_grasp") - states.point("S_handle"), axis=-1)
    reach = 2 * distance * (hinge < 0.9) + np.abs(latch - 1.8) * (hinge < 0.1)
    pull = 8 * np.maximum(0, DOOR_OPEN + 0.05 - hinge) - 4 * (hinge > DOOR_OPEN)
    return reach + pull + 2e-4 * np.sum(states.qpos[..., :28] ** 2, -1)


def relocate_cost(states: States) -> np.ndarray:
    """Palm to the ball, then the finger tips (the thumb most), then the ball up and to the target."""
    ball = states.point("Object")
    palm, target, thumb = (
        np.linalg.norm(states.point(name) - ball, axis=-1) for name in ("S_grasp", "target", "S_thtip")
    )
    tips = np.mean([np.linalg.norm(states.point(name) - ball, axis=-1) for name in FINGER_TIPS], axis=0)
    near = palm < 0.15
    grasp = 8 * palm + np.where(near, 6 * tips + 3 * thumb, 1.5)
    lift = 18 * np.minimum(ball[..., 2], 0.1) * (palm < 0.1)
    return grasp + 10 * target - 4 * (target < BALL_DISTANCE) - lift


@dataclasses.dataclass(frozen=True)
class Problem:
    """The planning problem of one of the hand's tasks."""

    cost: Callable[[States], np.ndarray]
    """[samples, horizon] cost of states; the mean along a plan counts, plus half of the last one."""
    sites: tuple[str, ...]
    """Sites of the model that the cost uses."""
    bodies: tuple[str, ...] = ()
    """Bodies of the model that the cost uses."""
    mppi: MPPI = MPPI()
    """Options of the search."""


PROBLEMS = {
    "pen": Problem(
        cost=pen_cost,
        sites=("object_top", "object_bottom", "target_top", "target_bottom", "eps_ball"),
        bodies=("Object",),
        mppi=MPPI(knots=8, spacing=3, every=1, noise=0.4, noise_at_once=1.0),
    ),
    "door": Problem(cost=door_cost, sites=("S_grasp", "S_handle"), mppi=MPPI(noise=0.5)),
    "relocate": Problem(
        cost=relocate_cost,
        sites=("S_grasp", "target", *FINGER_TIPS),
        bodies=("Object",),
        mppi=MPPI(knots=8, spacing=3, every=2, noise_at_once=1.0),
    ),
}
"""The hand's tasks; costs and numbers were found by trial."""


class Planner:
    """Plans for one episode of `env`, which has been reset; depends only on `rng` and on the states."""

    def __init__(self, env: Adroit, rng: np.random.Generator, mppi: MPPI | None = None):
        self._problem = PROBLEMS[env.hand]
        self._mppi = mppi or self._problem.mppi
        self._rng = rng
        self._simulation = env.simulation
        self._model = _tracking_model(env, self._problem)
        self._data = mujoco.MjData(self._model)
        self._rollout = rollout.Rollout(nthread=0)  # in this thread
        self._next: list[np.ndarray] = []
        self.plan = np.zeros((self._mppi.knots + 1, self._model.nu))
        """[knots + 1, A] the plan from the current step on, right after a search."""
        self.cost = np.inf
        """Lowest cost among the plans of the last search."""

    def act(self) -> np.ndarray:
        """[A] float32 action for the state that the environment is in; searches at regular intervals."""
        if not self._next:
            self.search()
            steps = np.arange(1, self._mppi.every + 1)
            self._next = list(self._at(steps) @ self.plan)
            self.plan = self._at(self._mppi.every + self._mppi.spacing * np.arange(len(self.plan))) @ self.plan
        return self._next.pop(0).astype(np.float32)

    def search(self) -> None:
        """Improve the plan once."""
        mppi = self._mppi
        noise = mppi.noise * self._rng.standard_normal((mppi.samples, *self.plan.shape))
        noise[:, 0] *= mppi.noise_at_once
        noise[0] = 0.0
        plans = np.clip(self.plan + noise, -1.0, 1.0)
        costs = self._costs(self._at(np.arange(1, mppi.horizon + 1)) @ plans)
        self.cost = costs.min()
        weights = np.exp((self.cost - costs) / (mppi.temperature * (costs.std() + 1e-6)))
        self.plan = np.einsum("n,nka->ka", weights / weights.sum(), plans)

    def _at(self, steps: np.ndarray) -> np.ndarray:
        """[steps, knots + 1] weights of the knots in the actions of those steps; the last knot holds for ever."""
        place = np.minimum(steps / self._mppi.spacing, self._mppi.knots)[:, None]
        return np.maximum(0.0, 1.0 - np.abs(place - np.arange(self._mppi.knots + 1)))

    def _costs(self, plans: np.ndarray) -> np.ndarray:
        """[samples] costs of plans [samples, horizon, A]."""
        simulation, data = self._simulation, self._data
        data.qpos[:], data.qvel[:] = simulation.data.qpos, simulation.data.qvel
        everything = mujoco.mjtState.mjSTATE_FULLPHYSICS
        state = np.empty(mujoco.mj_stateSize(self._model, everything))
        mujoco.mj_getState(self._model, data, state, everything)
        skip = simulation.frame_skip
        controls = np.repeat(simulation.act_mean + plans * simulation.act_rng, skip, axis=1)
        states, sensors = self._rollout.rollout(self._model, data, state[None], controls)
        costs = self._problem.cost(States(self._model, states[:, skip - 1 :: skip], sensors[:, skip - 1 :: skip]))
        costs = costs + 0.005 * np.sum(plans**2, -1)
        return costs.mean(1) + 0.5 * costs[:, -1]


def _tracking_model(env: Adroit, problem: Problem) -> mujoco.MjModel:
    """The environment's model as it was reset, with a sensor for every point that the cost uses."""
    theirs = env.simulation.model
    spec = mujoco.MjSpec.from_file(env.simulation.fullpath)
    tracked = [(name, mujoco.mjtObj.mjOBJ_SITE) for name in problem.sites]
    tracked += [(name, mujoco.mjtObj.mjOBJ_BODY) for name in problem.bodies]
    for name, kind in tracked:
        spec.add_sensor(name=name, type=mujoco.mjtSensor.mjSENS_FRAMEPOS, objtype=kind, objname=name)
    model = spec.compile()
    for field in ("actuator_gainprm", "actuator_biasprm", "body_pos", "body_quat", "site_pos"):
        getattr(model, field)[:] = getattr(theirs, field)
    return model
