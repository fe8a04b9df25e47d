"""A small batch, small networks that are not nearly zero, and noise that does not depend on keys."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference as ref

from calql.types import Spec, Transition

B, STATE, A = 5, 3, 2
POLICY = dict(actor_hidden=(8,), output_gain=1.0)
SMALL = POLICY | dict(critic_hidden=(8,))
NOISE = np.array([0.3, -1.2, 0.9, -0.1, 1.7, -0.6, 0.5, -2.0, 1.1, 0.05])
"""Standard normal draw number j of a state, the same in every dimension."""
UNIFORM = np.array([0.7, -0.9, 0.2, -0.4, 0.95, -0.15, 0.45, -0.65, 0.05, -0.99])
"""Random action number j of a state, likewise."""


def batch(size=B, seed=0):
    rng = np.random.default_rng(seed)
    values = Transition(
        observations=rng.normal(size=(size, STATE)),
        actions=rng.uniform(-1, 1, (size, A)),
        rewards=rng.normal(size=size),
        next_observations=rng.normal(size=(size, STATE)),
        masks=(np.arange(size) % 3 != 1),
        returns=rng.normal(size=size),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values)


@cache
def initial(algorithm, seed):
    return jax.jit(lambda key: algorithm.init(key, Spec(np.zeros(STATE, np.float32), A)))(jax.random.key(seed))


def state_of(algorithm, seed=0):
    """A state whose target critics differ from the critics, with α = exp(−0.7), where it has such."""
    state = initial(algorithm, seed)
    changed = {}
    if "target_critic" in state._fields:
        changed["target_critic"] = initial(algorithm, seed + 1).critic
    if getattr(state, "log_alpha", None) is not None:
        changed["log_alpha"] = jnp.float32(-0.7)
    return state._replace(**changed)


def _along_samples(table, shape):
    """Draws [B, N, A] or [B, A] (one a state) whose value depends on the number of the sample only."""
    column = table[: shape[1], None] if len(shape) == 3 else table[:1]
    return np.broadcast_to(column, shape).astype(np.float32)


def normal(key, shape=(), dtype=float):
    """Instead of `jax.random.normal`."""
    return jnp.asarray(_along_samples(NOISE, shape))


def uniform(key, shape=(), dtype=float, minval=0.0, maxval=1.0):
    """Instead of `jax.random.uniform`."""
    return jnp.asarray(minval + (maxval - minval) * (_along_samples(UNIFORM, shape) + 1) / 2)


def traced(function, *arguments):
    """function(*arguments), compiled as one program, traced now (so that patched draws are seen)."""
    return jax.jit(lambda *values: function(*values))(*arguments)


@cache
def _networks(algorithm):
    return jax.jit(lambda *values: algorithm.pi(*values)), jax.jit(lambda *values: algorithm.q_values(*values))


def numpy_draws(algorithm, state, observations, count):
    """The `count` actions [B, N, A] and log densities [B, N] that a policy has under `fixed_noise`."""
    mean, log_std = (np.asarray(x)[:, None] for x in _networks(algorithm)[0](state.actor, observations))
    return ref.draw(mean, log_std, NOISE[None, :count, None])


def q_of(algorithm, critic, observations, actions):
    return np.asarray(_networks(algorithm)[1](critic, observations, jnp.asarray(actions, jnp.float32)), np.float64)
