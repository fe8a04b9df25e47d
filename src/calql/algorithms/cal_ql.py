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


@dataclasses.dataclass(frozen=True)
class CalQL(CQL):
    """CQL with one overridden term."""

    def bound(self, q_policy: jax.Array, returns: jax.Array) -> jax.Array:
        """max(Q(s, a), G(s)) for policy actions [E, B, N] and returns [B] (Eq. 5.1)."""
        return jnp.maximum(q_policy, returns[None, :, None])
