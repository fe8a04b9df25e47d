"""O3F, a best effort: the offline objective goes on online, and only the choice of actions becomes optimistic.

Sobol Mark et al. 2022 (*Fine-Tuning Offline Policies With Optimistic Action Selection*, workshop paper, no code
released). Online, candidates are drawn from a Gaussian around the policy's action, and the one whose score by the
critics (their mean, plus a bonus for their disagreement) is largest is taken. Number and width of the candidates are
those of an independent port; which offline objective the paper's rows have is not known: here it is CQL's.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import Count, Finite, NonNegative
from calql.algorithms.cql import CQL
from calql.types import PyTree


@dataclasses.dataclass(frozen=True)
class O3F(CQL):
    """CQL that acts with the best of many candidates."""

    o3f_candidates: Count = 100
    """Candidates per state."""
    o3f_std: NonNegative = 0.2
    """Standard deviation of the candidates around the policy's action, in units of half the action range."""
    o3f_bonus: Finite = 0.0
    """Weight of the critics' standard deviation in the score."""

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at [B, …]: tanh of the mean, or the best candidate where a key is given."""
        if key is None:
            return super().act(state, observations)
        centre_key, candidate_key = jax.random.split(key)
        centre = super().act(state, observations, centre_key)[:, None]
        noise = jax.random.normal(candidate_key, (centre.shape[0], self.o3f_candidates, centre.shape[-1]))
        candidates = jnp.clip(centre + self.o3f_std * noise, -1.0, 1.0)
        q = self.q_values(state.critic, observations, candidates)
        best = (q.mean(axis=0) + self.o3f_bonus * q.std(axis=0)).argmax(axis=1)
        return jnp.take_along_axis(candidates, best[:, None, None], axis=1).squeeze(1)
