"""Monte-Carlo returns: the reference value of Cal-QL (Sec. 4.1, Def. 4.1), for recorded and for online episodes.

The rules are those of the official release (`nakamotoo/Cal-QL:replay_buffer.py`, `calc_return_to_go`).
"""

from __future__ import annotations

import numpy as np


def monte_carlo_returns(
    rewards: np.ndarray,
    terminations: np.ndarray,
    discount: float,
    failure_reward: float | None = None,
    tail_bootstrap: bool = False,
) -> np.ndarray:
    """Discounted return-to-go of every step of one episode, [T] float32.

    Args:
        rewards: [T] mapped rewards (the task's scale and bias already applied).
        terminations: [T] bool; nothing is summed across a termination. A time-out is not one.
        discount: γ in [0, 1).
        failure_reward: mapped reward of a failing step of a sparse task. If *every* reward of the episode equals it, a
            policy like this one would fail for ever, and each step gets failure_reward / (1 − γ).
        tail_bootstrap: value the state after a last step that is no termination as r_last / (1 − γ) instead of 0: what
            has been reached lasts (the co-authors' kitchen runs, `MaxSobolMark/OOO:OOO_for_calql/replay_buffer.py`).
    """
    rewards = np.asarray(rewards, np.float64)
    if failure_reward is not None and np.allclose(rewards, failure_reward):
        return np.full(rewards.shape, failure_reward / (1.0 - discount), np.float32)
    value = float(rewards[-1]) / (1.0 - discount) if tail_bootstrap else 0.0
    returns = []
    for reward, terminated in zip(rewards[::-1].tolist(), np.asarray(terminations)[::-1].tolist(), strict=True):
        value = reward + (0.0 if terminated else discount * value)
        returns.append(value)
    return np.array(returns[::-1], np.float32)


def to_go_and_timesteps(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undiscounted sums from each step to the end of an episode [T], and the steps' numbers [T] int32."""
    return np.cumsum(rewards[::-1])[::-1].astype(np.float32), np.arange(len(rewards), dtype=np.int32)
