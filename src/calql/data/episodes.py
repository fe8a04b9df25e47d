"""Data sets of complete episodes, validated once when they are made."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from calql.data.arrays import checked, layout, named_leaves, part
from calql.types import Episode, InputError, Spec, map_leaves
from calql.units import ActionBounds


@dataclasses.dataclass(frozen=True)
class Episodes:
    """A data set: episodes as recorded, in canonical dtypes (float32, uint8 images, bool) and validated.

    Raises InputError if there are no episodes, if shapes disagree, if numbers are not finite, if the rate is not
    positive, or if there are not as many names as action components.
    """

    episodes: tuple[Episode, ...]
    """In the order of the recording; error messages number episodes and steps from 0."""
    uri: str = "memory"
    """Data URI that they came from, e.g. `d4rl:door.hdf5`."""
    notes: tuple[str, ...] = ()
    """Everything that was noticed about the recording or done to it, one sentence each."""
    bounds: ActionBounds | None = None
    """Action bounds that the recording states; None: it states none. With `unit_actions`: those of the environment."""
    unit_actions: bool = False
    """Whether the actions are in [−1, 1], where −1 and 1 stand for the environment's bounds (`calql.data.actions`)."""
    rate: float | None = None
    """Steps per second in Hz that the recording states, or else the environment that it was compared with."""
    action_names: tuple[str, ...] | None = None
    """Names of the A action components, stated like `rate`."""

    def __post_init__(self) -> None:
        if not self.episodes:
            raise InputError(f"{self.uri}: it holds no complete episode; record or build more data")
        episodes = tuple(checked(f"{self.uri}: episode {i}", e) for i, e in enumerate(self.episodes))
        expected = layout(episodes[0])
        for i, episode in enumerate(episodes):
            if (found := layout(episode)) != expected:
                raise InputError(
                    f"{self.uri}: a step of episode {i} holds {found}, one of episode 0 {expected}; "
                    "all episodes must share their keys, shapes and dtypes"
                )
        object.__setattr__(self, "episodes", episodes)
        if self.rate is not None and not 0.0 < self.rate < np.inf:
            raise InputError(f"{self.uri}: it states {self.rate} steps per second; correct that, or leave it out")
        if self.action_names is not None and len(self.action_names) != (count := episodes[0].actions.shape[1]):
            raise InputError(
                f"{self.uri}: it states {len(self.action_names)} names of actions, and an action has {count} "
                "components; correct that, or leave the names out"
            )

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    @property
    def num_transitions(self) -> int:
        """Total number of steps."""
        return sum(episode.length for episode in self.episodes)

    def spec(self) -> Spec:
        """One example observation and the number of action dimensions."""
        first = self.episodes[0]
        return Spec(map_leaves(lambda x: x[0], first.observations), first.actions.shape[1])

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all arrays in order; the same on every machine."""
        digest = hashlib.sha256()
        for episode in self.episodes:
            for name, value in named_leaves("episode", episode._asdict()):
                if value is not None:
                    array = np.ascontiguousarray(value)
                    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
                    digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
        return digest.hexdigest()

    def truncate_at_horizon(self, horizon: int) -> Episodes:
        """Every episode cut (truncated, not terminated) after `horizon` steps."""
        cut = tuple(e if e.length <= horizon else part(e, 0, horizon)._replace(truncated=True) for e in self.episodes)
        longer = sum(e.length > horizon for e in self.episodes)
        lost = self.num_transitions - sum(e.length for e in cut)
        note = f"{longer} of {len(cut)} episodes were cut after {horizon} steps ({lost} transitions dropped)"
        return dataclasses.replace(self, episodes=cut, notes=(*self.notes, note) if longer else self.notes)
