"""Cal-QL+: Cal-QL which acts on its best guess, and whose conservatism can fade where the critic is pessimistic.

Two changes to Cal-QL (no paper: they are this project's), the second off by default:

    collection: A_1 … A_N ~ π(s), and the one with the highest mean over the critics is taken

    c_i(s) = share of the policy actions A_j ~ π(s), B_j ~ π(s′) with Q_i(s, ·) > V^μ(s)
    loss_i = TD_i + w · mean c_i(s) gap_i(s)                       no gradient flows through c_i

Cal-QL's bound stops the push down on policy actions whose Q lies below V^μ; the push up on the data's actions and the
push down on random ones go on there at full weight. With c_i, all of the conservative term stops where every policy
action lies below the reference, and is in full force where none does. Measured, it made things worse
(`results/README.md`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from calql.algorithms.actor_critic import ActorCriticState
from calql.algorithms.bounds import Count
from calql.algorithms.cal_ql import CalQL
from calql.networks import sample_actions
from calql.types import PyTree


@dataclasses.dataclass(frozen=True)
class CalQLPlus(CalQL):
    """Cal-QL with the best of several actions in collection, and a weight that can follow the critic's calibration."""

    weigh_by_calibration: bool = False
    """Weigh the conservative term of each state by c_i(s), the share of its policy actions above the reference."""
    acting_candidates: Count = 10
    """N, the actions drawn from π(s) in collection, of which the one with the highest Q is taken; 1: Cal-QL's."""

    def weighted(self, gap: jax.Array, q_policy: jax.Array, reference: jax.Array) -> jax.Array:
        """c_i(s) gap_i(s): [E, B]."""
        if not self.weigh_by_calibration:
            return gap
        return jax.lax.stop_gradient((q_policy > reference[None, :, None]).mean(axis=-1)) * gap

    def act(self, state: ActorCriticState, observations: PyTree, key: jax.Array | None = None) -> jax.Array:
        """Actions [B, A] at observations [B, …]: tanh of the mean, or the best of N samples if a key is given."""
        if key is None or self.acting_candidates == 1:
            return super().act(state, observations, key)
        actions, _ = sample_actions(key, *self.pi(self.acting(state), observations), count=self.acting_candidates)
        best = self.q_values(state.critic, observations, actions).mean(axis=0).argmax(axis=1)
        return jnp.take_along_axis(actions, best[:, None, None], axis=1).squeeze(1)
