"""Soft actor-critic as in the official release of Cal-QL, and the base class of CQL and Cal-QL.

Haarnoja et al. 2018 (arXiv 1812.05905); hyper-parameters and order of updates as in nakamotoo/Cal-QL,
`JaxCQL/conservative_sac.py`: all losses are computed with the parameters before the update, every network takes a step
on its own loss, and then the target critics are updated.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.actor_critic import ActorCritic, ActorCriticState, share_encoder
from calql.algorithms.bounds import Count, Finite, NonNegative, Positive
from calql.algorithms.steps import Metrics, apply_every, descend
from calql.networks import TanhGaussianPolicy, action_dim_of, apply, choose_members, sample_actions
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class SAC(ActorCritic):
    """SAC: hyper-parameters (by default those of the release), and pure methods over an `ActorCriticState`."""

    actor_lr: Positive = 1e-4
    """Adam learning rate of the policy and of the temperature."""
    critic_lr: Positive = 3e-4
    """Adam learning rate of the critics (and of the Lagrange multiplier of CQL)."""
    target_subset: Count | None = None
    """Size of the random subset of critics, drawn in every update, over which targets take the minimum (REDQ, RLPD);
    None: all critics."""
    actor_layer_norm: bool = False
    """Layer normalisation in the hidden layers of the policy (WSRL)."""
    actor_on_mean: bool = False
    """Whether the policy maximises the mean over the critics (RLPD) instead of their minimum."""
    actor_every: Count = 1
    """Update the policy once per this many critic updates, together with the last of them."""
    log_std_multiplier: Finite = 1.0
    """Initial value of the learned m in log-std = m · raw + o."""
    log_std_offset: Finite = -1.0
    """Initial value of the learned o in log-std = m · raw + o."""
    target_entropy: Finite | None = None
    """H̄ of the temperature loss; None: −|A| · `target_entropy_per_action`."""
    target_entropy_per_action: Finite = 1.0
    """Target entropy divided by −|A| (RLPD: ½)."""
    alpha_multiplier: NonNegative = 1.0
    """Factor on the temperature α in the policy loss and in the entropy term of the target."""
    backup_entropy: bool = False
    """Whether α log π is subtracted from the target value (not in the release)."""
    num_target_actions: Count = 10
    """Number of actions sampled from π(s′), of which the one with the highest value enters the target ("max target
    backup"); 1 is the plain backup."""

    # -- parts ---------------------------------------------------------------------------------------------------------

    def policy(self, action_dim: int) -> TanhGaussianPolicy:
        """The policy module."""
        return TanhGaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.log_std_multiplier, self.log_std_offset,
            self.encoder, learns_encoder=False, layer_norm=self.actor_layer_norm,
        )  # fmt: skip

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The initial state. It has all parts that any subclass of SAC uses, so that a run can continue with another
        one."""
        log_alpha, log_alpha_prime = jnp.zeros(()), jnp.ones(())
        state = super().init(key, spec)
        return state._replace(
            log_alpha=log_alpha,
            log_alpha_prime=log_alpha_prime,
            alpha_optimizer=optax.adam(self.actor_lr).init(log_alpha),
            alpha_prime_optimizer=optax.adam(self.critic_lr).init(log_alpha_prime),
        )

    def pi(self, actor: PyTree, observations: PyTree) -> tuple[jax.Array, jax.Array]:
        """Mean and log-std [B, A] of the policy at [B, …], before the tanh."""
        return apply(self.policy(action_dim_of(actor)), actor, observations)

    # -- losses --------------------------------------------------------------------------------------------------------

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · max_j min_i Q̄_i(s′, a′_j), a′_j ~ π(s′): [B]. No gradient flows."""
        dist = self.pi(state.actor, batch.next_observations)
        actions, log_pi = sample_actions(key, *dist, count=self.num_target_actions)
        value = self.q_values(self.target_members(state, key), batch.next_observations, actions).min(axis=0)
        best = value.argmax(axis=1, keepdims=True)
        value, log_pi = (jnp.take_along_axis(x, best, axis=1).squeeze(1) for x in (value, log_pi))
        if self.backup_entropy:
            value -= self.alpha_multiplier * jnp.exp(state.log_alpha) * log_pi
        return self.backup(batch, value)

    def target_members(self, state: ActorCriticState, key: jax.Array) -> PyTree:
        """The target critics of this update: all, or a random subset drawn without replacement."""
        if self.target_subset is None:
            return state.target_critic
        chosen = jax.random.permutation(jax.random.fold_in(key, 1), self.num_critics)[: self.target_subset]
        return choose_members(state.target_critic, chosen)

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """mean (α log π(a|s) − min_i Q_i(s, a)), a ~ π(s) reparametrised (Eq. D.4). Also returns log π [B]."""
        actions, log_pi = sample_actions(key, *self.pi(actor, batch.observations))
        q_pi = self.q_values(state.critic, batch.observations, actions)
        q_pi = q_pi.mean(axis=0) if self.actor_on_mean else q_pi.min(axis=0)
        alpha = self.alpha_multiplier * jnp.exp(jax.lax.stop_gradient(state.log_alpha))
        return (alpha * log_pi - q_pi).mean(), log_pi

    def temperature_loss(self, log_alpha: jax.Array, log_pi: jax.Array, action_dim: int) -> jax.Array:
        """−log α · mean (log π + H̄): its gradient step raises α while the policy's entropy is below H̄."""
        target = -self.target_entropy_per_action * action_dim if self.target_entropy is None else self.target_entropy
        return -log_alpha * (log_pi.mean() + target)

    # -- the step ------------------------------------------------------------------------------------------------------

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """Optimiser steps of the policy and the temperature, with the critics of `state`."""
        (loss, log_pi), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        alpha_grad = jax.grad(self.temperature_loss)(state.log_alpha, log_pi, batch.actions.shape[-1])
        state = descend(state, "actor", self.actor_lr, gradient, kind=self.optimizer)
        state = descend(state, "log_alpha", self.actor_lr, alpha_grad)
        return state, {"actor_loss": loss, "log_pi": log_pi.mean(), "alpha": jnp.exp(state.log_alpha)}

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """One gradient step of every network on a batch [B]. Pure: scan it over steps, vmap it over seeds."""
        critic_key, actor_key = jax.random.split(key)
        state = share_encoder(state)  # changes no value, but lets the compiler encode images once for both networks
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        improve = partial(self.improve_policy, state, batch, actor_key)
        improved, policy_metrics = apply_every(self.actor_every, state.critic_optimizer, improve, state)
        state = self.move_targets(self.step_critic(improved, gradient))
        return self.move_average(state), metrics | {"critic_loss": critic_loss} | policy_metrics

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …]: tanh of the mean, or a sample if a key is given."""
        mean, log_std = self.pi(self.acting(state), observations)
        return jnp.tanh(mean) if key is None else sample_actions(key, mean, log_std)[0]
