"""Soft actor-critic, as the official release of Cal-QL runs it (the update rule below CQL and Cal-QL).

Haarnoja et al. 2018 (arXiv 1812.05905); settings and order of updates after nakamotoo/Cal-QL,
`JaxCQL/conservative_sac.py`: every loss is computed on the same pre-update parameters, each gradient is applied to the
network that owns it, then the target critics move.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from calql.algorithms.steps import Metrics, adam_step, every
from calql.networks import CriticEnsemble, TanhGaussianPolicy, choose_members, members, sample_actions
from calql.types import PyTree, Spec, Transition


class ActorCriticState(NamedTuple):
    """All that an actor-critic learns. One record for all: switching between SAC, CQL and Cal-QL converts nothing."""

    actor: PyTree
    """Policy parameters φ."""
    critic: PyTree
    """Critic parameters θ, leading axis [E]."""
    target_critic: PyTree
    """Polyak average of θ."""
    log_alpha: jax.Array
    """Logarithm of the entropy temperature."""
    log_alpha_prime: jax.Array
    """Logarithm of the Lagrange multiplier of the conservative term (unused without `cql_target_gap`)."""
    actor_optimizer: Any
    critic_optimizer: Any
    alpha_optimizer: Any
    alpha_prime_optimizer: Any
    value: PyTree = None
    """Parameters of a state value: V of IQL, the learned reference V^μ of Appendix J; None where there is none."""
    value_optimizer: Any = None
    target_actor: PyTree = None
    """Polyak average of φ (TD3+BC); None where there is none."""

    def sharing_encoder(self) -> ActorCriticState:
        """With the critics' encoder in the policy, where there are pictures (ikostrikov/jaxrl2, `agents/drq`)."""
        shared = {name: jax.tree.map(jnp.copy, part) for name, part in self.critic.items() if name == "encoder"}
        return self._replace(actor=self.actor | shared)


