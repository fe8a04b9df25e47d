"""Weak data of the hand's tasks: a few good demonstrations, and the successes of a shaky clone of them.

A planner (`planning`) solved each task 25 times; those actions ship with the library, and so does a network cloned from
them, which for the door has practised: it was cloned again from the demonstrations and its own successes.
`python -m calql.paper.demonstrators.adroit HAND` remakes both. The paper's data have the same two parts
("offpolicy_hand_data" of AWAC): 25 human demonstrations, and trajectories of a policy cloned from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from calql.paper.demonstrators import run
from calql.paper.demonstrators.clone import Clone, fit
from calql.paper.demonstrators.planning import Planner
from calql.paper.envs import adroit
from calql.tasks import nearest
from calql.types import Episode, InputError

ASSETS = Path(__file__).parent / "assets"
DEMONSTRATIONS = 25
"""As many as there are human demonstrations in the paper's data."""
STEPS_AFTER_SUCCESS = 5
"""A demonstration goes on for as long, so that a success that comes a step later elsewhere is still one."""
BLUR, BLURRED_COPIES = 1.0, 19
"""Noise on the inputs of cloning, in standard deviations of each, and how many noisy copies there are."""
PRACTICE, PRACTISED = {"pen": 0, "door": 2, "relocate": 0}, 100
"""Rounds in which a clone is cloned again, and how many of its own successes each adds to the demonstrations."""
PRACTICE_ATTEMPTS = 6_000
"""Most attempts of one round; after them it makes do with the successes that there are."""
PLANNING_STEPS = {"pen": 100, "door": 200, "relocate": 200}
"""Steps after which the planner gives up: the paper's horizons."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the data are made: demonstrations first, then the clone, whose episodes differ in noise and in pauses.

    An episode ends at its first success, where the task stops too. The official release cuts after the last success
    within the horizon and makes every success a termination, so that of what follows the first no value is bootstrapped
    either: the two differ by the transitions after it. It drops failures, as `keep_failures=False` does.
    """

    hand: str
    """`pen`, `door` or `relocate`."""
    transitions: int = 10_000
    """Collect whole episodes until there are at least this many transitions."""
    horizon: int = 200
    """Steps after which an episode is cut, and has failed."""
    demonstrations: int = DEMONSTRATIONS
    """The first attempts repeat as many of the planner's demonstrations, quick and without noise."""
    noise: tuple[float, float] = (0.0, 0.1)
    """[low, high] standard deviation of the noise on the clone's actions, uniform over episodes."""
    noise_correlation: float = 0.8
    """Correlation of the noise between neighbouring steps."""
    pausing: tuple[float, float] = (0.0, 0.0)
    """[low, high] share of the time for which the clone keeps its last action, uniform over episodes."""
    pause_steps: float = 5.0
    """Mean length of a pause, in steps."""
    keep_failures: bool = False
    """Keep the clone's episodes without success, too."""

    def __post_init__(self):
        if self.hand not in adroit.HANDS:
            raise nearest(self.hand, adroit.HANDS, "hand")
        if not 0 <= self.demonstrations <= DEMONSTRATIONS:
            raise InputError(f"demonstrations is {self.demonstrations}; there are {DEMONSTRATIONS}")
        if not 0 <= self.noise[0] <= self.noise[1] or not 0 <= self.noise_correlation < 1:
            raise InputError("noise must be two numbers with 0 <= low <= high, noise_correlation within [0, 1)")
        if not 0 <= self.pausing[0] <= self.pausing[1] < 1 or self.pause_steps < 1:
            raise InputError("pausing must be two numbers with 0 <= low <= high < 1, pause_steps at least 1")
        if self.horizon < 1:
            raise InputError(f"horizon is {self.horizon}; give at least one step")


def demonstrate(recipe: Recipe, seed: int, index: int) -> Episode | None:
    """Attempt number `index`, from reset to success or to the horizon; None where it fails and failures are dropped."""
    if index < recipe.demonstrations:
        shown = demonstrations(recipe.hand)[index]
        horizon = min(recipe.horizon, len(shown.actions))
        episode = _episode(recipe.hand, shown.seed, lambda step, _: shown.actions[step], horizon)
    else:
        episode = _attempt(recipe, _clone(recipe.hand), seed, index)
    return episode if recipe.keep_failures or episode.successes[-1] else None


build = partial(run.build, Recipe, demonstrate)
"""`build(task, seed, transitions, workers, progress, **knobs)`: see `run.build`."""


def _attempt(recipe: Recipe, clone: Clone, seed: int, index: int) -> Episode:
    """The clone's attempt number `index`, with noise and pauses."""
    rng = np.random.default_rng([seed, index])
    return _episode(recipe.hand, int(rng.integers(2**31)), _hesitant(recipe, clone, rng), recipe.horizon)


def _episode(hand: str, seed: int, act: Callable[[int, np.ndarray], np.ndarray], horizon: int) -> Episode:
    """What `act(step, observation)` does, from `reset(seed=seed)` to the first success or to the horizon."""
    env = _env(hand)
    observations, actions, success = [env.reset(seed=seed)[0]], [], False
    while not success and len(actions) < horizon:
        actions.append(np.clip(act(len(actions), observations[-1]), -1.0, 1.0).astype(np.float32))
        observation, *_, info = env.step(actions[-1])
        observations.append(observation)
        success = info["success"]
    successes = np.zeros(len(actions), bool)
    successes[-1] = success
    return Episode(
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=successes.astype(np.float32) - 1.0,
        terminations=successes.copy(),
        truncated=not success,
        successes=successes,
    )


