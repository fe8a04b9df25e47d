"""Algorithm 2 of the paper: fitted Q-iteration on offline and online data, with a pessimistic function class and a
reference policy.

Without the pessimistic class and without the reference policy, this is Hy-Q (Song et al. 2023, Algorithm 1).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from calql.theory.mdp import MDP, Array, greedy, occupancy, value


@dataclasses.dataclass(frozen=True)
class Learner:
    """The parts of Algorithm 2 that a learner uses."""

    name: str
    """Name in tables and figures."""
    pessimistic: bool
    """Whether functions of the class are bounded by f ≤ Q^{π^e} (line 8) instead of f ≤ V_max."""
    calibrated: bool
    """Whether f is replaced by max(f, Q^ref) (line 9)."""
    offline: bool = True
    """Whether offline data are used."""
    online: bool = True
    """Whether online data are used."""


@dataclasses.dataclass
class Data:
    """Tuples (s, a, r, s′) of every step, as the counts and sums that least squares needs. Leading axes are runs."""

    counts: Array
    """[..., H, S, A, S] number of tuples."""
    reward_sums: Array
    """[..., H, S, A] sum of rewards."""

    @classmethod
    def none(cls, mdp: MDP, *batch: int) -> Data:
        """No tuples."""
        return cls(np.zeros((*batch, *mdp.shape, mdp.shape[1])), np.zeros((*batch, *mdp.shape)))

    def __add__(self, other: Data) -> Data:
        return Data(self.counts + other.counts, self.reward_sums + other.reward_sums)


def sample(mdp: MDP, distribution: Array, uniforms: Array) -> Data:
    """Independent tuples (s, a) ~ d_h, r ~ R(s, a), s′ ~ P(s, a) for every step h.

    Args:
        mdp: the MDP.
        distribution: d [..., H, S, A].
        uniforms: [..., H, M, 3] numbers in [0, 1) that determine M tuples per step.
    """
    horizon, _, actions = mdp.shape
    pairs = _draw(distribution.reshape(*distribution.shape[:-2], -1), uniforms[..., 0])
    steps = np.arange(horizon)[:, None]
    s, a = pairs // actions, pairs % actions
    rewards = uniforms[..., 1] < mdp.rewards[steps, s, a]
    next_s = _draw(mdp.transitions[steps, s, a], uniforms[..., 2, None])[..., 0]
    data = Data.none(mdp, *uniforms.shape[:-3])
    runs = np.indices(pairs.shape, sparse=True)[:-2]
    np.add.at(data.counts, (*runs, steps, s, a, next_s), 1.0)
    np.add.at(data.reward_sums, (*runs, steps, s, a), rewards)
    return data


def _draw(probabilities: Array, uniforms: Array) -> Array:
    """Indices [..., M] drawn with probabilities [..., N] by inverting their cumulative sum at numbers [..., M] in
    [0, 1)."""
    cumulative = np.cumsum(probabilities, axis=-1)
    drawn = (uniforms[..., None] >= cumulative[..., None, :]).sum(axis=-1)
    # Rounding errors may leave the cumulative sum below 1.
    last = probabilities.shape[-1] - 1 - (probabilities[..., ::-1] > 0).argmax(axis=-1)
    return np.minimum(drawn, last[..., None])


def fit_q(mdp: MDP, data: Data, ceiling: Array, reference: Array | None = None) -> Array:
    """Lines 6 to 10 of Algorithm 2: f [..., H, S, A], computed from the last step to the first.

    Args:
        mdp: the MDP, of which only the features are used.
        data: all data so far. All tuples have the same weight, as Lemma F.4 requires.
        ceiling: [H, S, A], a linear function of the features. The class contains all f whose weights are between 0 and
            the weights of the ceiling.
        reference: Q^ref [H, S, A]; None: line 9 is skipped.
    """
    f = np.zeros((*data.reward_sums.shape[:-3], *mdp.shape))
    next_value = np.zeros((*data.reward_sums.shape[:-3], mdp.shape[1]))
    for h in reversed(range(mdp.shape[0])):
        counts = data.counts[..., h, :, :, :]
        targets = data.reward_sums[..., h, :, :] + np.einsum("...sat,...t->...sa", counts, next_value)  # sums
        f[..., h, :, :] = least_squares(mdp.features, counts.sum(axis=-1), targets, ceiling[h])
        if reference is not None:
            f[..., h, :, :] = np.maximum(f[..., h, :, :], reference[h])
        next_value = f[..., h, :, :].max(axis=-1)
    return f


def least_squares(features: Array | None, counts: Array, targets: Array, ceiling: Array) -> Array:
    """The f [..., S, A] in the class with the smallest squared error on the targets (Eq. E.1); 0 without targets.

    Args:
        features: [S, A, d]; None: a table.
        counts: [..., S, A] numbers of targets.
        targets: [..., S, A] sums of targets.
        ceiling: [S, A], see `fit_q`.
    """
    if features is None:
        return np.clip(targets / np.maximum(counts, 1e-300), 0.0, ceiling)
    rows = features.reshape(-1, features.shape[-1])
    upper = np.linalg.lstsq(rows, ceiling.ravel(), rcond=None)[0]
    gram = np.einsum("...n,nd,ne->...de", counts.reshape(*counts.shape[:-2], -1), rows, rows)
    b = targets.reshape(*targets.shape[:-2], -1) @ rows
    weights = bounded_minimum(gram, b, upper)
    return np.einsum("sad,...d->...sa", features, weights)


def bounded_minimum(gram: Array, b: Array, upper: Array, sweeps: int = 500, accuracy: float = 1e-6) -> Array:
    """argmin ½ w·G·w − b·w over 0 ≤ w ≤ upper, by coordinate descent: [..., d].

    G = `gram` [..., d, d] is positive semidefinite, `b` is [..., d], `upper` [d]. Starts from the unconstrained minimum
    of least norm, clipped, and stops when no coordinate changes by more than `accuracy`, or after `sweeps` sweeps over
    the coordinates.
    """
    weights = np.clip(np.einsum("...de,...e->...d", np.linalg.pinv(gram, hermitian=True), b), 0.0, upper)
    curvature = np.einsum("...dd->...d", gram)
    seen, step = curvature > 0, 1 / np.maximum(curvature, 1e-300)
    for _ in range(sweeps):
        before = weights.copy()
        for i, bound in enumerate(upper):
            slope = b[..., i] - np.matmul(gram[..., i, None, :], weights[..., None])[..., 0, 0]
            moved = np.minimum(np.maximum(weights[..., i] + step[..., i] * slope, 0.0), bound)
            weights[..., i] = np.where(seen[..., i], moved, 0.0)
        if np.abs(weights - before).max() <= accuracy:
            break
    return weights


@dataclasses.dataclass
class Trace:
    """Record of K rounds of N runs."""

    values: Array
    """[N, K] E_ρ V^{π^k}, the value of the policy."""
    estimates: Array
    """[N, K] E_ρ max_a f_0^k, the learner's estimate of this value."""
    above: Array
    """[N, K] probability that max_a f_0^k > V^ref in the first state: K₁ is its sum over rounds, and K₂ = K − K₁."""
    ranks: Array
    """[2, N] ranks of the X_h(f^k) over the rounds of K₁ and over those of K₂, each maximal over h."""


