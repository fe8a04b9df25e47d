"""Online decision transformer: a sequence model that predicts actions, conditioned on a target return.

Zheng et al. 2022 (arXiv 2202.05607), implemented from the paper; settings of antmaze as in nakamotoo/online-dt. With
R_t the sum of rewards from step t to the end of the episode (return-to-go), and windows of K steps:

    L(θ) = − mean log π(a_t | s_≤t, R_≤t, a_<t) − λ H(π)          λ ≥ 0 such that H(π) ≥ H̄ (dual descent)

There is no critic. The replay buffer holds whole trajectories; online, each new trajectory replaces the oldest, with
the return that it achieved. Exploration conditions on a higher target return than evaluations do.
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
    """Everything that ODT learns, and the statistics of the data."""

    actor: PyTree
    """Parameters θ."""
    log_temperature: jax.Array
    """log λ, with λ the weight of the entropy."""
    actor_optimizer: Any
    temperature_optimizer: Any
    mean: PyTree
    """Mean of the data's observations, for normalisation."""
    std: PyTree
    """Standard deviation of the data's observations, for normalisation."""
    best_return: jax.Array
    """Highest return in the data, the default target return of evaluations."""


class Memory(NamedTuple):
    """The last C steps of B parallel episodes, the current step last."""

    observations: PyTree
    """[B, C, …]."""
    actions: jax.Array
    """[B, C, A]; zero for the current step until its action is chosen."""
    to_go: jax.Array
    """[B, C] target return less the rewards so far."""
    timesteps: jax.Array
    """[B, C] int32, step in the episode."""


