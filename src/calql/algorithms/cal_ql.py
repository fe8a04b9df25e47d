"""Calibrated Q-learning: CQL that does not push Q-values below the value of a reference policy.

Nakamoto et al. 2023, Eq. 5.1 and D.1: the pushed-down value of a policy action is max(Q(s, a), V^μ(s)), with the
Monte-Carlo return of the data as V^μ. Where the return is larger, the gradient through Q(s, a) is exactly zero. Random
actions are not bounded, the maximum is taken before the importance correction, and the bound also holds during
fine-tuning, with the return of each online episode (nakamotoo/Cal-QL, `JaxCQL/conservative_sac.py`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.cql import CQL
from calql.algorithms.reference import FittedReference, Reference
from calql.algorithms.steps import Metrics
from calql.networks import Critic
from calql.types import Spec, Transition


@dataclasses.dataclass(frozen=True)
class CalQL(CQL):
    """CQL with one overridden term, `bound`; all other methods concern the choice of V^μ."""

    reference: Reference = "returns"
    """Reference value: the Monte-Carlo `returns` of the data, or a network trained on them (Appendix J): `fitted` for
    Q^μ(s, a), `fitted-v` for V^μ(s)."""

    def bound(self, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """max(Q(s, a), V^μ(s)) for policy actions [E, B, N] and reference values [B] (Eq. 5.1)."""
        return jnp.maximum(q_policy, reference[None, :, None])

    # -- a learned V^μ -------------------------------------------------------------------------------------------------

    @property
    def fitted(self) -> FittedReference | None:
        """The network that learns V^μ, of the same size as a critic; None if the returns are the reference."""
        if self.reference == "returns":
            return None
        network = Critic(
            self.critic_hidden, self.output_gain, self.critic_layer_norm, self.encoder, self.critic_precision
        )
        return FittedReference(network, self.reference == "fitted", self.critic_lr, self.optimizer)

    def reference_values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """V^μ(s), or Q^μ(s, a), of the batch: [B]."""
        return self.fitted.values(state.value, batch) if self.fitted else super().reference_values(state, batch)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """The state of CQL, and the parameters of V^μ if it is learned."""
        state = super().init(key, spec)
        return self.fitted.init(state, key, spec) if self.fitted else state

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """The update of CQL with the current V^μ, followed by a step of V^μ if it is learned."""
        state, metrics = super().update(state, batch, key)
        if self.fitted is None:
            return state, metrics
        state, reference_metrics = self.fitted.step(state, batch)
        return state, metrics | reference_metrics
