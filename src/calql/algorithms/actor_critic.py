"""The common part of all actor-critic rules: an ensemble of Q-functions with target networks, trained on TD errors.

A subclass adds the policy, the target and the order of the steps.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from calql.algorithms import optimizers
from calql.algorithms.bounds import Below1, Count, EncoderKind, NonNegative, Positive, UpTo1, Widths, require_ordered
from calql.algorithms.optimizers import Optimizer
from calql.algorithms.steps import Metrics, averaged_gradient, descend, example
from calql.networks import CriticEnsemble, Precision, apply, members
from calql.types import InputError, PyTree, Spec, Transition


class ActorCriticState(NamedTuple):
    """Everything that a rule learns; a part that the rule does not have is None. Fine-tuning can continue with another
    rule than pre-training if all of its parts are there; those that it does not have are dropped."""

    actor: PyTree
    """Policy parameters φ."""
    critic: PyTree
    """Critic parameters θ, leading axis [E]."""
    target_critic: PyTree
    """Polyak average of θ, the parameters of the target critics Q̄."""
    value: PyTree = None
    """Parameters of IQL's V, of Cal-QL's learned reference V^μ (Appendix J), or of SMAC's noise predictor."""
    log_alpha: Any = None
    """Logarithm of the entropy temperature."""
    log_alpha_prime: Any = None
    """Logarithm of the Lagrange multiplier of the conservative term (unused without `cql_target_gap`)."""
    actor_optimizer: Any = None
    critic_optimizer: Any = None
    alpha_optimizer: Any = None
    alpha_prime_optimizer: Any = None
    value_optimizer: Any = None
    target_actor: PyTree = None
    """Polyak average of φ in TD3's targets."""
    averaged_actor: PyTree = None
    """Polyak average of φ that acts; None: φ acts."""


AVERAGES = {"target_critic": "critic", "target_actor": "actor", "averaged_actor": "actor"}
"""Parts of the state that are averages, and of what; an average begins as a copy."""


def share_encoder(state: ActorCriticState) -> ActorCriticState:
    """The state with the critics' image encoder, if there is one, copied to the policy (ikostrikov/jaxrl2,
    `agents/drq`)."""
    shared = {name: jax.tree.map(jnp.copy, part) for name, part in state.critic.items() if name == "encoder"}
    return state._replace(actor=state.actor | shared)


