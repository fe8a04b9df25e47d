"""The quantities of Theorem E.5: transfer coefficients, the two terms of the regret, and the bound on the regret."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calql.theory.fqi import Trace, directions
from calql.theory.mdp import MDP, Array, optimal_q


def transfer_coefficient(mdp: MDP, visited: Array, nu: Array, floor: Array | None = None) -> float:
    """Transfer coefficient C_π, or with a floor C_π^ref (Definitions F.2, E.4), of the class of all f with
    floor ≤ f ≤ Q*.

    Exact for tables: by Cauchy–Schwarz, no ratio is larger than √Σ d²/ν over the (h, s, a) at which f may be below Q*
    (at the others, T f − f ≤ 0), and errors T f − f that are small and proportional to d/ν there attain this value.
    For linear features: the same upper bound over all errors that are linear functions, which ignores the floor.

    Args:
        mdp: the MDP.
        visited: d^π [H, S, A], occupancy of the policy.
        nu: ν [H, S, A], distribution of the data.
        floor: Q^ref [H, S, A] of a reference policy; None: 0.

    Returns ∞ if the policy visits an (h, s, a) that the data do not cover.
    """
    if mdp.features is not None:
        return _linear_coefficient(mdp, visited, nu)
    free = (optimal_q(mdp) - (0.0 if floor is None else floor) > 1e-12) & (visited > 0)
    if (nu[free] == 0).any():
        return np.inf
    return float(np.sqrt((visited[free] ** 2 / nu[free]).sum()))


def _linear_coefficient(mdp: MDP, visited: Array, nu: Array) -> float:
    """`transfer_coefficient` of an MDP with linear features."""
    assert mdp.features is not None
    x = directions(mdp, visited)
    covariance = np.einsum("hsa,sad,sae->hde", nu, mdp.features, mdp.features)
    inverse = np.linalg.pinv(covariance, hermitian=True)
    if not np.allclose(np.einsum("hde,hef,hf->hd", covariance, inverse, x), x, atol=1e-8):
        return np.inf
    return float(np.sqrt(np.einsum("hd,hde,he->", x, inverse, x)))


class Terms(NamedTuple):
    """The regret and its two terms, whose sum it is (Eq. C.1): [N, K] each, cumulative over rounds."""

    miscalibration: Array
    """Σ V* − max_a f_0^k."""
    overestimation: Array
    """Σ max_a f_0^k − V^{π^k}."""
    regret: Array
    """Σ V* − V^{π^k}."""


def decomposition(mdp: MDP, trace: Trace) -> Terms:
    """The regret of a run and its two terms, see `Terms`."""
    best = optimal_value(mdp)
    return Terms(
        np.cumsum(best - trace.estimates, axis=1),
        np.cumsum(trace.estimates - trace.values, axis=1),
        np.cumsum(best - trace.values, axis=1),
    )


def optimal_value(mdp: MDP) -> float:
    """E_ρ V*, the value of an optimal policy."""
    return float(optimal_q(mdp)[0].max(axis=-1) @ mdp.start)


def log_size(mdp: MDP, rounds: int) -> float:
    """log |F| of a class whose weights are on a grid with step 1/K: Σ_h d log(1 + K V_h), K = `rounds`."""
    return float((mdp.rank * np.log1p(rounds * mdp.ceilings)).sum())


def regret_bound(
    mdp: MDP,
    *,
    transfer: float,
    gap: float,
    above: float,
    rounds: int,
    ranks: tuple[int, int],
    tuples: tuple[int, int],
    delta: float,
) -> float:
    """The right-hand side of Eq. E.20, with its constants.

    Args:
        mdp: the MDP, which gives H, V_max and |F|.
        transfer: C^ref of the comparator policy π*.
        gap: E_ρ [V* − V^ref].
        above: K₁, the number of rounds with estimates above V^ref; K₂ is the number of other rounds.
        rounds: K.
        ranks: d and d_ref. Ranks of the X_h(f^k) of a run can be used, which is enough for the proof (Lemma F.8).
        tuples: m_off and m_on, tuples per step.
        delta: δ, the probability that the bound may fail.
    """
    horizon, v_max, size = mdp.shape[0], mdp.ceilings[0], log_size(mdp, rounds)
    scales = v_max * np.sqrt(mdp.rank)  # B_X ≤ 1, as X is a mean of distributions; B_W ≤ V_max √d

    def deviation(k: float, count: int) -> float:
        return 16 * v_max * np.sqrt((np.log(2 * horizon * k / delta) + size) / count)

    def online(k: float, rank: int) -> float:
        return (deviation(k, tuples[1]) + scales) * horizon * np.sqrt(2 * rank * k * np.log1p(k / rank)) if k else 0.0

    below = rounds - above
    offline = transfer * above * np.sqrt(horizon) * deviation(above, tuples[0]) if above else 0.0
    return float(below * gap + offline + online(above, ranks[0]) + online(below, ranks[1]))


def arms(
    mdp: MDP, *, transfer: float, gap: float, rounds: int, ranks: tuple[int, int], delta: float
) -> tuple[float, float]:
    """The two quantities whose minimum is the bound of Theorem E.5, without constants; arguments as `regret_bound`.

    The first depends on the coverage of the data, C^ref H √(d K log(|F|/δ)); the second on the reference policy,
    K (V* − V^ref) + H √(d_ref K log(|F|/δ)).
    """
    deviation = mdp.shape[0] * np.sqrt(rounds * (log_size(mdp, rounds) + np.log(1 / delta)))
    return float(transfer * np.sqrt(ranks[0]) * deviation), float(rounds * gap + np.sqrt(ranks[1]) * deviation)
