"""Your own update rule without a base class: a linear policy, fitted to the data's actions by gradient descent.

calql train --method examples.linear_bc:METHOD --set learning_rate=0.05 --out runs/linear-bc
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from calql import Method


class LinearState(NamedTuple):
    """Everything that is learned: weights [S, A] and biases [A] of a policy of flat observations [S]."""

    weights: jax.Array
    biases: jax.Array


@dataclasses.dataclass(frozen=True)
class LinearBC:
    """Least squares of the data's actions; the fields are the hyper-parameters, and options of a run."""

    discount: float = 0.99
    """γ of the returns that are reported."""
    learning_rate: float = 0.1
    """Step size of the gradient descent."""
    noise: float = 0.1
    """Standard deviation of the noise on actions that explore."""

    context: ClassVar[int] = 0

    def init(self, key, spec):
        """Zero weights."""
        return LinearState(jnp.zeros((len(spec.observation), spec.action_dim)), jnp.zeros(spec.action_dim))

    def loss(self, state, batch):
        """Mean squared error of the actions."""
        return jnp.square(self.act(state, batch.observations) - batch.actions).mean()

    def update(self, state, batch, key):
        """One step of gradient descent; what is returned beside the state becomes a column of train.csv."""
        loss, gradient = jax.value_and_grad(self.loss)(state, batch)
        return jax.tree.map(lambda x, g: x - self.learning_rate * g, state, gradient), {"actor_loss": loss}

    def act(self, state, observations, key=None):
        """Actions [B, A] in [−1, 1] at observations [B, S]; with noise where a key is given."""
        actions = jnp.tanh(observations @ state.weights + state.biases[None])
        noise = 0.0 if key is None else self.noise * jax.random.normal(key, actions.shape)
        return jnp.clip(actions + noise, -1.0, 1.0)


METHOD = Method("linear-bc", "Linear BC", offline=LinearBC, online=LinearBC, summary="a linear policy that clones")
