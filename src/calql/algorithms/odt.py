"""Online decision transformer: actions as the continuation of a sequence that is told which return it shall have.

Zheng et al. 2022 (arXiv 2202.05607), written from the paper; settings of antmaze after nakamotoo/online-dt. With
R_t the sum of rewards from step t to the end of the episode, and windows of K steps:

    L(θ) = − mean log π(a_t | s_≤t, R_≤t, a_<t) − λ H(π)          λ ≥ 0 such that H(π) ≥ H̄ (dual descent)

There is no critic. Whole trajectories are replayed; online each new one takes the place of the oldest, with the return
it really had, and actions are asked for with a return that is higher than any that was seen.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from calql.algorithms.bounds import Below1, Count, Finite, NonNegative, Positive
from calql.algorithms.steps import Metrics, descend
from calql.networks import DecisionTransformer, apply, gaussian_tanh_log_prob, sample_actions
from calql.types import InputError, PyTree, Spec, Window, is_image


class ODTState(NamedTuple):
    """What the transformer learns."""

    actor: PyTree
    """Parameters θ."""
    log_temperature: jax.Array
    """log λ."""
    actor_optimizer: Any
    temperature_optimizer: Any
    mean: PyTree
    """Mean of the data's observations: states are normalised."""
    std: PyTree
    """Standard deviation of the data's observations."""
    best_return: jax.Array
    """Highest return of the data: what is asked for in evaluations."""


class Memory(NamedTuple):
    """The last steps of the episodes that are being acted in, newest last."""

    observations: PyTree
    """[B, C, …]."""
    actions: jax.Array
    """[B, C, A]; the last one is not chosen yet."""
    to_go: jax.Array
    """[B, C] return that is still asked for."""
    timesteps: jax.Array
    """[B, C] int32."""


