"""Behaviour cloning by regression: trains the networks (`calql.paper.demonstrators.clone`) that ship with calql."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from calql.networks.mlp import MLP
from calql.paper.demonstrators.clone import Clone

CHUNK = 1_000
"""Gradient steps per compiled call."""


def train_clone(
    inputs: np.ndarray,
    actions: np.ndarray,
    hidden: Sequence[int] = (64, 64),
    steps: int = 20_000,
    seed: int = 0,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    progress: Callable[[int, int, float], None] | None = None,
) -> Clone:
    """Minimise the mean squared error of the actions with Adam and a cosine decay of the learning rate to 0.

    `inputs` [N, D] and `actions` [N, A] in [−1, 1] are sampled uniformly with replacement. The result depends only on
    the arguments (on one machine). `progress(done, steps, loss)` is called about every thousand steps.
    """
    mean = inputs.mean(0, dtype=np.float64).astype(np.float32)
    scale = inputs.std(0, dtype=np.float64).astype(np.float32) + 1e-3  # constant inputs stay finite
    x, y = jnp.asarray((inputs - mean) / scale, jnp.float32), jnp.asarray(actions, jnp.float32)
    network = MLP(hidden, actions.shape[1], output_gain=1.0)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def loss_of(parameters, rows):
        return jnp.mean(jnp.square(jnp.tanh(network.apply(parameters, x[rows])) - y[rows]))

    def update(state, key):
        parameters, momenta = state
        loss, gradient = jax.value_and_grad(loss_of)(parameters, jax.random.randint(key, (batch_size,), 0, len(x)))
        change, momenta = optimizer.update(gradient, momenta)
        return (optax.apply_updates(parameters, change), momenta), loss

    key, init_key = jax.random.split(jax.random.key(seed))
    parameters = network.init(init_key, x[:1])
    state = parameters, optimizer.init(parameters)
    keys = jax.random.split(key, steps)
    run = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys))
    for done in range(0, steps, CHUNK):
        state, losses = run(state, keys[done : done + CHUNK])
        if progress is not None:
            progress(min(done + CHUNK, steps), steps, float(losses.mean()))
    layers = jax.tree.map(np.asarray, state[0]["params"])
    names = [*(f"Dense_{i}" for i in range(len(hidden))), "output"]
    return Clone(
        mean, scale, tuple(layers[name]["kernel"] for name in names), tuple(layers[name]["bias"] for name in names)
    )
