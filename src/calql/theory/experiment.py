"""The experiment of `calql theory`: every learner on every combination of world (MDP), reference policy and data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from calql.theory.bound import Terms, decomposition, optimal_value, regret_bound, transfer_coefficient
from calql.theory.fqi import Learner, Trace, fine_tune, sample
from calql.theory.mdp import (
    MDP,
    Array,
    combination_lock,
    greedy,
    linear_mdp,
    maze,
    mixed,
    occupancy,
    offline_distribution,
    optimal_q,
    policy_q,
)

WORLDS: dict[str, Callable[[], MDP]] = {"lock": combination_lock, "maze": maze, "linear": linear_mdp}
REFERENCES = {"good": 0.05, "middling": 0.3, "poor": 1.0}
"""Probability that the reference policy takes the worst action instead of an optimal one."""
WIDTHS = {"narrow": 0.02, "wide": 0.5}
"""Share of the data with uniformly distributed states and actions; the other data are from the reference policy."""
LEARNERS = (
    Learner("Cal-QL", pessimistic=True, calibrated=True),
    Learner("Hy-Q", pessimistic=False, calibrated=False),
    Learner("Hy-Q, pessimistic", pessimistic=True, calibrated=False),
    Learner("Hy-Q, calibrated", pessimistic=False, calibrated=True),
    Learner("FQI, offline only", pessimistic=False, calibrated=False, online=False),
    Learner("FQI, online only", pessimistic=False, calibrated=False, offline=False),
)
DELTA = 0.05
"""δ of the bound."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A world (MDP), a reference policy and the width of the offline data, by name."""

    world: str
    reference: str
    width: str


@dataclasses.dataclass(frozen=True)
class Result:
    """One learner in one setting."""

    setting: Setting
    learner: Learner
    trace: Trace
    terms: Terms
    transfer: float
    """C_π* in the class of all f ≤ Q*."""
    transfer_ref: float
    """C_π*^ref in the class of all f with Q^ref ≤ f ≤ Q*."""
    gap: float
    """E_ρ [V* − V^ref], V^ref = max_a Q^ref."""
    bounds: Array
    """[N] bound of Eq. E.20 on the regret of each run."""

    @property
    def regret(self) -> Array:
        """[N] regret over all rounds."""
        return self.terms.regret[:, -1]


def settings() -> list[Setting]:
    """Every combination of world, reference and width of the data."""
    return list(itertools.starmap(Setting, itertools.product(WORLDS, REFERENCES, WIDTHS)))


def run(setting: Setting, runs: int = 20, rounds: int = 300, seed: int = 0) -> Iterator[Result]:
    """One result per learner, from N = `runs` runs of K = `rounds` rounds, with m_off = K and m_on = 1 tuples per step.

    All learners get the same offline data and the same random numbers online. Run i depends only on `seed` and i.
    """
    mdp = WORLDS[setting.world]()
    policy = mixed(mdp, REFERENCES[setting.reference])
    reference, nu, q = policy_q(mdp, policy), offline_distribution(mdp, policy, WIDTHS[setting.width]), optimal_q(mdp)
    horizon = mdp.shape[0]
    rngs = [np.random.default_rng([seed, i]) for i in range(runs)]
    offline = sample(
        mdp, np.broadcast_to(nu, (runs, *nu.shape)), np.stack([r.random((horizon, rounds, 3)) for r in rngs])
    )
    uniforms = np.stack([r.random((rounds, horizon, 1, 3)) for r in rngs])
    best = occupancy(mdp, greedy(q))
    transfer, transfer_ref = (transfer_coefficient(mdp, best, nu, floor) for floor in (None, reference))
    gap = optimal_value(mdp) - float(reference[0].max(axis=-1) @ mdp.start)
    for learner in LEARNERS:
        trace = fine_tune(mdp, learner, offline, reference, q, uniforms)
        bounds = [
            regret_bound(
                mdp,
                transfer=transfer_ref,
                gap=gap,
                above=float(trace.above[i].sum()),
                rounds=rounds,
                ranks=(int(trace.ranks[0, i]), int(trace.ranks[1, i])),
                tuples=(rounds, 1),
                delta=DELTA,
            )
            for i in range(runs)
        ]
        yield Result(setting, learner, trace, decomposition(mdp, trace), transfer, transfer_ref, gap, np.array(bounds))