@dataclasses.dataclass(frozen=True)
class ODT:
    """Hyper-parameters (those of the paper) with pure methods over an `ODTState`."""

    discount: Below1 = 0.99
    """γ of the returns that are reported; the transformer's are not discounted."""
    actor_lr: Positive = 1e-4
    """LAMB learning rate, reached after the warm-up."""
    odt_temperature_lr: Positive = 1e-4
    """Adam learning rate of the temperature λ."""
    odt_width: Count = 512
    """Size of a token (1,024 in the antmaze runs)."""
    odt_layers: Count = 4
    """Transformer blocks."""
    odt_heads: Count = 4
    """Attention heads of a block."""
    odt_dropout: Below1 = 0.1
    """Share of units dropped in training."""
    odt_context: Count = 20
    """Steps K of a training window."""
    odt_acting_context: Count = 5
    """Steps of the episode that the policy sees when it acts."""
    odt_warmup: Count = 10_000
    """Gradient steps over which the learning rate rises."""
    odt_weight_decay: NonNegative = 5e-4
    """Decoupled weight decay of LAMB."""
    odt_gradient_clip: Positive = 0.25
    """Largest norm of a gradient."""
    odt_return: Finite | None = None
    """Return R that is asked for in evaluations, on mapped rewards; None: the highest of the data. Online it is
    R + |R|, which nobody has reached yet (1 and 2 in antmaze)."""
    odt_max_timestep: Count = 1_000
    """Steps of an episode that have an embedding of their own."""
    target_entropy: Finite | None = None
    """H̄; None: −|A|."""

    @property
    def context(self) -> int:
        """Steps of a training window."""
        return self.odt_context

    def model(self, action_dim: int) -> DecisionTransformer:
        """The transformer."""
        return DecisionTransformer(
            self.odt_width, self.odt_layers, self.odt_heads, self.odt_dropout, self.odt_max_timestep, action_dim
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """LAMB behind a clip of the norm, with a linear warm-up."""
        rate = optax.linear_schedule(self.actor_lr / self.odt_warmup, self.actor_lr, self.odt_warmup)
        return optax.chain(
            optax.clip_by_global_norm(self.odt_gradient_clip), optax.lamb(rate, weight_decay=self.odt_weight_decay)
        )

    def init(self, key: jax.Array, spec: Spec) -> ODTState:
        """Fresh parameters and optimiser states. Raises InputError where observations hold images."""
        if any(map(is_image, map(np.asarray, jax.tree.leaves(spec.observation)))):
            raise InputError("ODT does not take images (nor did it in the paper); choose another method")
        memory = self.blank(spec, 1, self.odt_context)
        inputs = memory.observations, memory.actions, memory.to_go, memory.timesteps, memory.timesteps == 0
        actor = self.model(spec.action_dim).init(key, *inputs)["params"]
        log_temperature = jnp.log(jnp.float32(0.1))
        known = spec.best_return is not None
        return ODTState(
            actor,
            log_temperature,
            self.optimizer.init(actor),
            optax.adam(self.odt_temperature_lr).init(log_temperature),
            jax.tree.map(jnp.float32, spec.mean if known else jax.tree.map(np.zeros_like, spec.observation)),
            jax.tree.map(jnp.float32, spec.std if known else jax.tree.map(np.ones_like, spec.observation)),
            jnp.float32(spec.best_return if known else 0.0),
        )

    def pi(
        self, actor: PyTree, state: ODTState, window: Window, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log-std [B, K, A] of the Gaussians before the tanh; with dropout where a key is given."""
        action_dim = actor["mean"]["bias"].shape[-1]
        normal = jax.tree.map(
            lambda x, mean, std: (x - mean[None, None]) / std[None, None], window.observations, state.mean, state.std
        )
        window = window._replace(observations=normal)
        rngs = {} if key is None else {"dropout": key}
        return apply(self.model(action_dim), actor, *window, rngs=rngs)

    # -- losses --------------------------------------------------------------------------------------------------------

    def actor_loss(
        self, actor: PyTree, state: ODTState, window: Window, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """−log-likelihood − λ · entropy, means over the valid steps. Also returns both."""
        dropout_key, entropy_key = jax.random.split(key)
        mean, log_std = self.pi(actor, state, window, dropout_key)
        share = window.valid / window.valid.sum()
        pre_tanh = jnp.arctanh(jnp.clip(window.actions, -0.99999, 0.99999))
        log_pi = (share * gaussian_tanh_log_prob(mean, log_std, pre_tanh)).sum()
        # A squashed Gaussian's entropy has no closed form: one sample.
        shape = (-1, mean.shape[-1])
        _, sampled = sample_actions(entropy_key, mean.reshape(shape), log_std.reshape(shape))
        entropy = -(share * sampled.reshape(share.shape)).sum()
        temperature = jax.lax.stop_gradient(jnp.exp(state.log_temperature))
        return -log_pi - temperature * entropy, (log_pi, entropy)

    def temperature_loss(self, log_temperature: jax.Array, entropy: jax.Array, action_dim: int) -> jax.Array:
        """λ (H − H̄): raises λ while the entropy is below its target."""
        target = -action_dim if self.target_entropy is None else self.target_entropy
        return jnp.exp(log_temperature) * (entropy - target)

    def update(self, state: ODTState, batch: Window, key: jax.Array) -> tuple[ODTState, Metrics]:
        """One step of the transformer, one of the temperature."""
        (loss, (log_pi, entropy)), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(
            state.actor, state, batch, key
        )
        updates, optimizer = self.optimizer.update(gradient, state.actor_optimizer, state.actor)
        slope = jax.grad(self.temperature_loss)(state.log_temperature, entropy, batch.actions.shape[-1])
        state = state._replace(actor=optax.apply_updates(state.actor, updates), actor_optimizer=optimizer)
        state = descend(state, "log_temperature", self.odt_temperature_lr, slope)
        temperature = jnp.exp(state.log_temperature)
        return state, {"actor_loss": loss, "log_pi": log_pi, "entropy": entropy, "temperature": temperature}

    # -- acting --------------------------------------------------------------------------------------------------------

    def blank(self, spec: Spec, size: int, length: int | None = None) -> Memory:
        """A memory of `size` episodes that have not begun."""
        length = length or self.odt_acting_context
        zeros = jax.tree.map(lambda x: jnp.zeros((size, length, *jnp.shape(x)), jnp.float32), spec.observation)
        blank = jnp.zeros((size, length))
        return Memory(zeros, jnp.zeros((size, length, spec.action_dim)), blank, blank.astype(jnp.int32))

    def act_in_context(
        self,
        state: ODTState,
        memory: Memory,
        observations: PyTree,
        steps: jax.Array,
        rewards: jax.Array,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Memory]:
        """Actions [B, A] at [B, …], and what is remembered; a sample and the online return where a key is given.

        `steps` [B] counts from 0 in every episode; `rewards` [B] is what the step before paid (mapped).
        """
        fresh = steps == 0
        asked = state.best_return if self.odt_return is None else jnp.float32(self.odt_return)
        asked = asked if key is None else asked + jnp.abs(asked)

        def push(past: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.concatenate([past[:, 1:], new[:, None]], axis=1)

        to_go = jnp.where(fresh, asked, memory.to_go[:, -1] - rewards)
        memory = Memory(
            jax.tree.map(push, memory.observations, observations),
            push(memory.actions, jnp.zeros_like(memory.actions[:, 0])),
            push(memory.to_go, to_go),
            push(memory.timesteps, steps),
        )
        length = memory.to_go.shape[1]
        valid = jnp.arange(length)[None] >= length - 1 - steps[:, None]  # none of the episode before
        mean, log_std = (x[:, -1] for x in self.pi(state.actor, state, Window(*memory, valid)))
        actions = jnp.tanh(mean) if key is None else sample_actions(key, mean, log_std)[0]
        return actions, memory._replace(actions=memory.actions.at[:, -1].set(actions))
