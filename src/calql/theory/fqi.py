"""Algorithm 2 of the paper: fitted Q iteration on offline and online data, in a function class, with a reference.

Without the class's pessimistic ceiling and without the reference it is Hy-Q (Song et al. 2023, Algorithm 1).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from calql.theory.mdp import MDP, Array, greedy, occupancy, value


@dataclasses.dataclass(frozen=True)
class Learner:
    """The parts of Algorithm 2 that are in use."""

    name: str
    pessimistic: bool
    """Whether the class is the conservative one (line 8): f ≤ Q^{π^e} instead of f ≤ V_max."""
    calibrated: bool
    """Whether f ← max(f, Q^ref) (line 9)."""
    offline: bool = True
    """Whether offline data are used."""
    online: bool = True
    """Whether online data are used."""


@dataclasses.dataclass
class Data:
    """Counts of tuples (s, a, r, s′) per step, which is all that least squares needs. Leading axes are runs."""

    counts: Array
    """[..., H, S, A, S] number of tuples."""
    paid: Array
    """[..., H, S, A] sum of rewards."""

    @classmethod
    def none(cls, mdp: MDP, *batch: int) -> Data:
        """No tuples."""
        return cls(np.zeros((*batch, *mdp.shape, mdp.shape[1])), np.zeros((*batch, *mdp.shape)))

    def __add__(self, other: Data) -> Data:
        return Data(self.counts + other.counts, self.paid + other.paid)


def sample(mdp: MDP, distribution: Array, uniforms: Array) -> Data:
    """Independent tuples (s, a) ~ d_h, r ~ R(s, a), s′ ~ P(s, a) for every step h.

    Args:
        mdp: the world.
        distribution: d [..., H, S, A].
        uniforms: [..., H, M, 3] numbers in [0, 1) that determine M tuples per step.
    """
    horizon, _, actions = mdp.shape
    cells = _draw(distribution.reshape(*distribution.shape[:-2], -1), uniforms[..., 0])
    steps = np.arange(horizon)[:, None]
    s, a = cells // actions, cells % actions
    rewards = uniforms[..., 1] < mdp.rewards[steps, s, a]
    following = _draw(mdp.transitions[steps, s, a], uniforms[..., 2, None])[..., 0]
    data = Data.none(mdp, *uniforms.shape[:-3])
    runs = np.indices(cells.shape, sparse=True)[:-2]
    np.add.at(data.counts, (*runs, steps, s, a, following), 1.0)
    np.add.at(data.paid, (*runs, steps, s, a), rewards)
    return data


def _draw(probabilities: Array, uniforms: Array) -> Array:
    """[..., N] probabilities, [..., M] numbers in [0, 1) → [..., M] indices."""
    edges = np.cumsum(probabilities, axis=-1)
    drawn = (uniforms[..., None] >= edges[..., None, :]).sum(axis=-1)
    last = probabilities.shape[-1] - 1 - (probabilities[..., ::-1] > 0).argmax(axis=-1)  # rounding: edges may end < 1
    return np.minimum(drawn, last[..., None])


def fit_q(mdp: MDP, data: Data, ceiling: Array, reference: Array | None = None) -> Array:
    """Lines 6 to 10 of Algorithm 2: f [..., H, S, A] from the last step to the first.

    Args:
        mdp: the world, of which only the features are used.
        data: all data so far. Every tuple counts the same, as Lemma F.4 requires.
        ceiling: [H, S, A], linear in the features: the class is all f with weights between 0 and the ceiling's.
        reference: Q^ref [H, S, A], or None: line 9 is skipped.
    """
    f = np.zeros((*data.paid.shape[:-3], *mdp.shape))
    following = np.zeros((*data.paid.shape[:-3], mdp.shape[1]))
    for h in reversed(range(mdp.shape[0])):
        counts = data.counts[..., h, :, :, :]
        targets = data.paid[..., h, :, :] + np.einsum("...sat,...t->...sa", counts, following)  # sums
        f[..., h, :, :] = least_squares(mdp.features, counts.sum(axis=-1), targets, ceiling[h])
        if reference is not None:
            f[..., h, :, :] = np.maximum(f[..., h, :, :], reference[h])
        following = f[..., h, :, :].max(axis=-1)
    return f


def least_squares(features: Array | None, counts: Array, targets: Array, ceiling: Array) -> Array:
    """The f in the class that is nearest to the targets (Eq. E.1); 0 where there are none.

    Args:
        features: [S, A, d], or None: a table.
        counts: [..., S, A] numbers of targets.
        targets: [..., S, A] sums of targets.
        ceiling: [S, A].
    """
    if features is None:
        return np.clip(targets / np.maximum(counts, 1e-300), 0.0, ceiling)
    rows = features.reshape(-1, features.shape[-1])
    most = np.linalg.lstsq(rows, ceiling.ravel(), rcond=None)[0]
    gram = np.einsum("...n,nd,ne->...de", counts.reshape(*counts.shape[:-2], -1), rows, rows)
    aim = targets.reshape(*targets.shape[:-2], -1) @ rows
    weights = bounded_minimum(gram, aim, most)
    return np.einsum("sad,...d->...sa", features, weights)


def bounded_minimum(gram: Array, aim: Array, most: Array, sweeps: int = 500, accuracy: float = 1e-6) -> Array:
    """argmin ½ w·G·w − b·w over 0 ≤ w ≤ most, by coordinate descent: [..., d].

    G [..., d, d] is positive semidefinite. Starts at the unbounded minimum of least norm, clipped, and stops when no
    coordinate moves by more than `accuracy`, or after `sweeps`.
    """
    weights = np.clip(np.einsum("...de,...e->...d", np.linalg.pinv(gram, hermitian=True), aim), 0.0, most)
    curvature = np.einsum("...dd->...d", gram)
    seen, step = curvature > 0, 1 / np.maximum(curvature, 1e-300)
    for _ in range(sweeps):
        before = weights.copy()
        for i, highest in enumerate(most):
            slope = aim[..., i] - np.matmul(gram[..., i, None, :], weights[..., None])[..., 0, 0]
            moved = np.minimum(np.maximum(weights[..., i] + step[..., i] * slope, 0.0), highest)
            weights[..., i] = np.where(seen[..., i], moved, 0.0)
        if np.abs(weights - before).max() <= accuracy:
            break
    return weights


@dataclasses.dataclass
class Trace:
    """Record of K rounds of N runs."""

    values: Array
    """[N, K] E_ρ V^{π^k}."""
    estimates: Array
    """[N, K] E_ρ max_a f_0^k."""
    above: Array
    """[N, K] share of first states with max_a f_0^k > V^ref: the rounds that K₁ counts; K₂ counts the others."""
    ranks: Array
    """[2, N] the most linearly independent X_h(f^k) of one h, among the rounds of K₁ and among those of K₂."""


def fine_tune(mdp: MDP, learner: Learner, offline: Data, reference: Array, ceiling: Array, uniforms: Array) -> Trace:
    """Algorithm 2: K rounds of N parallel runs. f^1 is 0 (line 2), so the first policy is uninformed.

    Args:
        mdp: the world; the learner only sees samples of it.
        learner: the parts of the algorithm in use.
        offline: the offline data of N runs.
        reference: Q^ref [H, S, A].
        ceiling: Q^{π^e} [H, S, A], of the pessimistic class.
        uniforms: [N, K, H, m_on, 3] numbers in [0, 1) that determine the online data.
    """
    runs, rounds = uniforms.shape[:2]
    class_ceiling = ceiling if learner.pessimistic else np.broadcast_to(mdp.ceilings[:, None, None], mdp.shape)
    known = offline if learner.offline else Data.none(mdp, runs)
    best = reference[0].max(axis=-1)
    values, estimates, share_above = np.zeros((3, runs, rounds))
    x = np.zeros((runs, mdp.shape[0], rounds, mdp.rank))
    f = np.zeros((runs, *mdp.shape))
    for k in range(rounds):
        policy = greedy(f)
        visited = occupancy(mdp, policy)
        first = f[:, 0].max(axis=-1)
        above = first > best + 1e-12
        values[:, k] = value(mdp, policy)
        estimates[:, k], share_above[:, k] = first @ mdp.start, above @ mdp.start
        x[:, :, k] = directions(mdp, visited)
        if learner.online:
            known = known + sample(mdp, visited, uniforms[:, k])
        if learner.online or k == 0:
            f = fit_q(mdp, known, class_ceiling, reference if learner.calibrated else None)
    spans = [x * chosen[:, None, :, None] for chosen in (share_above > 0, share_above < 1)]
    grams = np.stack([np.matmul(span.swapaxes(-1, -2), span) for span in spans])
    return Trace(values, estimates, share_above, np.linalg.matrix_rank(grams, hermitian=True).max(axis=-1))


def directions(mdp: MDP, visited: Array) -> Array:
    """X_h(f) of Definition E.2: the mean features under d^{π^f}, [..., H, d]."""
    if mdp.features is None:
        return visited.reshape(*visited.shape[:-2], -1)
    return np.einsum("...hsa,sad->...hd", visited, mdp.features)
