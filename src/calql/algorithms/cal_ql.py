"""Calibrated Q-learning: CQL that stops pushing Q down where it has reached the return of a reference policy.

Nakamoto et al. 2023, Eq. 5.1 and D.1: the pushed-down value of a policy action is max(Q(s, a), V^μ(s)), with the
Monte-Carlo return of the data as V^μ. Where the return is larger, the action's gradient is exactly zero; that is the
whole method. Random actions are not bounded, the comparison is made before the importance correction, and the bound
stays on during fine-tuning, where each online episode brings its own return (nakamotoo/Cal-QL,
`JaxCQL/conservative_sac.py`).
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
    """CQL with one overridden term, `bound`; the rest is the choice of V^μ."""

    reference: Reference = "returns"
    """V^μ: the data's `returns`, Q^μ `fitted` to them, or V^μ (`fitted-v`; Appendix J)."""

    def bound(self, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """max(Q(s, a), V^μ(s)) for policy actions [E, B, N] and reference values [B] (Eq. 5.1)."""
        return jnp.maximum(q_policy, reference[None, :, None])

    # -- a learned V^μ -------------------------------------------------------------------------------------------------

    @property
    def fitted(self) -> FittedReference | None:
        """The network that learns V^μ, of the critics' size; None where the returns are the reference."""
        if self.reference == "returns":
            return None
        network = Critic(self.critic_hidden, self.output_gain, self.critic_layer_norm, self.encoder)
        return FittedReference(network, self.reference == "fitted", self.critic_lr)

    def reference_values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """V^μ: [B]."""
        return self.fitted.values(state.value, batch) if self.fitted else super().reference_values(state, batch)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """CQL's state, with the parameters of a learned V^μ."""
        state = super().init(key, spec)
        return self.fitted.init(state, key, spec) if self.fitted else state

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """CQL's step, on the V^μ of before; then the step of a learned V^μ."""
        state, metrics = super().update(state, batch, key)
        if self.fitted is None:
            return state, metrics
        state, reference_metrics = self.fitted.step(state, batch)
        return state, metrics | reference_metrics
