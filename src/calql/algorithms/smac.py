"""SMAC: SAC whose critics' action gradient is regularised, in pre-training, toward the score of the data's actions.

de Lara and Shkurti 2026 (*Score-Matched Actor-Critics*, ICML; arXiv 2602.17632). For a maximum-entropy policy
π ∝ exp(Q/κ), the score of the policy and the action gradient of Q are equal but for the temperature:
∇_a log π(a|s) = ∇_a Q(s, a) / κ. The score of the data's actions takes the place of the policy's; a diffusion model
ε_ψ, trained by the error of predicted noise, knows it at noise level σ as −ε_ψ / σ:

    ã = a + σ n,   n ~ N(0, I),   log σ uniform between two bounds
    L(ψ) = mean |ε_ψ(s, ã, σ) − n|²
    L(Q) = Σ_i TD_i + w mean |σ ∇_ã Q_i(s, ã) + κ ε_ψ(s, ã, σ)|²

Policy, temperature and targets are SAC's. As in SAC, all losses are computed with the parameters before the update. The
paper's full text was not at hand; what is ours stands on the method's page.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from calql.algorithms import optimizers
from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import NonNegative, Positive, require_ordered
from calql.algorithms.sac import SAC
from calql.algorithms.steps import Metrics, descend, example
from calql.networks import NoisePredictor, apply, of_each_member
from calql.types import PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class SMAC(SAC):
    """SAC with the score-matching term: hyper-parameters, and pure methods over an `ActorCriticState` whose `value` are
    the parameters ψ."""

    score_weight: NonNegative = 1.0
    """w, the weight of the score-matching term; 0 is SAC."""
    score_temperature: Positive | None = 1.0
    """κ, the temperature at which the action gradient of Q is matched with the score of the data's actions; None: the
    policy's learned temperature α."""
    score_noise: tuple[Positive, Positive] = (0.1, 1.0)
    """Lowest and highest noise level σ, in units of half the action range; levels are uniform in log σ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ordered("score_noise", self.score_noise)

    # -- the diffusion model -------------------------------------------------------------------------------------------

    @property
    def predictor(self) -> NoisePredictor:
        """The network of the diffusion model, with the hidden widths of a critic: (ψ, s, ã, σ) → [B, A]."""
        return NoisePredictor(self.critic_hidden, self.output_gain, self.encoder)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state of SAC, and the diffusion model."""
        inputs = example(spec), jnp.zeros((1, spec.action_dim)), jnp.ones(1)
        value = self.predictor.init(jax.random.fold_in(key, 2), *inputs)["params"]
        optimizer = optimizers.make(self.optimizer, self.critic_lr).init(value)
        return super().init(key, spec)._replace(value=value, value_optimizer=optimizer)

    def noised(self, actions: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Noised actions ã and noise n [B, A] for actions [B, A], and levels σ [B], one for each row."""
        level_key, noise_key = jax.random.split(key)
        low, high = map(math.log, self.score_noise)
        level = jnp.exp(jax.random.uniform(level_key, actions.shape[:1], minval=low, maxval=high))
        noise = jax.random.normal(noise_key, actions.shape)
        return actions + level[:, None] * noise, level, noise

    def predicted_noise(self, value: PyTree, observations: PyTree, noised: jax.Array, level: jax.Array) -> jax.Array:
        """ε_ψ(s, ã, σ) [B, A] of noised actions [B, A] and levels [B]; the score of the noised data is −ε_ψ / σ."""
        return apply(self.predictor, value, observations, noised, level)

    def noise_loss(self, value: PyTree, batch: Transition, key: jax.Array) -> jax.Array:
        """mean |ε_ψ(s, ã, σ) − n|², summed over the dimensions of the action."""
        noised, level, noise = self.noised(batch.actions, key)
        error = self.predicted_noise(value, batch.observations, noised, level) - noise
        return jnp.square(error).sum(axis=-1).mean()

    # -- the critics ---------------------------------------------------------------------------------------------------

    @property
    def actions_per_state(self) -> int:
        """The data's action, and the noised one."""
        return 2

    def temperature(self, state: ActorCriticState) -> jax.Array | float:
        """κ: []."""
        return jnp.exp(state.log_alpha) if self.score_temperature is None else self.score_temperature

    def action_gradients(self, critic: PyTree, observations: PyTree, actions: jax.Array) -> jax.Array:
        """∇_a Q_i(s, a) of every critic at actions [B, A]: [E, B, A]."""

        def alone(member: PyTree) -> jax.Array:
            return jax.grad(lambda actions: self.q_values(member, observations, actions).sum())(actions)

        return of_each_member(alone, critic)

    def critic_draws(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[jax.Array, ...]:
        """Targets [B], noised actions [B, A], their levels [B] and predicted noise [B, A]. No gradient flows."""
        noised, level, _ = self.noised(batch.actions, jax.random.fold_in(key, 2))
        predicted = self.predicted_noise(state.value, batch.observations, noised, level)
        return self.target_q(state, batch, key), noised, level, jax.lax.stop_gradient(predicted)

    def critic_loss(
        self, critic: PyTree, state: ActorCriticState, batch: Transition, key: jax.Array, draws: tuple | None = None
    ) -> tuple[jax.Array, Metrics]:
        """Σ_i TD_i + w mean |σ ∇_ã Q_i(s, ã) + κ ε_ψ(s, ã, σ)|². Also returns metrics."""
        target, noised, level, predicted = draws or self.critic_draws(state, batch, key)
        td_loss, metrics = super().critic_loss(critic, state, batch, key, (target,))
        slopes = level[None, :, None] * self.action_gradients(critic, batch.observations, noised)
        distance = jnp.square(slopes + self.temperature(state) * predicted[None]).sum(axis=-1)
        score_loss = distance.mean(axis=1).sum()
        return td_loss + self.score_weight * score_loss, metrics | {"score_loss": score_loss}

    # -- the step ------------------------------------------------------------------------------------------------------

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """The update of SAC with the current diffusion model, and a step of that."""
        new_state, metrics = super().update(state, batch, key)
        loss, gradient = jax.value_and_grad(self.noise_loss)(state.value, batch, jax.random.fold_in(key, 2))
        new_state = descend(new_state, "value", self.critic_lr, gradient, kind=self.optimizer)
        return new_state, metrics | {"noise_loss": loss}
