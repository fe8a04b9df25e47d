"""Experience at rest: whole episodes, checked once when they are made, turned into transitions on demand.

Whatever was done to the recording on the way here is said in `Episodes.notes`, never silently.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from calql.data.arrays import checked, first_steps, layout, map_leaves, named_leaves
from calql.data.returns import monte_carlo_returns, to_go_and_timesteps
from calql.tasks import Task
from calql.types import Episode, InputError, PyTree, Spec, Transition


@dataclasses.dataclass(frozen=True)
class Episodes:
    """A data set: episodes as recorded, canonical in dtype (float32, uint8 images, bool) and known to be sound.

    Raises InputError when it is made of no episodes, of shapes that disagree, or of numbers that are not finite.
    """

    episodes: tuple[Episode, ...]
    """In the order of the recording; error messages count them, and their steps, from 0."""
    reference: str = "memory"
    """Where they came from, e.g. `d4rl:door.hdf5`."""
    notes: tuple[str, ...] = ()
    """What a reader noticed or did, one plain sentence each."""

    def __post_init__(self) -> None:
        if not self.episodes:
            raise InputError(f"{self.reference}: there is not one whole episode in it; record or build more data")
        episodes = tuple(checked(f"{self.reference}: episode {i}", e) for i, e in enumerate(self.episodes))
        expected = layout(episodes[0])
        for i, episode in enumerate(episodes):
            if (found := layout(episode)) != expected:
                raise InputError(
                    f"{self.reference}: a step of episode {i} holds {found}, of episode 0 {expected}; "
                    "all episodes must share their keys, shapes and dtypes"
                )
        object.__setattr__(self, "episodes", episodes)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    @property
    def num_transitions(self) -> int:
        """Number of steps of all episodes together."""
        return sum(episode.length for episode in self.episodes)

    def spec(self) -> Spec:
        """One example observation and the number of action dimensions."""
        first = self.episodes[0]
        return Spec(map_leaves(lambda x: x[0], first.observations), first.actions.shape[1])

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all arrays in order: equal data, equal text, everywhere."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            for name, value in named_leaves("episode", episode._asdict()):
                if value is not None:
                    array = np.ascontiguousarray(value)
                    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                    digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return digest.hexdigest()

    def transitions(
        self,
        task: Task,
        discount: float,
        *,
        action_clip: float = 0.99999,
        tail_bootstrap: bool = False,
        sequences: bool = False,
    ) -> Transition:
        """All steps as one flat Transition of [N, …] arrays: rewards mapped, returns on mapped rewards.

        Actions are clipped to ±`action_clip` (the official value), where a tanh policy still has a finite density.
        `tail_bootstrap`: see `monte_carlo_returns`. `sequences`: also returns to go and numbers of steps.
        """
        rewards = [np.asarray(task.map_reward(e.rewards), np.float32) for e in self.episodes]
        ends = [e.terminations for e in self.episodes]
        returns = [
            monte_carlo_returns(r, end, discount, task.failure_reward, tail_bootstrap)
            for r, end in zip(rewards, ends, strict=True)
        ]
        states = [e.observations for e in self.episodes]

        def steps(part: slice) -> PyTree:
            return map_leaves(lambda *leaves: np.concatenate([x[part] for x in leaves]), *states)

        made = Transition(
            observations=steps(slice(None, -1)),
            actions=np.clip(np.concatenate([e.actions for e in self.episodes]), -action_clip, action_clip),
            rewards=np.concatenate(rewards),
            next_observations=steps(slice(1, None)),
            masks=1.0 - np.concatenate(ends).astype(np.float32),
            returns=np.concatenate(returns),
        )
        if not sequences:
            return made
        to_go, timesteps = zip(*map(to_go_and_timesteps, rewards), strict=True)
        return made._replace(to_go=np.concatenate(to_go), timesteps=np.concatenate(timesteps))

    def truncate_at_horizon(self, horizon: int) -> Episodes:
        """Every episode cut (truncated, not terminated) after `horizon` steps, where the task's clock would stop it."""
        cut = tuple(e if e.length <= horizon else first_steps(e, horizon) for e in self.episodes)
        longer = sum(e.length > horizon for e in self.episodes)
        lost = self.num_transitions - sum(e.length for e in cut)
        note = f"{longer} of {len(cut)} episodes were cut after {horizon} steps ({lost} transitions dropped)"
        return Episodes(cut, self.reference, (*self.notes, note) if longer else self.notes)
