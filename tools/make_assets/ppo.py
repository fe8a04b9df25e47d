"""Improves a cloned policy of the hand by proximal policy optimisation (PPO; Schulman et al. 2017) in the simulator.

The tasks' own rewards tell nothing before a success, so every step pays how far the state is from success, and the
first success ends the episode. Only the policies that ship with calql are made with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from calql.networks.mlp import MLP, apply
from calql.paper.demonstrators.clone import Clone
from calql.paper.envs import adroit
from calql.paper.envs.adroit import DOOR_OPEN


def pen_distance(x: np.ndarray) -> np.ndarray:
    """1 − cosine to the target, and 4 per metre from the pen's place."""
    return 1.0 - np.sum(x[..., 33:36] * x[..., 36:39], -1) + 4.0 * np.linalg.norm(x[..., 39:42], axis=-1)


def door_distance(x: np.ndarray) -> np.ndarray:
    """The hinge to be opened, half as much for the latch (turned at 1.5 rad), and 2 per metre from palm to handle."""
    to_open, to_turn = 1.0 - np.clip(x[..., 28] / DOOR_OPEN, 0.0, 1.0), 1.0 - np.clip(x[..., 27] / 1.5, 0.0, 1.0)
    return to_open + 0.5 * to_turn + 2.0 * np.linalg.norm(x[..., 35:38], axis=-1)


def relocate_distance(x: np.ndarray) -> np.ndarray:
    """3 per metre from the palm to the ball, and from the ball to the target."""
    return 3.0 * (np.linalg.norm(x[..., 30:33], axis=-1) + np.linalg.norm(x[..., 36:39], axis=-1))


DISTANCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pen": pen_distance,
    "door": door_distance,
    "relocate": relocate_distance,
}
"""[..., D] observations → [...] how far they are from success, 0 or more."""
STEP, SUCCESS, LOST = -0.1, 5.0, -5.0
"""Rewards: a step's, per unit of distance; that of a success; and that of a state from which there is no way back."""
IS_LOST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pen": lambda x: np.linalg.norm(x[..., 39:42], axis=-1) > 0.2,  # metres from its place: it was dropped
}
"""[..., D] observations → [...] whether there is no way back; the episode is over. Other hands have no such state."""


@dataclasses.dataclass(frozen=True)
class PPO:
    """Options of the training. The policy is Gaussian around the network's action."""

    environments: int = 16
    """Environments side by side."""
    steps: int = 512
    """Steps per environment and iteration."""
    discount: float = 0.98
    trace: float = 0.95
    """λ of the generalised advantage estimate."""
    clip: float = 0.2
    """Largest change of a probability's ratio that is rewarded."""
    epochs: int = 8
    """Passes over an iteration's steps."""
    batch_size: int = 512
    learning_rate: float = 4e-4
    noise: float = 0.1
    """Standard deviation of the actions at the start; it is learned."""
    warm_up: int = 4
    """First iterations, in which only the critic learns."""


class Rollout(NamedTuple):
    """Steps [T, N] of N environments; `inputs` are standardised observations."""

    inputs: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray


def improve(
    hand: str,
    clone: Clone,
    iterations: int,
    horizon: int,
    seed: int = 0,
    options: PPO = PPO(),
) -> Iterator[tuple[Clone, float]]:
    """The clone after each iteration of PPO, and the share of the iteration's episodes that succeeded (with noise).

    They depend only on the arguments (on one machine).
    """
    learner, actors = Learner(clone, options), Actors(hand, horizon, options, np.random.default_rng(seed))
    key, state = jax.random.key(seed), learner.init(jax.random.key(seed))
    for iteration in range(iterations):
        key, acting, shuffling = jax.random.split(key, 3)
        rollout, share = actors.collect(learner, state.parameters, acting)
        state = learner.update(state, rollout, shuffling, jnp.asarray(iteration >= options.warm_up))
        yield learner.clone_of(state.parameters), share


class State(NamedTuple):
    """Parameters of actor, noise and critic, and the optimiser's state."""

    parameters: dict
    optimizer: optax.OptState


