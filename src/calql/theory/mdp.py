"""Finite-horizon MDPs that are known exactly, and their solution by dynamic programming (Appendix E.1, E.2).

Functions f and policies π are arrays [..., H, S, A] (step, state, action); leading axes are independent runs. A policy
is an array of probabilities. Rewards are random, 0 or 1.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

Array = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class MDP:
    """An MDP with H steps, S states, A actions, and features in which T f is linear for every f."""

    transitions: Array
    """[H, S, A, S] probabilities of the next state."""
    rewards: Array
    """[H, S, A] probability that the reward is 1, and so the mean reward."""
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
        """The bilinear rank d (Definition E.2) of the class of all f that are linear in the features.

        E_{d^π}[g_h − T g_{h+1}] = ⟨X_h, W_h⟩ with X_h = E_{d^π} φ and W_h the difference of the two weights.
        """
        _, states, actions = self.shape
        return states * actions if self.features is None else self.features.shape[-1]

    @cached_property
    def ceilings(self) -> Array:
        """[H] largest possible sum of rewards from step h on, at h = 0 V_max. f ≤ ceiling implies T f ≤ ceiling."""
        possible = np.any(self.rewards > 0, axis=(1, 2))
        return np.cumsum(possible[::-1])[::-1].astype(float)


# -- exact values ------------------------------------------------------------------------------------------------------


def bellman(mdp: MDP, f: Array) -> Array:
    """T f (Eq. E.4) at all steps, with f_H = 0: [..., H, S, A] → [..., H, S, A]."""
    best = f.max(axis=-1)
    next_value = np.concatenate([best[..., 1:, :], np.zeros_like(best[..., :1, :])], axis=-2)
    return mdp.rewards + np.einsum("hsat,...ht->...hsa", mdp.transitions, next_value)


def optimal_q(mdp: MDP) -> Array:
    """Q* [H, S, A], by backward induction."""
    return _backward(mdp, lambda q, h: q.max(axis=-1))


def policy_q(mdp: MDP, policy: Array) -> Array:
    """Q^π (Eq. E.3) of policies [..., H, S, A]: [..., H, S, A]."""
    return _backward(mdp, lambda q, h: (policy[..., h, :, :] * q).sum(axis=-1), policy.shape[:-3])


def _backward(mdp: MDP, value_of, batch: tuple[int, ...] = ()) -> Array:
    """Q [..., H, S, A] by backward induction; `value_of(Q_h, h)` gives the values [..., S] of the states at step h."""
    horizon = mdp.shape[0]
    q, next_value = np.zeros((*batch, *mdp.shape)), np.zeros((*batch, mdp.shape[1]))
    for h in reversed(range(horizon)):
        q[..., h, :, :] = mdp.rewards[h] + np.einsum("sat,...t->...sa", mdp.transitions[h], next_value)
        next_value = value_of(q[..., h, :, :], h)
    return q


def greedy(f: Array) -> Array:
    """The greedy policy π^f: the first of the actions with the largest f. [..., H, S, A] → [..., H, S, A]."""
    return (f.argmax(axis=-1)[..., None] == np.arange(f.shape[-1])).astype(float)


def value(mdp: MDP, policy: Array) -> Array:
    """E_ρ V^π of policies [..., H, S, A]: [...]."""
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
    """A reference policy [H, S, A] that takes an optimal action, or with probability `mistakes` the worst action."""
    q = optimal_q(mdp)
    return (1 - mistakes) * greedy(q) + mistakes * greedy(-q)


def offline_distribution(mdp: MDP, policy: Array, width: float) -> Array:
    """ν [H, S, A]: the occupancy of a policy, mixed with a share `width` of the uniform distribution over (s, a)."""
    _, states, actions = mdp.shape
    return (1 - width) * occupancy(mdp, policy) + width / (states * actions)


# -- the MDPs of the experiment ----------------------------------------------------------------------------------------


def combination_lock(horizon: int = 8, actions: int = 4, consolation: float = 0.1, seed: int = 0) -> MDP:
    """Combination lock (after Song et al. 2023): at every step one action is correct, and every other action leads to
    an absorbing state.

    The last correct action has the reward 1 with probability 0.9. In the absorbing state every step has the reward 1
    with probability `consolation`, which makes this state look better to a learner with little data. Transitions are
    deterministic. State 0: all actions so far were correct; state 1: absorbing.
    """
    code = np.random.default_rng(seed).integers(actions, size=horizon)
    correct = code[:, None] == np.arange(actions)
    transitions, rewards = np.zeros((horizon, 2, actions, 2)), np.zeros((horizon, 2, actions))
    transitions[:, 0, :, 0], transitions[:, 0, :, 1] = correct, ~correct
    transitions[:, 1, :, 1] = 1
    rewards[:, 1] = consolation
    rewards[-1, 0] = 0.9 * correct[-1]
    return MDP(transitions, rewards, np.array([1.0, 0.0]))


MAZE = """
....
.##.
.#..
...G
"""


def maze(plan: str = MAZE, horizon: int = 10, slip: float = 0.1) -> MDP:
    """A maze with an absorbing goal G: the reward is 1 with probability 0.5 at the goal, and 0.05 elsewhere.

    In `plan`, `#` is a wall; episodes start in the upper left corner. The four actions are right, down, left and up;
    with probability `slip` another action is taken. A move into a wall leaves the state unchanged.
    """
    rows = plan.split()
    cells = [(i, j) for i, row in enumerate(rows) for j, symbol in enumerate(row) if symbol != "#"]
    number, goal = {cell: n for n, cell in enumerate(cells)}, plan.replace("#", "").replace("\n", "").index("G")
    moved = np.zeros((len(cells), 4, len(cells)))
    for (i, j), n in number.items():
        for a, (down, right) in enumerate([(0, 1), (1, 0), (0, -1), (-1, 0)]):
            moved[n, a, number.get((i + down, j + right), n)] = 1
    moved = (1 - slip) * moved + slip / 3 * (moved.sum(axis=1, keepdims=True) - moved)
    moved[goal] = np.eye(len(cells))[goal]
    rewards = np.full((len(cells), 4), 0.05)
    rewards[goal] = 0.5
    return MDP(np.tile(moved, (horizon, 1, 1, 1)), np.tile(rewards, (horizon, 1, 1)), np.eye(len(cells))[0])


def linear_mdp(states: int = 12, actions: int = 3, rank: int = 4, horizon: int = 6, seed: int = 0) -> MDP:
    """A random linear MDP of rank d = `rank`: next-state distribution and mean reward of every pair (s, a) are mixtures
    of d components, with the features [S, A, d] as weights."""
    random = np.random.default_rng(seed)
    features = random.dirichlet(np.full(rank, 0.3), size=(states, actions))
    next_states = random.dirichlet(np.full(states, 0.2), size=(horizon, rank))
    rewards = random.uniform(0, 0.5, (horizon, rank))
    return MDP(
        np.einsum("sad,hdt->hsat", features, next_states),
        np.einsum("sad,hd->hsa", features, rewards),
        random.dirichlet(np.ones(states)),
        features,
    )