def fine_tune(mdp: MDP, learner: Learner, offline: Data, reference: Array, ceiling: Array, uniforms: Array) -> Trace:
    """Algorithm 2: K rounds of N parallel runs. As f^1 is 0 (line 2), the first policy does not depend on the data.

    Args:
        mdp: the MDP, which the learner knows only from samples.
        learner: the parts of the algorithm that are used.
        offline: the offline data of N runs.
        reference: Q^ref [H, S, A].
        ceiling: Q^{π^e} [H, S, A], upper bound of the pessimistic class.
        uniforms: [N, K, H, m_on, 3] numbers in [0, 1) that determine the online data.
    """
    runs, rounds = uniforms.shape[:2]
    class_ceiling = ceiling if learner.pessimistic else np.broadcast_to(mdp.ceilings[:, None, None], mdp.shape)
    data = offline if learner.offline else Data.none(mdp, runs)
    reference_value = reference[0].max(axis=-1)
    values, estimates, share_above = np.zeros((3, runs, rounds))
    x = np.zeros((runs, mdp.shape[0], rounds, mdp.rank))
    f = np.zeros((runs, *mdp.shape))
    for k in range(rounds):
        policy = greedy(f)
        visited = occupancy(mdp, policy)
        estimate = f[:, 0].max(axis=-1)
        above = estimate > reference_value + 1e-12
        values[:, k] = value(mdp, policy)
        estimates[:, k], share_above[:, k] = estimate @ mdp.start, above @ mdp.start
        x[:, :, k] = directions(mdp, visited)
        if learner.online:
            data = data + sample(mdp, visited, uniforms[:, k])
        if learner.online or k == 0:
            f = fit_q(mdp, data, class_ceiling, reference if learner.calibrated else None)
    spans = [x * chosen[:, None, :, None] for chosen in (share_above > 0, share_above < 1)]
    grams = np.stack([np.matmul(span.swapaxes(-1, -2), span) for span in spans])
    return Trace(values, estimates, share_above, np.linalg.matrix_rank(grams, hermitian=True).max(axis=-1))


def directions(mdp: MDP, visited: Array) -> Array:
    """X_h(f) of Definition E.2: the mean features [..., H, d] under the occupancy d^{π^f}, `visited` [..., H, S, A]."""
    if mdp.features is None:
        return visited.reshape(*visited.shape[:-2], -1)
    return np.einsum("...hsa,sad->...hd", visited, mdp.features)
