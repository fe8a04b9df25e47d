"""O3F, a best-effort reimplementation: fine-tuning keeps the offline objective and selects actions optimistically.

Sobol Mark et al. 2022 (*Fine-Tuning Offline Policies With Optimistic Action Selection*, workshop paper, no code
released). During online collection, candidates are drawn from a Gaussian around the policy's action, and the candidate
with the highest score is taken: the mean of the critics plus a bonus for their disagreement. The number of candidates
and their standard deviation are those of an independent port. The offline objective behind the paper's numbers is not
known; CQL's is used here.
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
    """CQL that explores with the best of many candidate actions."""

    o3f_candidates: Count = 100
    """Candidate actions per state."""
    o3f_std: NonNegative = 0.2
    """Standard deviation of the candidates around the policy's action, in units of half the action range."""
    o3f_bonus: Finite = 0.0
    """Weight of the standard deviation over the critics in the score of a candidate."""

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …]: tanh of the mean, or the best candidate if a key is given."""
        if key is None:
            return super().act(state, observations)
        centre_key, candidate_key = jax.random.split(key)
        centre = super().act(state, observations, centre_key)[:, None]
        noise = jax.random.normal(candidate_key, (centre.shape[0], self.o3f_candidates, centre.shape[-1]))
        candidates = jnp.clip(centre + self.o3f_std * noise, -1.0, 1.0)
        q = self.q_values(state.critic, observations, candidates)
        best = (q.mean(axis=0) + self.o3f_bonus * q.std(axis=0)).argmax(axis=1)
        return jnp.take_along_axis(candidates, best[:, None, None], axis=1).squeeze(1)