@dataclasses.dataclass(frozen=True)
class ODT:
    """ODT: hyper-parameters (by default those of the paper), and pure methods over an `ODTState`."""

    discount: Below1 = 0.99
    """Discount factor γ of the reported Monte-Carlo returns; the returns-to-go of the transformer are undiscounted."""
    actor_lr: Positive = 1e-4
    """LAMB learning rate after the warm-up."""
    odt_temperature_lr: Positive = 1e-4
    """Adam learning rate of log λ, the weight of the entropy."""
    odt_width: Count = 512
    """Embedding size of a token (1,024 in the antmaze runs)."""
    odt_layers: Count = 4
    """Number of transformer blocks."""
    odt_heads: Count = 4
    """Attention heads per block."""
    odt_dropout: Below1 = 0.1
    """Dropout rate in training."""
    odt_context: Count = 20
    """Steps K per training window."""
    odt_acting_context: Count = 5
    """Number of latest steps that the policy sees when it acts."""
    odt_warmup: Count = 10_000
    """Gradient steps of the linear warm-up of the learning rate."""
    odt_weight_decay: NonNegative = 5e-4
    """Decoupled weight decay of LAMB."""
    odt_gradient_clip: Positive = 0.25
    """Maximum global norm of the gradient."""
    odt_return: Finite | None = None
    """Target return R of evaluations, on mapped rewards; None: the highest return in the data. Online collection uses
    R + |R| (1 and 2 in antmaze)."""
    odt_max_timestep: Count = 1_000
    """Number of episode steps with their own embedding; later steps share the last one."""
    target_entropy: Finite | None = None
    """H̄, lower bound of the policy's entropy; None: −|A|."""

    @property
    def context(self) -> int:
        """Steps K per training window."""
        return self.odt_context

    def model(self, action_dim: int) -> DecisionTransformer:
        """The transformer module."""
        return DecisionTransformer(
            self.odt_width, self.odt_layers, self.odt_heads, self.odt_dropout, self.odt_max_timestep, action_dim
        )

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """LAMB with linear warm-up, after clipping of the gradient's global norm."""
        rate = optax.linear_schedule(self.actor_lr / self.odt_warmup, self.actor_lr, self.odt_warmup)
        return optax.chain(
            optax.clip_by_global_norm(self.odt_gradient_clip), optax.lamb(rate, weight_decay=self.odt_weight_decay)
        )

    def init(self, key: jax.Array, spec: Spec) -> ODTState:
        """Initial parameters and optimiser states. Raises InputError if observations contain images."""
        if any(map(is_image, map(np.asarray, jax.tree.leaves(spec.observation)))):
            raise InputError("ODT does not take images (nor does it in the paper); choose another method")
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
        """Mean and log-std [B, K, A] of the policy before the tanh; with dropout if a key is given."""
        action_dim = actor["mean"]["bias"].shape[-1]
        normalised = jax.tree.map(
            lambda x, mean, std: (x - mean[None, None]) / std[None, None], window.observations, state.mean, state.std
        )
        window = window._replace(observations=normalised)
        rngs = {} if key is None else {"dropout": key}
        return apply(self.model(action_dim), actor, *window, rngs=rngs)

    # -- losses --------------------------------------------------------------------------------------------------------

    def actor_loss(
        self, actor: PyTree, state: ODTState, window: Window, key: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """−log-likelihood − λ · entropy, as means over the valid steps. Also returns log-likelihood and entropy."""
        dropout_key, entropy_key = jax.random.split(key)
        mean, log_std = self.pi(actor, state, window, dropout_key)
        share = window.valid / window.valid.sum()
        pre_tanh = jnp.arctanh(jnp.clip(window.actions, -0.99999, 0.99999))
        log_pi = (share * gaussian_tanh_log_prob(mean, log_std, pre_tanh)).sum()
        # The entropy of a squashed Gaussian has no closed form; it is estimated from one sample per step.
        shape = (-1, mean.shape[-1])
        _, sampled = sample_actions(entropy_key, mean.reshape(shape), log_std.reshape(shape))
        entropy = -(share * sampled.reshape(share.shape)).sum()
        temperature = jax.lax.stop_gradient(jnp.exp(state.log_temperature))
        return -log_pi - temperature * entropy, (log_pi, entropy)

    def temperature_loss(self, log_temperature: jax.Array, entropy: jax.Array, action_dim: int) -> jax.Array:
        """λ (H − H̄): its gradient step raises λ while the entropy H is below H̄."""
        target = -action_dim if self.target_entropy is None else self.target_entropy
        return jnp.exp(log_temperature) * (entropy - target)

    def update(self, state: ODTState, batch: Window, key: jax.Array) -> tuple[ODTState, Metrics]:
        """A LAMB step of the transformer on a batch of windows [B, K], then an Adam step of log λ."""
        (loss, (log_pi, entropy)), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(
            state.actor, state, batch, key
        )
        updates, optimizer = self.optimizer.update(gradient, state.actor_optimizer, state.actor)
        temperature_gradient = jax.grad(self.temperature_loss)(state.log_temperature, entropy, batch.actions.shape[-1])
        state = state._replace(actor=optax.apply_updates(state.actor, updates), actor_optimizer=optimizer)
        state = descend(state, "log_temperature", self.odt_temperature_lr, temperature_gradient)
        temperature = jnp.exp(state.log_temperature)
        return state, {"actor_loss": loss, "log_pi": log_pi, "entropy": entropy, "temperature": temperature}

    # -- acting --------------------------------------------------------------------------------------------------------

    def blank(self, spec: Spec, size: int, length: int | None = None) -> Memory:
        """The memory of `length` steps (default: `odt_acting_context`) at the start of `size` parallel episodes."""
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
        """Actions [B, A] at observations [B, …], and the new memory.

        Without a key, tanh of the mean at the target return R of evaluations; with a key, a sample at R + |R|. `steps`
        [B] counts from 0 in every episode; `rewards` [B] are the mapped rewards of the previous step.
        """
        first_step = steps == 0
        target_return = state.best_return if self.odt_return is None else jnp.float32(self.odt_return)
        target_return = target_return if key is None else target_return + jnp.abs(target_return)

        def push(past: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.concatenate([past[:, 1:], new[:, None]], axis=1)

        to_go = jnp.where(first_step, target_return, memory.to_go[:, -1] - rewards)
        memory = Memory(
            jax.tree.map(push, memory.observations, observations),
            push(memory.actions, jnp.zeros_like(memory.actions[:, 0])),
            push(memory.to_go, to_go),
            push(memory.timesteps, steps),
        )
        length = memory.to_go.shape[1]
        valid = jnp.arange(length)[None] >= length - 1 - steps[:, None]  # no steps of the previous episode
        mean, log_std = (x[:, -1] for x in self.pi(state.actor, state, Window(*memory, valid)))
        actions = jnp.tanh(mean) if key is None else sample_actions(key, mean, log_std)[0]
        return actions, memory._replace(actions=memory.actions.at[:, -1].set(actions))