@dataclasses.dataclass(frozen=True)
class ActorCritic:
    """Hyper-parameters of the networks, and the critics' update."""

    discount: Below1 = 0.99
    """Discount factor γ."""
    tau: UpTo1 = 0.005
    """Polyak rate of the target networks."""
    actor_lr: Positive = 1e-4
    """Adam learning rate of the policy."""
    critic_lr: Positive = 3e-4
    """Adam learning rate of the critics."""
    actor_hidden: Widths = (256, 256)
    """Hidden widths of the policy."""
    critic_hidden: Widths = (256, 256, 256, 256)
    """Hidden widths of each critic."""
    num_critics: Count = 2
    """Ensemble size E; targets take the minimum over the ensemble."""
    critic_layer_norm: bool = False
    """Layer normalisation in the hidden layers of the critics (RLPD)."""
    critic_precision: Precision = "float32"
    """Precision of the products between hidden layers of the critics. `bfloat16`: their inputs are rounded to it;
    sums, the first and the last layer, parameters and optimiser stay float32. Faster where the processor multiplies
    bfloat16 (Intel's AMX, GPUs): `calql bench` tells."""
    output_gain: NonNegative = 0.01
    """Gain of the orthogonal initialisation of the output layers."""
    acting_tau: UpTo1 = 1.0
    """Polyak rate of an average of the policy that acts in its place, in collection and evaluation; learning does not
    use it. 1: the policy itself acts (all papers)."""
    target_q_range: tuple[float, float] | None = None
    """Clamp targets to this range, e.g. [r_min, r_max]/(1 − γ); None: no clamp (the release)."""
    critic_chunk: Count | None = None
    """Maximum number of (state, action) pairs per pass through the critics. The gradient is averaged over chunks of
    the batch, so only speed depends on this. None: 1,024 on a CPU, where activations then stay in the cache; no limit
    elsewhere."""
    encoder: EncoderKind = "small"
    """Image encoder (see `Encoder`); the critics train it, and the policy uses a copy."""
    optimizer: Optimizer = "adam"
    """Optimiser of the networks. `muon`: orthogonalised steps of weight matrices, about as large as Adam's, so that
    learning rates keep their meaning; biases, layer norms and the temperature stay with Adam."""

    context = 0
    """Batches are transitions."""
    group = 1
    """The number of transitions in a chunk of the batch is a multiple of this."""

    def __post_init__(self) -> None:
        require_ordered("target_q_range", self.target_q_range)
        if self.critic_precision != "float32" and len(self.critic_hidden) < 2:
            raise InputError(
                f"critic_precision is '{self.critic_precision}', but critics of fewer than two hidden layers have no "
                "product between hidden layers; use critic_precision=float32 or more layers"
            )

    # -- to be defined by a subclass -----------------------------------------------------------------------------------

    def policy(self, action_dim: int) -> Any:
        """The policy module: (φ, s) → parameters of the action distribution."""
        raise NotImplementedError

    def target_q(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> jax.Array:
        """Targets y of Q(s, a): [B]. No gradient flows."""
        raise NotImplementedError

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def q(self) -> CriticEnsemble:
        """The critic module: (θ, s, a) → [E, …]."""
        return CriticEnsemble(
            self.critic_hidden,
            self.num_critics,
            self.output_gain,
            self.critic_layer_norm,
            self.encoder,
            self.critic_precision,
        )

    @property
    def actions_per_state(self) -> int:
        """Actions per state at which the critic loss evaluates Q."""
        return 1

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """Initial parameters and optimiser states for observations and actions of the shapes in `spec`."""
        actor_key, critic_key = jax.random.split(key)
        observation = example(spec)
        actor = self.policy(spec.action_dim).init(actor_key, observation)["params"]
        critic = self.q.init(critic_key, observation, jnp.zeros((1, spec.action_dim)))["params"]
        state = ActorCriticState(
            actor=actor,
            critic=critic,
            target_critic=jax.tree.map(jnp.copy, critic),
            actor_optimizer=optimizers.make(self.optimizer, self.actor_lr).init(actor),
            critic_optimizer=optimizers.make(self.optimizer, self.critic_lr).init(critic),
        )
        state = share_encoder(state)
        return state if self.acting_tau == 1 else state._replace(averaged_actor=jax.tree.map(jnp.copy, state.actor))

    def q_values(self, critic: PyTree, observations: PyTree, actions: jax.Array) -> jax.Array:
        """Q-values of every critic: actions [B, A] → [E, B], or N actions per state [B, N, A] → [E, B, N]."""
        return apply(self.q.clone(members=members(critic)), critic, observations, actions)

    def backup(self, batch: Transition, value: jax.Array) -> jax.Array:
        """y = r + γ · mask · V(s′), clamped to `target_q_range`: [B]. No gradient flows."""
        target = batch.rewards + self.discount * batch.masks * value
        return jax.lax.stop_gradient(target if self.target_q_range is None else jnp.clip(target, *self.target_q_range))

    # -- the critics' update -------------------------------------------------------------------------------------------

    def critic_draws(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[jax.Array, ...]:
        """Inputs of the critic loss through which no gradient flows, one row per transition: the targets y [B]."""
        return (self.target_q(state, batch, key),)

    def critic_loss(
        self, critic: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array, draws: tuple | None = None
    ) -> tuple[jax.Array, Metrics]:
        """Σ_i mean (Q_i(s, a) − y)²: mean squared error without ½, as in the release. Also returns metrics.

        `draws`: the result of `critic_draws`; None: computed here with `key`.
        """
        (target,) = draws or self.critic_draws(state, batch, key)
        q_data = self.q_values(critic, batch.observations, batch.actions)
        td_loss = jnp.square(q_data - target[None]).mean(axis=1).sum()
        return td_loss, {"td_loss": td_loss, "q_data": q_data.mean(), "target_q": target.mean()}

    def critic_gradient(
        self, state: ActorCriticState, batch: Transition, key: jax.Array
    ) -> tuple[tuple[jax.Array, Metrics], PyTree]:
        """Critic loss, metrics and gradient, computed in chunks of the batch (see `critic_chunk`)."""
        data = batch, self.critic_draws(state, batch, key)

        def loss(critic: PyTree, chunk: tuple) -> tuple[jax.Array, Metrics]:
            return self.critic_loss(critic, state, chunk[0], key, chunk[1])

        return averaged_gradient(loss, state.critic, data, self.actions_per_state, self.critic_chunk, self.group)

    def step_critic(self, state: ActorCriticState, gradient: PyTree) -> ActorCriticState:
        """Optimiser step of the critics."""
        return share_encoder(descend(state, "critic", self.critic_lr, gradient, kind=self.optimizer))

    def move_targets(self, state: ActorCriticState) -> ActorCriticState:
        """Polyak update of the target critics with rate `tau`."""
        return state._replace(target_critic=optax.incremental_update(state.critic, state.target_critic, self.tau))

    # -- the policy that acts ------------------------------------------------------------------------------------------

    def move_average(self, state: ActorCriticState) -> ActorCriticState:
        """Polyak update of the average of the policy, if there is one, with rate `acting_tau`: once per update."""
        if self.acting_tau == 1:
            return state
        averaged = optax.incremental_update(state.actor, state.averaged_actor, self.acting_tau)
        return state._replace(averaged_actor=averaged)

    def acting(self, state: ActorCriticState) -> PyTree:
        """Parameters of the policy that acts: φ, or their average."""
        return state.actor if self.acting_tau == 1 else state.averaged_actor
