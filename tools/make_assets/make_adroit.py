"""Remakes the assets of a task of the hand: 25 planned demonstrations, a network cloned from them, and a better one.

python tools/make_assets/make_adroit.py HAND [--seed 0] [--attempts 50] [--practice N] [--improve N]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from cloning import train_clone
from planning import Planner
from ppo import PPO, improve

from calql.paper.demonstrators.adroit import (
    DEMONSTRATIONS,
    Demonstration,
    Recipe,
    asset,
    attempt,
    demonstrate,
    demonstrations,
    environment,
    shipped,
)
from calql.paper.demonstrators.clone import Clone
from calql.types import Episode

STEPS_AFTER_SUCCESS = 5
"""A demonstration continues for this many steps, so that a success that comes a step later elsewhere still counts."""
BLUR, BLURRED_COPIES = 1.0, 19
"""Noise on the inputs of cloning, in standard deviations of each, and the number of noisy copies."""
PRACTICE, PRACTISED = {"pen": 0, "door": 2, "relocate": 0}, 100
"""Rounds in which a clone is cloned again, and the number of its own successes that each adds to the demonstrations."""
PRACTICE_ATTEMPTS = 6_000
"""Maximum number of attempts per round; after them the round uses the successes so far."""
NOISE = {"pen": 0.2, "door": 0.1, "relocate": 0.1}
"""Noise with which the improvement of a clone begins, where most of its successes survive it."""
PLANNING_STEPS = {"pen": 100, "door": 200, "relocate": 200}
"""Steps after which the planner gives up: the paper's horizons."""


def plan(hand: str, seed: int, index: int) -> Demonstration | None:
    """The planner's attempt number `index`, which depends only on its arguments; None if it fails."""
    env, rng = environment(hand), np.random.default_rng([seed, index])
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
    """Replace the demonstrations that ship with the library."""
    np.savez_compressed(
        asset(hand, "demonstrations.npz"),
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
    """A small network that imitates the demonstrations and other successes in and around each state.

    Inputs get noise: otherwise a clone of 25 demonstrations leaves them and does not return. `options`: see
    `cloning.train_clone`.
    """
    episodes = [*(demonstrate(Recipe(hand), seed, index) for index in range(DEMONSTRATIONS)), *successes]
    states = np.concatenate([episode.observations[:-1] for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    noise = np.random.default_rng(seed).standard_normal((BLURRED_COPIES, *states.shape), np.float32)
    inputs = np.concatenate([states[None], states + BLUR * states.std(0) * noise]).reshape(-1, states.shape[1])
    return train_clone(
        inputs, np.tile(actions, (BLURRED_COPIES + 1, 1)), hidden=hidden, steps=steps, seed=seed, **options
    )


def practise(hand: str, clone: Clone, seed: int, count: int = PRACTISED) -> tuple[list[Episode], int]:
    """The first `count` successes of a clone with the noise of the data, and the number of attempts."""
    recipe, successes = Recipe(hand, horizon=PLANNING_STEPS[hand]), []
    for index in range(PRACTICE_ATTEMPTS):
        episode = attempt(recipe, clone, seed, index)
        if episode.successes[-1]:
            successes.append(episode)
        if len(successes) == count:
            break
    return successes, index + 1


def main(
    hand: Annotated[Literal["pen", "door", "relocate"], tyro.conf.Positional],
    seed: int = 0,
    attempts: int = 50,
    practice: int | None = None,
    improvement: Annotated[int, tyro.conf.arg(name="improve")] = 0,
) -> None:
    """Remake the hand's assets: the first 25 successes of the planner within `attempts`, their clone, and what
    reinforcement learning makes of it.

    Args:
        hand: the hand.
        seed: seed of all random numbers.
        attempts: attempts of the planner; 0 keeps the demonstrations.
        practice: rounds in which the clone is cloned again with its own successes; by default as in `PRACTICE`. With 0
            attempts and 0 rounds, the clone is kept, too.
        improvement: iterations of reinforcement learning (`ppo`), after each of which the policy is saved; 0 keeps the
            policy that ships.
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
    if attempts or practice != 0:
        clone_again(hand, seed, PRACTICE[hand] if practice is None else practice)
    options = PPO(noise=NOISE[hand])
    better = improve(hand, shipped(hand), improvement, PLANNING_STEPS[hand], seed, options)
    for number, (policy, share) in enumerate(better, 1):
        policy.save(asset(hand, "policy.safetensors"))
        print(f"iteration {number}/{improvement}: {share:.0%} of the episodes succeed", flush=True)


def clone_again(hand: str, seed: int, practice: int) -> None:
    """Replace the clone that ships with the library."""
    clone = fit_clone(hand, seed)
    for number in range(1, practice + 1):
        successes, tried = practise(hand, clone, seed + number)
        print(f"round {number} of practice: {len(successes)} successes in {tried} attempts", flush=True)
        clone = fit_clone(hand, seed, successes)
    clone.save(asset(hand, "clone.safetensors"))
    shipped.cache_clear()


if __name__ == "__main__":
    tyro.cli(main)
