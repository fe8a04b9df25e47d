"""Data of the Adroit tasks: a few good demonstrations, and the successes of a policy with noise.

A planner solved each task 25 times; these actions ship with the library, and so does a network cloned from them (for
the door, cloned again from them and its own successes) and, for pen and door, what reinforcement learning in the
simulator has made of that clone. All were made by `tools/make_assets/make_adroit.py`. The paper's data have the same
two parts ("offpolicy_hand_data" of AWAC): 25 human demonstrations, and trajectories of a policy cloned from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calql.envs.rollout import Step, ending_at_success, roll
from calql.paper.demonstrators import run
from calql.paper.demonstrators.clone import Clone
from calql.paper.envs import adroit
from calql.tasks import nearest
from calql.types import Episode, InputError

ASSETS = Path(__file__).parent / "assets"
DEMONSTRATIONS = 25
"""Number of human demonstrations in the paper's data."""
POLICIES = {"clone": "clone.safetensors", "improved": "policy.safetensors"}
"""Names of the networks that ship, and of their files."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of the data: demonstrations first, then episodes of a policy, which differ in noise and pauses.

    An episode ends at its first success, where the task stops too. The official release cuts after the last success
    within the horizon and makes every success a termination, so that no value is bootstrapped after the first success
    either: the two differ by the transitions after it. It drops failures, as `keep_failures=False` does.
    """

    hand: str
    """`pen`, `door` or `relocate`."""
    transitions: int = 10_000
    """Minimum number of transitions; the last episode is completed."""
    horizon: int = 200
    """Steps after which an episode is cut and counts as a failure."""
    demonstrations: int = DEMONSTRATIONS
    """Number of the planner's demonstrations that the first attempts repeat, without noise or pauses."""
    policy: str = "clone"
    """Whose attempts follow: the `clone`'s, or the `improved` policy's."""
    noise: tuple[float, float] = (0.0, 0.1)
    """[low, high] standard deviation of the noise on the policy's actions, uniform over episodes."""
    noise_correlation: float = 0.8
    """Correlation of the noise between consecutive steps."""
    pausing: tuple[float, float] = (0.0, 0.0)
    """[low, high] share of the steps at which the policy repeats its last action, uniform over episodes."""
    pause_steps: float = 5.0
    """Mean length of a pause in steps."""
    keep_failures: bool = False
    """Whether to keep the policy's episodes without success."""

    def __post_init__(self):
        if self.hand not in adroit.HANDS:
            raise nearest(self.hand, adroit.HANDS, "hand")
        if self.policy not in POLICIES:
            raise nearest(self.policy, POLICIES, "policy")
        if not asset(self.hand, POLICIES[self.policy]).exists():
            raise InputError(f"no {self.policy} policy ships for {self.hand}; choose another one")
        if not 0 <= self.demonstrations <= DEMONSTRATIONS:
            raise InputError(f"demonstrations is {self.demonstrations}; there are {DEMONSTRATIONS}")
        if not 0 <= self.noise[0] <= self.noise[1] or not 0 <= self.noise_correlation < 1:
            raise InputError("noise must be two numbers with 0 <= low <= high, noise_correlation within [0, 1)")
        if not 0 <= self.pausing[0] <= self.pausing[1] < 1 or self.pause_steps < 1:
            raise InputError("pausing must be two numbers with 0 <= low <= high < 1, pause_steps at least 1")
        if self.horizon < 1:
            raise InputError(f"horizon is {self.horizon}; it must be at least 1")


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode | None:
    """Attempt number `index`, from reset to success or to the horizon; None if it fails and failures are dropped."""
    if index < recipe.demonstrations:
        shown = demonstrations(recipe.hand)[index]
        horizon = min(recipe.horizon, len(shown.actions))
        episode = _episode(recipe.hand, shown.seed, lambda step, _: shown.actions[step], horizon)
    else:
        episode = attempt(recipe, shipped(recipe.hand, recipe.policy), seed, index)
    assert episode.successes is not None
    return episode if recipe.keep_failures or episode.successes[-1] else None


build = partial(run.build, Recipe, demonstrate)
"""`build(task, seed, transitions, workers, progress, **options)`: see `run.build`."""


def attempt(recipe: Recipe, clone: Clone, seed: int, index: int) -> Episode:
    """The clone's attempt number `index`, with noise and pauses."""
    rng = np.random.default_rng([seed, index])
    return _episode(recipe.hand, int(rng.integers(2**31)), _hesitant(recipe, clone, rng), recipe.horizon)


def _episode(hand: str, seed: int, act: Callable[[int, np.ndarray], np.ndarray], horizon: int) -> Episode:
    """An episode of `act(step, observation)`, from `reset(seed=seed)` to the first success or to the horizon."""
    env, steps = environment(hand), count()

    def next_action(observation: np.ndarray, _: Step | None) -> np.ndarray:
        return np.clip(act(next(steps), observation), -1.0, 1.0).astype(np.float32)

    observation, _ = env.reset(seed=seed)
    return ending_at_success(roll(env, observation, next_action, horizon, over=lambda step: bool(step.success)))


def _hesitant(recipe: Recipe, clone: Clone, rng: np.random.Generator) -> Callable[[int, np.ndarray], np.ndarray]:
    """The clone with one episode's noise and pauses."""
    last, noise, pausing = np.zeros(0), np.zeros(0), False
    scale, share = rng.uniform(*recipe.noise), rng.uniform(*recipe.pausing)
    memory = recipe.noise_correlation

    def act(step: int, observation: np.ndarray) -> np.ndarray:
        nonlocal last, noise, pausing
        leave = 1 / recipe.pause_steps
        enter = leave * share / (1 - share)
        pausing = rng.random() >= leave if pausing else rng.random() < enter
        if not pausing or step == 0:
            last = clone(observation)
        fresh = rng.standard_normal(last.shape)
        noise = fresh if step == 0 else memory * noise + np.sqrt(1 - memory**2) * fresh
        return last + scale * noise

    return act


@cache
def environment(hand: str) -> adroit.Adroit:
    """One environment per process."""
    return adroit.make(hand)


# -- assets ------------------------------------------------------------------------------------------------------------


class Demonstration(NamedTuple):
    """Actions of one demonstration, from `reset(seed=seed)` on."""

    seed: int
    """Seed of the reset."""
    actions: np.ndarray
    """[T, A] float32, exact in half precision."""


@cache
def demonstrations(hand: str) -> tuple[Demonstration, ...]:
    """The planner's demonstrations that ship with the library."""
    with np.load(asset(hand, "demonstrations.npz"), allow_pickle=False) as file:
        parts = np.split(file["actions"].astype(np.float32), np.cumsum(file["lengths"])[:-1])
        return tuple(Demonstration(int(seed), part) for seed, part in zip(file["seeds"], parts, strict=True))


@cache
def shipped(hand: str, policy: str = "clone") -> Clone:
    """A network that ships with the library: one of `POLICIES`."""
    return Clone.load(asset(hand, POLICIES[policy]))


def asset(hand: str, name: str) -> Path:
    """Path of an asset of the hand: `demonstrations.npz`, or a file of `POLICIES`."""
    return ASSETS / f"{hand}_{name}"
