"""Five environments with known Q-functions; each exposes another kind of broken learner.

After Andy Jones, *Debugging RL, Without the Agonizing Pain* (2021), for continuous actions. Observations and actions
have one dimension. Each adds one thing that can be wrong:

| name          | observation     | steps | reward          | what fails if the answer is wrong                     |
|---------------|-----------------|-------|-----------------|-------------------------------------------------------|
| `constant`    | 0               | 1     | 1               | the value loss, its optimiser, the mask at the end    |
| `observation` | −1 or 1         | 1     | s               | the way observations reach the critic                 |
| `discount`    | 0, then 1       | 2     | 0, then 1       | bootstrapping and discounting                         |
| `action`      | 0               | 1     | −(a − 0.5)²     | the policy loss, the way actions reach the critic     |
| `both`        | −1 or 1         | 1     | −(a − 0.5 s)²   | the pairing of states and actions in a batch          |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
import numpy as np

from calql.envs.rollout import Step, roll
from calql.types import Episode


@dataclasses.dataclass(frozen=True)
class Probe:
    """One environment and its answers; the functions take numbers or arrays that broadcast."""

    starts: tuple[float, ...]
    """First observations, equally likely; each further step adds 1."""
    length: int
    """Steps until termination."""
    reward: Callable[[Any, Any], Any]
    """r(s, a)."""
    q: Callable[[Any, Any, float], Any]
    """Q*(s, a, γ). If actions have no effect, also the Q of every other policy."""
    best_action: Callable[[Any], Any] | None = None
    """argmax_a Q*(s, a); None if all actions are equal."""


PROBES: dict[str, Probe] = {
    "constant": Probe((0.0,), 1, lambda s, a: 1.0, lambda s, a, g: 1.0),
    "observation": Probe((-1.0, 1.0), 1, lambda s, a: s, lambda s, a, g: s),
    "discount": Probe((0.0,), 2, lambda s, a: s, lambda s, a, g: g ** (1 - s)),
    "action": Probe((0.0,), 1, lambda s, a: -((a - 0.5) ** 2), lambda s, a, g: -((a - 0.5) ** 2), lambda s: 0.5),
    "both": Probe(
        (-1.0, 1.0), 1, lambda s, a: -((a - 0.5 * s) ** 2), lambda s, a, g: -((a - 0.5 * s) ** 2), lambda s: 0.5 * s
    ),
}


class ProbeEnv(gymnasium.Env):
    """The environment of a row of `PROBES`: observation [1] float32, action [1] in [−1, 1].

    The observation after the last step repeats the previous one, which exposes a learner that ignores `terminated`.
    """

    def __init__(self, name: str):
        self.probe = PROBES[name]
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Draw the first observation."""
        super().reset(seed=seed)
        self._steps, self._observation = 0, float(self.np_random.choice(self.probe.starts))
        return np.array([self._observation], np.float32), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step; `info["success"]` is true at the end of every episode."""
        reward = float(self.probe.reward(self._observation, float(action[0])))
        self._steps += 1
        terminated = self._steps == self.probe.length
        self._observation += not terminated
        return np.array([self._observation], np.float32), reward, terminated, False, {"success": terminated}


def probe_dataset(
    name: str, episodes: int, seed: int = 0, behaviour: Literal["uniform", "expert"] = "uniform"
) -> list[Episode]:
    """Episodes of a probe with uniform actions, or with optimal ones (0 if all are equal)."""
    rng, env, best = np.random.default_rng(seed), ProbeEnv(name), PROBES[name].best_action
    env.reset(seed=seed)  # seeds once; each later reset draws the next first observation

    def act(observation: np.ndarray, _: Step | None) -> np.ndarray:
        action = rng.uniform(-1.0, 1.0, 1)
        if behaviour == "expert":
            action = np.zeros(1) if best is None else best(observation) * np.ones(1)
        return action

    data = []
    for _ in range(episodes):
        data.append(roll(env, env.reset()[0], act, env.probe.length))
    return data
