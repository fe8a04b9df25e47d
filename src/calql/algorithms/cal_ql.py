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

from calql.algorithms.cql import CQL
from calql.algorithms.reference import FittedReference
from calql.algorithms.sac import ActorCriticState, Metrics
from calql.networks import Critic, Value
from calql.types import Spec, Transition


@dataclasses.dataclass(frozen=True)
class CalQL(CQL):
    """CQL with one overridden term."""

    reference: str = "returns"
    """V^μ: the data's `returns`, Q^μ `fitted` to them, or V^μ (`fitted-v`; Appendix J)."""

    def bound(self, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """max(Q(s, a), V^μ(s)) for policy actions [E, B, N] and reference values [B] (Eq. 5.1)."""
        return jnp.maximum(q_policy, reference[None, :, None])

    @property
    def fitted(self) -> FittedReference | None:
        """The learned reference, or None where the returns are the reference."""
        if self.reference == "returns":
            return None
        size = self.critic_hidden, self.output_gain, self.critic_layer_norm
        return FittedReference(Value(*size) if self.reference == "fitted-v" else Critic(*size), self.critic_lr)

    def reference_values(self, state: ActorCriticState, batch: Transition) -> jax.Array:
        """V^μ: [B]."""
        return self.fitted.values(state.value, batch) if self.fitted else batch.returns

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """CQL's state, with the reference's network where it has one."""
        state = super().init(key, spec)
        if self.fitted is None:
            return state
        value, optimizer = self.fitted.init(jax.random.fold_in(key, 2), spec)
        return state._replace(value=value, value_optimizer=optimizer)

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """CQL's step, in which the reference is the one before its own step."""
        state, metrics = super().update(state, batch, key)
        if self.fitted is None:
            return state, metrics
        value, optimizer, loss = self.fitted.step(state.value, state.value_optimizer, batch)
        return state._replace(value=value, value_optimizer=optimizer), metrics | {"reference_loss": loss}
