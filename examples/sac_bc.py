"""Your own method in one file: SAC with a behaviour-cloning loss, as TD3+BC but with a stochastic policy.

calql train --task pointmaze-medium-narrow --method examples.sac_bc:METHOD --set bc_weight=2 --out runs/sac-bc
"""

import dataclasses

from calql.algorithms import BC, SAC
from calql.methods import Method


@dataclasses.dataclass(frozen=True)
class SACBC(SAC):
    """SAC whose policy loss includes behaviour cloning of the batch."""

    bc_weight: float = 1.0
    """Weight of −log π(a|s) of the batch's actions; an option like any other."""

    def actor_loss(self, actor, state, batch, key):
        """SAC's loss divided by the mean |Q|, plus bc_weight times BC's loss."""
        loss, log_pi = super().actor_loss(actor, state, batch, key)
        imitation, _ = BC.actor_loss(self, actor, state, batch, key)
        scale = 1.0 / (1e-3 + abs(self.q_values(state.critic, batch.observations, batch.actions)).mean())
        return scale * loss + self.bc_weight * imitation, log_pi


METHOD = Method("sac-bc", "SAC+BC", offline=SACBC, online=SACBC, summary="SAC with a behaviour-cloning loss")