def _hesitant(recipe: Recipe, clone: Clone, rng: np.random.Generator) -> Callable[[int, np.ndarray], np.ndarray]:
    """The clone with one episode's noise and pauses."""
    last, noise, pausing = 0.0, 0.0, False
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
def _env(hand: str) -> adroit.Adroit:
    """One environment a process."""
    return adroit.make(hand)


# -- assets ------------------------------------------------------------------------------------------------------------


class Demonstration(NamedTuple):
    """What was done once, from `reset(seed=seed)` on."""

    seed: int
    """Seed of the reset."""
    actions: np.ndarray
    """[T, A] float32, exact in half precision."""


@cache
def demonstrations(hand: str) -> tuple[Demonstration, ...]:
    """The planner's demonstrations that ship with the library."""
    with np.load(_path(hand, "demonstrations.npz"), allow_pickle=False) as file:
        parts = np.split(file["actions"].astype(np.float32), np.cumsum(file["lengths"])[:-1])
        return tuple(Demonstration(int(seed), part) for seed, part in zip(file["seeds"], parts, strict=True))


def plan(hand: str, seed: int, index: int) -> Demonstration | None:
    """The planner's attempt number `index`, a function of its arguments alone; None where it fails."""
    env, rng = _env(hand), np.random.default_rng([seed, index])
    reset_seed = int(rng.integers(2**31))
    env.reset(seed=reset_seed)
    planner, actions = Planner(env, rng), []
    succeeded, steps_left = False, PLANNING_STEPS[hand]
    while steps_left:
        actions.append(planner.act().astype(np.float16).astype(np.float32))  # as it will be stored
        *_, info = env.step(actions[-1])
        steps_left -= 1
        if info["success"] and not succeeded:
            succeeded, steps_left = True, STEPS_AFTER_SUCCESS
    return Demonstration(reset_seed, np.stack(actions)) if succeeded else None


def save_demonstrations(hand: str, shown: Sequence[Demonstration]) -> None:
    """Replace those that ship with the library."""
    np.savez_compressed(
        _path(hand, "demonstrations.npz"),
        seeds=np.array([demonstration.seed for demonstration in shown]),
        lengths=np.array([len(demonstration.actions) for demonstration in shown]),
        actions=np.concatenate([demonstration.actions for demonstration in shown]).astype(np.float16),
    )
    demonstrations.cache_clear()


def fit_clone(
    hand: str,
    seed: int = 0,
    successes: Sequence[Episode] = (),
    hidden: Sequence[int] = (128, 128),
    steps: int = 5_000,
    **options: Any,
) -> Clone:
    """A small network that does in each state, and around it, what the demonstrations and other successes did there.

    Inputs are blurred: without that a clone of 25 demonstrations leaves them and does not find back. `options`: see
    `clone.fit`.
    """
    episodes = [*(demonstrate(Recipe(hand), seed, index) for index in range(DEMONSTRATIONS)), *successes]
    states = np.concatenate([episode.observations[:-1] for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    noise = np.random.default_rng(seed).standard_normal((BLURRED_COPIES, *states.shape), np.float32)
    inputs = np.concatenate([states[None], states + BLUR * states.std(0) * noise]).reshape(-1, states.shape[1])
    return fit(inputs, np.tile(actions, (BLURRED_COPIES + 1, 1)), hidden=hidden, steps=steps, seed=seed, **options)


def practise(hand: str, clone: Clone, seed: int, count: int = PRACTISED) -> tuple[list[Episode], int]:
    """The first `count` successes of a clone with the noise of the data, and how many attempts they took."""
    recipe, successes = Recipe(hand, horizon=PLANNING_STEPS[hand]), []
    for index in range(PRACTICE_ATTEMPTS):
        episode = _attempt(recipe, clone, seed, index)
        if episode.successes[-1]:
            successes.append(episode)
        if len(successes) == count:
            break
    return successes, index + 1


@cache
def _clone(hand: str) -> Clone:
    """The clone that ships with the library."""
    return Clone.load(_path(hand, "clone.safetensors"))


def _path(hand: str, name: str) -> Path:
    return ASSETS / f"{hand}_{name}"


def main(
    hand: Annotated[Literal["pen", "door", "relocate"], tyro.conf.Positional],
    seed: int = 0,
    attempts: int = 50,
    practice: int | None = None,
) -> None:
    """Remake the hand's assets: the first 25 successes of the planner in so many attempts, and their clone.

    Args:
        hand: whose assets.
        seed: of everything.
        attempts: to plan; 0 keeps the demonstrations and only clones them again.
        practice: rounds in which the clone is cloned again with its own successes; by default those of `PRACTICE`.
    """
    made: list[Demonstration] = []
    for index in range(attempts):
        demonstration = plan(hand, seed, index)
        if demonstration is not None:
            made.append(demonstration)
            if len(made) == DEMONSTRATIONS:
                save_demonstrations(hand, made)
        steps = len(demonstration.actions) if demonstration else None
        print(f"attempt {index + 1}/{attempts}: {steps or 'no'} steps; {len(made)} successes", flush=True)
    if attempts and len(made) < DEMONSTRATIONS:
        raise SystemExit(f"{DEMONSTRATIONS} successes are needed; give more attempts")
    clone = fit_clone(hand, seed)
    for number in range(1, (PRACTICE[hand] if practice is None else practice) + 1):
        successes, tried = practise(hand, clone, seed + number)
        print(f"round {number} of practice: {len(successes)} successes in {tried} attempts", flush=True)
        clone = fit_clone(hand, seed, successes)
    clone.save(_path(hand, "clone.safetensors"))
    _clone.cache_clear()


if __name__ == "__main__":
    tyro.cli(main)