class Learner:
    """The networks, and their loss."""

    def __init__(self, clone: Clone, options: PPO):
        self.start, self.options = clone, options
        self.critic = MLP((256, 256), 1, output_gain=0.1)
        self.optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(options.learning_rate))

    def init(self, key: jax.Array) -> State:
        """The clone as the actor, and a new critic."""
        clone, dims = self.start, len(self.start.biases[-1])
        parameters = {
            "actor": [(jnp.asarray(w), jnp.asarray(b)) for w, b in zip(clone.weights, clone.biases, strict=True)],
            "log_std": jnp.full(dims, np.log(self.options.noise), jnp.float32),
            "critic": self.critic.init(key, jnp.zeros(len(clone.mean)))["params"],
        }
        return State(parameters, self.optimizer.init(parameters))

    def inputs(self, observations: np.ndarray) -> np.ndarray:
        """[..., D] standardised as the clone's, within ±10."""
        return np.clip((observations - self.start.mean) / self.start.scale, -10.0, 10.0).astype(np.float32)

    def clone_of(self, parameters: dict) -> Clone:
        """The actor as a clone."""
        weights, biases = zip(*jax.tree.map(np.asarray, parameters["actor"]), strict=True)
        return Clone(self.start.mean, self.start.scale, weights, biases)

    def value(self, parameters: dict, x: jax.Array) -> jax.Array:
        """[N] values of inputs [N, D]."""
        return apply(self.critic, parameters["critic"], x)[..., 0]

    def log_prob(self, parameters: dict, x: jax.Array, actions: jax.Array) -> jax.Array:
        """[N] log-density of actions [N, A] up to a constant."""
        z = (actions - action_of(parameters, x)) * jnp.exp(-parameters["log_std"])[None]
        return -0.5 * jnp.sum(jnp.square(z), -1) - jnp.sum(parameters["log_std"])

    @partial(jax.jit, static_argnums=0)
    def act(self, parameters: dict, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Actions [N, A], their log-densities [N] and values [N] for inputs [N, D]."""
        mean = action_of(parameters, x)
        actions = mean + jnp.exp(parameters["log_std"])[None] * jax.random.normal(key, mean.shape)
        return actions, self.log_prob(parameters, x, actions), self.value(parameters, x)

    @partial(jax.jit, static_argnums=0)
    def update(self, state: State, rollout: Rollout, key: jax.Array, actor_learns: jax.Array) -> State:
        """The state after all epochs over a rollout."""
        rows: Rollout = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), rollout)
        scaled = (rows.advantages - rows.advantages.mean()) / (rows.advantages.std() + 1e-6)
        rows, count = rows._replace(advantages=scaled), len(scaled)

        def loss(parameters: dict, batch: Rollout) -> jax.Array:
            ratio = jnp.exp(self.log_prob(parameters, batch.inputs, batch.actions) - batch.log_probs)
            clipped = jnp.clip(ratio, 1.0 - self.options.clip, 1.0 + self.options.clip)
            gain = jnp.minimum(ratio * batch.advantages, clipped * batch.advantages)
            error = jnp.square(self.value(parameters, batch.inputs) - batch.returns)
            return 0.5 * error.mean() - gain.mean() * actor_learns

        def step(state: State, chosen: jax.Array) -> tuple[State, None]:
            gradient = jax.grad(loss)(state.parameters, jax.tree.map(lambda x: x[chosen], rows))
            change, optimizer = self.optimizer.update(gradient, state.optimizer)
            return State(optax.apply_updates(state.parameters, change), optimizer), None

        order = [jax.random.permutation(k, count) for k in jax.random.split(key, self.options.epochs)]
        return jax.lax.scan(step, state, jnp.concatenate(order).reshape(-1, self.options.batch_size))[0]


def action_of(parameters: dict, x: jax.Array) -> jax.Array:
    """[N, A] the network's actions for inputs [N, D], as in `Clone`."""
    *hidden, (weight, bias) = parameters["actor"]
    for w, b in hidden:
        x = jnp.maximum(x @ w + b[None], 0.0)
    return jnp.tanh(x @ weight + bias[None])


class Actors:
    """Environments that go on from iteration to iteration."""

    def __init__(self, hand: str, horizon: int, options: PPO, rng: np.random.Generator):
        self.hand, self.horizon, self.options, self.rng = hand, horizon, options, rng
        self.envs = [adroit.make(hand) for _ in range(options.environments)]
        self.observations = np.stack([self._reset(env) for env in self.envs])
        self.age = np.zeros(options.environments, int)

    def _reset(self, env: adroit.Adroit) -> np.ndarray:
        return env.reset(seed=int(self.rng.integers(2**31)))[0]

    def collect(self, learner: Learner, parameters: dict, key: jax.Array) -> tuple[Rollout, float]:
        """One iteration's steps, and the share of its episodes that succeeded."""
        steps, count, gamma = self.options.steps, len(self.envs), self.options.discount
        inputs, actions, log_probs, values = [], [], [], []
        rewards, over, wins = np.zeros((steps, count), np.float32), np.zeros((steps, count), bool), 0
        for t, k in enumerate(jax.random.split(key, steps)):
            inputs.append(learner.inputs(self.observations))
            action, log_prob, value = map(np.asarray, learner.act(parameters, inputs[-1], k))
            actions.append(action)
            log_probs.append(log_prob)
            values.append(value)
            stepped = [env.step(np.clip(a, -1.0, 1.0)) for env, a in zip(self.envs, action, strict=True)]
            following, success = np.stack([s[0] for s in stepped]), np.array([s[4]["success"] for s in stepped])
            self.age, wins = self.age + 1, wins + success.sum()
            lost = IS_LOST[self.hand](following) if self.hand in IS_LOST else np.zeros(count, bool)
            cut = (self.age >= self.horizon) & ~success & ~lost
            rewards[t] = np.where(success, SUCCESS, STEP * DISTANCE[self.hand](following) + LOST * lost)
            if cut.any():  # the episode would have gone on
                rewards[t] += gamma * cut * np.asarray(learner.value(parameters, learner.inputs(following)))
            over[t] = success | lost | cut
            for i in np.flatnonzero(over[t]):
                following[i], self.age[i] = self._reset(self.envs[i]), 0
            self.observations = following
        values.append(np.asarray(learner.value(parameters, learner.inputs(self.observations))))
        gained = advantages(rewards, np.stack(values), over, gamma, self.options.trace)
        made = Rollout(*map(np.stack, (inputs, actions, log_probs)), gained, gained + np.stack(values[:-1]))
        return made, float(wins / max(over.sum(), 1))


def advantages(rewards: np.ndarray, values: np.ndarray, over: np.ndarray, discount: float, trace: float) -> np.ndarray:
    """[T, N] generalised advantage estimates (Schulman et al. 2016); rewards and ends are [T, N], values [T + 1, N].

    An episode that was cut has the value of its last state in its last reward.
    """
    made, later = np.zeros_like(rewards), np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        error = rewards[t] + discount * values[t + 1] * ~over[t] - values[t]
        made[t] = later = error + discount * trace * ~over[t] * later
    return made