@dataclasses.dataclass(frozen=True)
class SAC:
    """Hyper-parameters (the defaults are the official ones) with pure methods over an `ActorCriticState`."""

    discount: float = 0.99
    """γ."""
    tau: float = 0.005
    """Polyak rate of the target critics, after every update."""
    actor_lr: float = 1e-4
    """Adam learning rate of the policy and of the temperature."""
    critic_lr: float = 3e-4
    """Adam learning rate of the critics (and of the Lagrange multiplier of CQL)."""
    actor_hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of the policy."""
    critic_hidden: tuple[int, ...] = (256, 256, 256, 256)
    """Hidden widths of each critic."""
    num_critics: int = 2
    """Ensemble size E; targets take the minimum over it."""
    critic_layer_norm: bool = False
    """Normalise the hidden layers of the critics (RLPD)."""
    target_subset: int | None = None
    """Critics, drawn anew for every update, over which targets take the minimum (REDQ, RLPD); None: all."""
    actor_on_mean: bool = False
    """The policy climbs the mean over the critics (RLPD) instead of their minimum."""
    actor_every: int = 1
    """Critic updates a policy update, which comes with the last of them."""
    output_gain: float = 0.01
    """Orthogonal gain of the output layers."""
    log_std_multiplier: float = 1.0
    """Initial m of the learned affine log-std m · raw + o."""
    log_std_offset: float = -1.0
    """Initial o of the learned affine log-std."""
    target_entropy: float | None = None
    """H̄ of the temperature loss; None: −|A| times the next."""
    target_entropy_per_action: float = 1.0
    """Share of −|A| that is aimed at (RLPD: a half)."""
    alpha_multiplier: float = 1.0
    """Factor on the temperature in the policy loss."""
    backup_entropy: bool = False
    """Subtract α log π from the target value (off in the release)."""
    num_target_actions: int = 10
    """Actions of π(s′) whose best value enters the target ("max target backup"); 1 is the plain backup."""
    target_q_range: tuple[float, float] | None = None
    """Clamp targets to this range, e.g. [r_min, r_max]/(1 − γ); None: no clamp (the release)."""
    critic_chunk: int | None = None
    """Most (state, action) pairs that the critics take at once; gradients are averaged over chunks, so that only speed
    depends on it. None: 1,024 on a CPU, where activations then stay in cache; else no limit."""

    encoder: str = "small"
    """What pictures in observations go through, see `Encoder`; the policy looks through the critics'."""
    random_crop: int = 4
    """Most pixels by which pictures are shifted in training."""

    learns_values: ClassVar[bool] = True
    """Whether the critics mean anything (behaviour cloning leaves them at their initial values)."""

    context: ClassVar[int] = 0
    """Steps of the sequences that are learned from; 0: transitions."""

    # -- parts ---------------------------------------------------------------------------------------------------------

    def policy(self, action_dim: int) -> TanhGaussianPolicy:
        """The policy module."""
        return TanhGaussianPolicy(
            self.actor_hidden, action_dim, self.output_gain, self.log_std_multiplier, self.log_std_offset,
            self.encoder, learns_encoder=not self.learns_values,
        )  # fmt: skip

    @property
    def q(self) -> CriticEnsemble:
        """The critic module: (θ, s, a) → [E, …]."""
        return CriticEnsemble(
            self.critic_hidden, self.num_critics, self.output_gain, self.critic_layer_norm, self.encoder
        )

    @property
    def actions_per_state(self) -> int:
        """Actions that the critic loss evaluates a state."""
        return 1

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """Fresh parameters and optimiser states for observations and actions of that shape."""
        actor_key, critic_key = jax.random.split(key)
        observation = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
        actor = self.policy(spec.action_dim).init(actor_key, observation)["params"]
        critic = self.q.init(critic_key, observation, jnp.zeros((1, spec.action_dim)))["params"]
        log_alpha, log_alpha_prime = jnp.zeros(()), jnp.ones(())
        return ActorCriticState(
            actor,
            critic,
            jax.tree.map(jnp.copy, critic),
            log_alpha,
            log_alpha_prime,
            optax.adam(self.actor_lr).init(actor),
            optax.adam(self.critic_lr).init(critic),
            optax.adam(self.actor_lr).init(log_alpha),
            optax.adam(self.critic_lr).init(log_alpha_prime),
        ).sharing_encoder()

    def pi(self, actor: PyTree, observations: PyTree) -> tuple[jax.Array, jax.Array]:
        """Mean and log-std [B, A] of the policy at [B, …]: once a state, however many actions are drawn from it."""
        action_dim = actor["mlp"]["output"]["bias"].shape[-1] // 2  # mean and log-std share the output layer
        return self.policy(action_dim).apply({"params": actor}, observations)

    def sample(
        self, key: jax.Array, mean: jax.Array, log_std: jax.Array, count: int | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Actions of that distribution and their log densities: [B, A], [B]; with `count` [B, N, A], [B, N]."""
        return sample_actions(key, mean, log_std, count)

    def q_values(self, critic: PyTree, observations: PyTree, actions: jax.Array) -> jax.Array:
        """Q of every member: actions [B, A] → [E, B], or [B, N, A] → [E, B, N]."""
        return self.q.clone(members=members(critic)).apply({"params": critic}, observations, actions)

    # -- losses --------------------------------------------------------------------------------------------------------

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """y = r + γ · mask · max_j min_i Q̄_i(s′, a′_j), a′_j ~ π(s′): [B]. No gradient flows."""
        dist = self.pi(state.actor, batch.next_observations)
        actions, log_pi = self.sample(key, *dist, count=self.num_target_actions)
        value = self.q_values(self.target_members(state, key), batch.next_observations, actions).min(axis=0)
        best = value.argmax(axis=1, keepdims=True)
        value, log_pi = (jnp.take_along_axis(x, best, axis=1).squeeze(1) for x in (value, log_pi))
        if self.backup_entropy:
            value -= self.alpha_multiplier * jnp.exp(state.log_alpha) * log_pi
        target = batch.rewards + self.discount * batch.masks * value
        if self.target_q_range is not None:
            target = jnp.clip(target, *self.target_q_range)
        return jax.lax.stop_gradient(target)

    def target_members(self, state: ActorCriticState, key: jax.Array) -> PyTree:
        """The target critics of this update: all, or a random subset without repetition."""
        if self.target_subset is None:
            return state.target_critic
        chosen = jax.random.permutation(jax.random.fold_in(key, 1), self.num_critics)[: self.target_subset]
        return choose_members(state.target_critic, chosen)

    def critic_draws(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[jax.Array, ...]:
        """What the critic loss draws, one row a transition: the targets y [B]. No gradient flows."""
        return (self.target_q(state, batch, key),)

    def critic_loss(
        self, critic: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array, draws: tuple | None = None
    ) -> tuple[jax.Array, Metrics]:
        """Σ_i mean (Q_i(s, a) − y)² (mean squared error without ½, as in the release)."""
        (target,) = draws or self.critic_draws(state, batch, key)
        q_data = self.q_values(critic, batch.observations, batch.actions)
        td_loss = jnp.square(q_data - target[None]).mean(axis=1).sum()
        return td_loss, {"td_loss": td_loss, "q_data": q_data.mean(), "target_q": target.mean()}

    def actor_loss(
        self, actor: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """mean (α log π(a|s) − min_i Q_i(s, a)), a ~ π(s) reparametrised (Eq. D.4). Also returns log π [B]."""
        actions, log_pi = self.sample(key, *self.pi(actor, batch.observations))
        q_pi = self.q_values(state.critic, batch.observations, actions)
        q_pi = q_pi.mean(axis=0) if self.actor_on_mean else q_pi.min(axis=0)
        alpha = self.alpha_multiplier * jnp.exp(jax.lax.stop_gradient(state.log_alpha))
        return (alpha * log_pi - q_pi).mean(), log_pi

    def temperature_loss(self, log_alpha: jax.Array, log_pi: jax.Array, action_dim: int) -> jax.Array:
        """−log α · mean (log π + H̄): raises α while the policy's entropy is below the target."""
        target = -self.target_entropy_per_action * action_dim if self.target_entropy is None else self.target_entropy
        return -log_alpha * (log_pi.mean() + target)

    # -- the step ------------------------------------------------------------------------------------------------------

    def critic_gradient(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[tuple[jax.Array, Metrics], PyTree]:
        """Critic loss, metrics and gradient as means over equal chunks of the batch (see `critic_chunk`)."""
        data = batch, self.critic_draws(state, batch, key)
        size = states = batch.rewards.shape[0]
        limit = self.critic_chunk or (1024 if jax.default_backend() == "cpu" else size * self.actions_per_state)
        while states % 2 == 0 and states * self.actions_per_state > limit:
            states //= 2
        chunks = jax.tree.map(lambda x: x.reshape(size // states, states, *x.shape[1:]), data)

        @partial(jax.jit, inline=True)  # traced once for its shapes and the sums
        def one(chunk: tuple) -> tuple[tuple[jax.Array, Metrics], PyTree]:
            return jax.value_and_grad(self.critic_loss, has_aux=True)(state.critic, state, chunk[0], key, chunk[1])

        shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], chunks))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        sums, _ = jax.lax.scan(lambda sums, chunk: (jax.tree.map(jnp.add, sums, one(chunk)), None), zeros, chunks)
        return jax.tree.map(lambda x: x * (states / size), sums)

    def step_critic(self, state: ActorCriticState, gradient: PyTree) -> ActorCriticState:
        """The critics' step, after which their targets move."""
        critic, optimizer = adam_step(self.critic_lr, gradient, state.critic_optimizer, state.critic)
        target = optax.incremental_update(critic, state.target_critic, self.tau)
        return state._replace(critic=critic, critic_optimizer=optimizer, target_critic=target).sharing_encoder()

    def step_actor(self, state: ActorCriticState, gradient: PyTree) -> ActorCriticState:
        """The policy's step."""
        actor, optimizer = adam_step(self.actor_lr, gradient, state.actor_optimizer, state.actor)
        return state._replace(actor=actor, actor_optimizer=optimizer)

    def improve_policy(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[ActorCriticState, Metrics]:
        """Steps of policy and temperature, on the critics of `state`."""
        (loss, log_pi), gradient = jax.value_and_grad(self.actor_loss, has_aux=True)(state.actor, state, batch, key)
        alpha_grad = jax.grad(self.temperature_loss)(state.log_alpha, log_pi, batch.actions.shape[-1])
        log_alpha, optimizer = adam_step(self.actor_lr, alpha_grad, state.alpha_optimizer, state.log_alpha)
        state = self.step_actor(state, gradient)._replace(log_alpha=log_alpha, alpha_optimizer=optimizer)
        return state, {"actor_loss": loss, "log_pi": log_pi.mean(), "alpha": jnp.exp(log_alpha)}

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """One gradient step of every network on the batch [B]. Pure: scan it for speed, vmap it for seeds."""
        critic_key, actor_key = jax.random.split(key)
        state = state.sharing_encoder()  # as it is already; but now the compiler knows, and encodes once for both
        (critic_loss, metrics), gradient = self.critic_gradient(state, batch, critic_key)
        improve = partial(self.improve_policy, state, batch, actor_key)
        improved, about_policy = every(self.actor_every, state.critic_optimizer, improve, state)
        return self.step_critic(improved, gradient), metrics | {"critic_loss": critic_loss} | about_policy

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …]: tanh of the mean, or a sample where a key is given (online collection)."""
        mean, log_std = self.pi(state.actor, observations)
        return jnp.tanh(mean) if key is None else self.sample(key, mean, log_std)[0]
