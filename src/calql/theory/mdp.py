"""Finite-horizon MDPs that are known exactly, and their solution by dynamic programming (Appendix E.1, E.2).

Functions f and policies π are arrays [..., H, S, A] (step, state, action); leading axes are independent problems, so
that many runs are computed in parallel. A policy holds probabilities. Rewards are 0 or 1 at random; `rewards` holds the
means.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class MDP:
    """A world of H steps, S states and A actions, with features in which every T f is linear."""

    transitions: Array
    """[H, S, A, S] probabilities of the next state."""
    rewards: Array
    """[H, S, A] probability that the reward is 1."""
    start: Array
    """[S] probabilities of the first state, ρ."""
    features: Array | None = None
    """[S, A, d], each a distribution over d; None: one feature per state and action (a table)."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """H, S, A."""
        return self.rewards.shape

    @property
    def rank(self) -> int:
        """d: the bilinear rank (Definition E.2) of the class of all f that are linear in the features.

        E_{d^π}[g_h − T g_{h+1}] = ⟨X_h, W_h⟩ with X_h = E_{d^π} φ and W_h the difference of the two weights.
        """
        _, states, actions = self.shape
        return states * actions if self.features is None else self.features.shape[-1]

    @cached_property
    def ceilings(self) -> Array:
        """[H] the largest sum of rewards from step h on, V_max at h = 0: f ≤ ceiling implies T f ≤ ceiling."""
        possible = np.any(self.rewards > 0, axis=(1, 2))
        return np.cumsum(possible[::-1])[::-1].astype(float)


# -- exact values ------------------------------------------------------------------------------------------------------


def bellman(mdp: MDP, f: Array) -> Array:
    """T f (Eq. E.4) for all h: [..., H, S, A] → the same shape, with f_H = 0."""
    best = f.max(axis=-1)
    following = np.concatenate([best[..., 1:, :], np.zeros_like(best[..., :1, :])], axis=-2)
    return mdp.rewards + np.einsum("hsat,...ht->...hsa", mdp.transitions, following)


def optimal_q(mdp: MDP) -> Array:
    """Q* [H, S, A], by backward induction."""
    return _backward(mdp, lambda q, h: q.max(axis=-1))


def policy_q(mdp: MDP, policy: Array) -> Array:
    """Q^π (Eq. E.3) of policies [..., H, S, A]."""
    return _backward(mdp, lambda q, h: (policy[..., h, :, :] * q).sum(axis=-1), policy.shape[:-3])


def _backward(mdp: MDP, value_of, batch: tuple[int, ...] = ()) -> Array:
    horizon = mdp.shape[0]
    q, following = np.zeros((*batch, *mdp.shape)), np.zeros((*batch, mdp.shape[1]))
    for h in reversed(range(horizon)):
        q[..., h, :, :] = mdp.rewards[h] + np.einsum("sat,...t->...sa", mdp.transitions[h], following)
        following = value_of(q[..., h, :, :], h)
    return q


def greedy(f: Array) -> Array:
    """π^f: deterministically the first of the best actions. [..., H, S, A]."""
    return (f.argmax(axis=-1)[..., None] == np.arange(f.shape[-1])).astype(float)


def value(mdp: MDP, policy: Array) -> Array:
    """E_ρ V^π: [...]."""
    q = policy_q(mdp, policy)[..., 0, :, :]
    return ((policy[..., 0, :, :] * q).sum(axis=-1) * mdp.start).sum(axis=-1)


def occupancy(mdp: MDP, policy: Array) -> Array:
    """d_h^π: the probability of each state and action at each step, [..., H, S, A]."""
    d = np.zeros((*policy.shape[:-3], *mdp.shape))
    states = np.broadcast_to(mdp.start, (*policy.shape[:-3], mdp.shape[1]))
    for h in range(mdp.shape[0]):
        d[..., h, :, :] = states[..., None] * policy[..., h, :, :]
        states = np.einsum("...sa,sat->...t", d[..., h, :, :], mdp.transitions[h])
    return d


def mixed(mdp: MDP, mistakes: float) -> Array:
    """A reference policy: an optimal action, or with probability `mistakes` the worst. [H, S, A]."""
    q = optimal_q(mdp)
    return (1 - mistakes) * greedy(q) + mistakes * greedy(-q)


def offline_distribution(mdp: MDP, policy: Array, width: float) -> Array:
    """ν_h: the occupancy of a policy, mixed with a share `width` of uniform states and actions. [H, S, A]."""
    _, states, actions = mdp.shape
    return (1 - width) * occupancy(mdp, policy) + width / (states * actions)


# -- worlds ------------------------------------------------------------------------------------------------------------


def combination_lock(horizon: int = 8, actions: int = 4, consolation: float = 0.1, seed: int = 0) -> MDP:
    """One right action per step leads on, every other action to an absorbing state (after Song et al. 2023).

    The last right action pays 1 with probability 0.9. In the absorbing state every step pays 1 with probability
    `consolation`, which looks better to a learner with little data. Transitions are deterministic. States: on the
    way, lost.
    """
    code = np.random.default_rng(seed).integers(actions, size=horizon)
    right = code[:, None] == np.arange(actions)
    transitions, rewards = np.zeros((horizon, 2, actions, 2)), np.zeros((horizon, 2, actions))
    transitions[:, 0, :, 0], transitions[:, 0, :, 1] = right, ~right
    transitions[:, 1, :, 1] = 1
    rewards[:, 1] = consolation
    rewards[-1, 0] = 0.9 * right[-1]
    return MDP(transitions, rewards, np.array([1.0, 0.0]))


MAZE = """
....
.##.
.#..
...G
"""


def maze(plan: str = MAZE, horizon: int = 10, slip: float = 0.1) -> MDP:
    """A maze with an absorbing goal G: a step there pays 1 with probability 0.5, a step elsewhere with 0.05.

    `plan`: `#` is a wall; episodes start in the upper left corner. The four actions are right, down, left and up; with
    probability `slip` another action is taken; walls block. G is never left.
    """
    rows = plan.split()
    cells = [(i, j) for i, row in enumerate(rows) for j, sign in enumerate(row) if sign != "#"]
    number, goal = {cell: n for n, cell in enumerate(cells)}, plan.replace("#", "").replace("\n", "").index("G")
    moved = np.zeros((len(cells), 4, len(cells)))
    for (i, j), n in number.items():
        for a, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)]):
            moved[n, a, number.get((i + down, j + right), n)] = 1
    moved = (1 - slip) * moved + slip / 3 * (moved.sum(axis=1, keepdims=True) - moved)
    moved[goal] = np.eye(len(cells))[goal]
    pay = np.full((len(cells), 4), 0.05)
    pay[goal] = 0.5
    return MDP(np.tile(moved, (horizon, 1, 1, 1)), np.tile(pay, (horizon, 1, 1)), np.eye(len(cells))[0])


def linear_mdp(states: int = 12, actions: int = 3, rank: int = 4, horizon: int = 6, seed: int = 0) -> MDP:
    """Every state and action is a mixture of `rank` kinds, each with its own next states and reward: rank d."""
    random = np.random.default_rng(seed)
    features = random.dirichlet(np.full(rank, 0.3), size=(states, actions))
    kinds = random.dirichlet(np.full(states, 0.2), size=(horizon, rank))
    pay = random.uniform(0, 0.5, (horizon, rank))
    return MDP(
        np.einsum("sad,hdt->hsat", features, kinds),
        np.einsum("sad,hd->hsa", features, pay),
        random.dirichlet(np.ones(states)),
        features,
    )
