"""Episodes → transitions, for recorded data and online experience alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calql.data.arrays import all_states
from calql.rewards import Rewards
from calql.types import Episode, Transition


def to_transitions(
    episodes: Sequence[Episode],
    rewards: Rewards,
    discount: float,
    *,
    action_clip: float | None = 0.99999,
    tail_bootstrap: bool = False,
    sequences: bool = False,
) -> Transition:
    """All steps of the episodes, in order, as one Transition of [N, …] NumPy arrays.

    Args:
        episodes: with raw rewards.
        rewards: the reward map and the rule of returns: see `Rewards.returns`.
        discount: γ of the returns.
        action_clip: actions are clipped to ± this, so that their density under a tanh policy is finite (for data; the
            value is the official one). None: actions are not clipped (the policy's own).
        tail_bootstrap: see `Rewards.returns`.
        sequences: also include returns-to-go and step numbers.
    """
    mapped = [np.asarray(rewards.map(e.rewards), np.float32) for e in episodes]
    actions = np.concatenate([e.actions for e in episodes]).astype(np.float32, copy=False)
    made = Transition(
        observations=all_states(episodes, slice(None, -1)),
        actions=actions if action_clip is None else np.clip(actions, -action_clip, action_clip),
        rewards=np.concatenate(mapped),
        next_observations=all_states(episodes, slice(1, None)),
        masks=1.0 - np.concatenate([e.terminations for e in episodes]).astype(np.float32),
        returns=returns_of(episodes, rewards, discount, tail_bootstrap),
    )
    if not sequences:
        return made
    return made._replace(
        to_go=np.concatenate([np.cumsum(r[::-1])[::-1].astype(np.float32) for r in mapped]),
        timesteps=np.concatenate([np.arange(len(r), dtype=np.int32) for r in mapped]),
    )


def returns_of(
    episodes: Sequence[Episode], rewards: Rewards, discount: float, tail_bootstrap: bool = False
) -> np.ndarray:
    """Monte-Carlo returns of all steps of the episodes, [N] float32: see `Rewards.returns`."""
    return np.concatenate([rewards.returns(e.rewards, e.terminations, discount, tail_bootstrap) for e in episodes])
