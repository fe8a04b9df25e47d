"""How well actions can be predicted in episodes that were not learned from, and whether more episodes would help.

A small network (two layers of 128) is fitted to some of the episodes and tried on the others, for three divisions. The
error is the mean squared deviation of its actions, divided by that of the mean action: 0 = perfect, 1 = no better than
always the same action. Noise of the demonstrator is part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from calql.data.arrays import all_states
from calql.data.check.narrowness import features
from calql.types import Episode

STEPS, BLOCK, BATCH, WIDTH = 1_500, 150, 128, 128
DIVISIONS = 3
"""Divisions of the episodes whose errors are averaged."""
ROWS = 50_000
"""Episodes beyond about this many transitions are left out."""
HELD_OUT = 0.25
"""Share of the episodes that the clone is tried on."""
FEWEST = 8
"""Fewer episodes cannot be divided sensibly."""
GAIN = 0.1
"""If twice the episodes make the error smaller by this share, still more would help, too."""
HARDLY = 0.9
"""From this error on, actions hardly follow from observations."""


class Cloning(NamedTuple):
    """Errors of clones, as shares of the error of the mean action."""

    episodes: int
    """Number of episodes that the clone was fitted to."""
    held_out: int
    """Number of episodes that it was tried on."""
    error: float
    error_of_half: float
    """Error of a clone that was fitted to half of the episodes."""

    @property
    def helped(self) -> bool:
        """Whether the second half of the episodes made the clone better."""
        return self.error < (1.0 - GAIN) * self.error_of_half

    def text(self) -> str:
        """What was measured, and what follows."""
        measured = (
            f"a clone of {self.episodes} episodes misses {self.error:.0%} of the variance of the actions in "
            f"{self.held_out} others, a clone of half of them {self.error_of_half:.0%}"
        )
        if self.error >= HARDLY:
            return f"{measured}: actions hardly follow from observations (noise, or something that is not observed)"
        if self.helped:
            return f"{measured}: more episodes would help"
        return f"{measured}: more episodes of this kind would change little"


def cloning(episodes: Sequence[Episode], seed: int = 0) -> Cloning | None:
    """Fit and try the clones; the same data give the same result. None if there are fewer than 8 episodes, or if the
    actions never change."""
    rng = np.random.default_rng(seed)
    chosen = [episodes[i] for i in rng.permutation(len(episodes))]
    chosen = chosen[: int(np.searchsorted(np.cumsum([e.length for e in chosen]), ROWS)) + 1]
    states = features(all_states(chosen, slice(None, -1)))
    actions = np.clip(np.concatenate([e.actions for e in chosen]), -1.0, 1.0)
    owner = np.repeat(np.arange(len(chosen)), [e.length for e in chosen])
    if len(chosen) < FEWEST or actions.var(axis=0).max() < 1e-10:
        return None
    count = max(2, round(HELD_OUT * len(chosen)))
    learning = len(chosen) - count
    error_of = _clones(states.shape[1], actions.shape[1])
    whole, half = np.zeros(DIVISIONS), np.zeros(DIVISIONS)
    for i in range(DIVISIONS):
        place = rng.permutation(len(chosen))[owner]  # [N] of the row's episode; the last `count` places are held out
        for errors, share in ((whole, learning), (half, learning // 2)):
            errors[i] = error_of(states, actions, np.flatnonzero(place < share), place >= learning)
    return Cloning(learning, count, float(whole.mean()), float(half.mean()))


def _clones(inputs: int, outputs: int) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]:
    """(states [N, inputs], actions [N, outputs], rows that are learned, [N] bool rows that are tried) → the lowest
    error on the tried rows in the course of the fit, relative to that of the mean action. Compiled once."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))

    def predict(weights: list, x: jax.Array) -> jax.Array:
        for i, (kernel, bias) in enumerate(weights):
            x = x @ kernel + bias[None]
            x = jax.nn.gelu(x) if i + 1 < len(weights) else x
        return x

    def loss(weights: list, x: jax.Array, y: jax.Array) -> jax.Array:
        return ((predict(weights, x) - y) ** 2).mean()

    @jax.jit
    def block(weights: list, state: Any, x: Any, y: Any, rows: Any, count: Any, tried: Any, key: Any) -> tuple:
        def one(i: jax.Array, carry: tuple) -> tuple:
            weights, state = carry
            drawn = rows[jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, count)]
            updates, state = optimizer.update(jax.grad(loss)(weights, x[drawn], y[drawn]), state, weights)
            return optax.apply_updates(weights, updates), state

        weights, state = jax.lax.fori_loop(0, BLOCK, one, (weights, state))
        missed = ((predict(weights, x) - y) ** 2).mean(axis=1)
        return weights, state, (missed * tried).sum() / tried.sum()

    def error_of(states: np.ndarray, actions: np.ndarray, learned: np.ndarray, tried: np.ndarray) -> float:
        center, scale = states[learned].mean(axis=0), states[learned].std(axis=0)
        scale = np.where(scale > 1e-6 * np.maximum(1.0, abs(center)), scale, 1.0)
        x = jnp.asarray(np.clip((states - center) / scale, -10.0, 10.0), jnp.float32)
        rows = jnp.asarray(np.resize(learned, len(states)))  # of one length, for one program
        rng, sizes = np.random.default_rng(0), [inputs, WIDTH, WIDTH, outputs]
        weights = [
            (jnp.asarray(rng.normal(size=(m, n)) * np.sqrt(2.0 / m), jnp.float32), jnp.zeros(n))
            for m, n in pairwise(sizes)
        ]
        state, best = optimizer.init(weights), np.inf
        fixed = x, jnp.asarray(actions, jnp.float32), rows, jnp.int32(len(learned)), jnp.asarray(tried, jnp.float32)
        for number in range(STEPS // BLOCK):
            weights, state, missed = block(weights, state, *fixed, jax.random.key(number))
            best = min(best, float(missed))
        blind = ((actions[tried] - actions[learned].mean(axis=0)) ** 2).mean()
        return float(best / max(blind, 1e-12))

    return error_of
