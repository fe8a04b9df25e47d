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
from calql.algorithms.reference import REFERENCES, Returns
from calql.algorithms.sac import ActorCriticState
from calql.algorithms.steps import Metrics
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
    def v_mu(self) -> Returns:
        """The reference."""
        return REFERENCES[self.reference](self)

    def init(self, key: jax.Array, spec: Spec) -> ActorCriticState:
        """CQL's state, with what the reference learns."""
        return self.v_mu.init(super().init(key, spec), key, spec)

    def update(self, state: ActorCriticState, batch: Transition, key: jax.Array) -> tuple[ActorCriticState, Metrics]:
        """CQL's step, in which the reference is the one before its own."""
        state, metrics = super().update(state, batch, key)
        state, about_reference = self.v_mu.step(state, batch)
        return state, metrics | about_reference
