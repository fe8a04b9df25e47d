"""What a task is: where experience comes from, what it is worth, and when an episode ends."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from calql.types import InputError

SCALES = ("smoke", "laptop", "paper")
PUBLISHED = "minari:D4RL/*"
"""References of sets whose names say which task, and which physics, they were recorded in."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Public recordings of a task that need other physics than its own, or something done to them."""

    pattern: str
    """Data references it covers, as a shell pattern: `minari:D4RL/door/*`."""
    adapt: str | None = None
    """`module:function` from a recorded episode to one of the task, called as `adapt(episode, **env_options)`."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What these recordings change of the task's `env_options`: the physics that they belong with."""
    reader: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the reader, e.g. which of a folder's tasks is meant."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One row: where experience comes from, what it is worth, and how long to train on it."""

    id: str
    """Stable name, used on the command line and in results."""
    env: str | Callable[..., Any]
    """`module:factory` (or the factory itself) of a Gymnasium environment with a flat or dict observation, actions in
    [−1, 1] and `info["success"]`; called as `factory(render_mode=None, **env_options)`. The horizon is not its job."""
    horizon: int
    """Steps after which an episode is cut (truncation, not termination)."""
    data: str | None
    """Default data reference, e.g. `local:pointmaze-medium-narrow`; None where the user must name one."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment's factory."""
    builder: str | None = None
    """`module:function` that makes the local data set: `build(task, seed, transitions, workers, progress, **knobs)`."""
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the task sets of the builder's `Recipe`."""
    sources: tuple[Source, ...] = ()
    """Public recordings that are not taken as they are; the first whose pattern matches counts."""
    reward_scale: float = 1.0
    """Rewards are mapped to scale · r + bias before anything else sees them (data and environment alike)."""
    reward_bias: float = 0.0
    """See `reward_scale`."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """[lowest, highest] raw reward of one step; with the map it bounds Q by [r_min, r_max] / (1 − γ)."""
    failure_reward: float | None = None
    """Mapped reward of a failing step in a sparse task. An episode that holds nothing else has the return r/(1 − γ)
    at every step (algorithms of the official release, `replay_buffer.py:calc_return_to_go`); None: no such rule."""
    stop_at_success: bool = False
    """End an episode (as terminated) at the first `info["success"]`, although the environment would go on."""
    score: str = "success"
    """How an episode becomes a score in [0, 1]: `success` (any step), `speed` (share of the horizon that was left
    at the first success, as RLPD scores the hand) or `last_reward/N`."""
    scales: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """scale → {option: value}: what differs there from `calql.training.config.DEFAULT_SCALES`."""
    domain: str = ""
    """Tasks that methods have settings for: `antmaze`, `kitchen`, `adroit` as in the paper's Table 3; "" for none."""
    summary: str = ""
    """One line for listings."""

    def source_of(self, reference: str) -> Source | None:
        """What is special about the recordings of that reference; None where they are taken as they are.

        Raises InputError where they are a published set that belongs to another task.
        """
        found = next((source for source in self.sources if fnmatch.fnmatchcase(reference, source.pattern)), None)
        if found is None and fnmatch.fnmatchcase(reference, PUBLISHED):
            paired = ", ".join(s.pattern for s in self.sources if fnmatch.fnmatchcase(s.pattern, PUBLISHED)) or "none"
            raise InputError(f"'{reference}' does not belong to task '{self.id}'; its published sets are: {paired}")
        return found

    def for_data(self, reference: str | None) -> Task:
        """This task with the physics that the recordings of that reference belong with."""
        source = None if reference is None else self.source_of(reference)
        if source is None:
            return self
        return dataclasses.replace(self, env_options={**self.env_options, **source.env_options})

    def map_reward(self, reward: Any) -> Any:
        """scale · r + bias, for a number or an array of raw rewards."""
        return self.reward_scale * reward + self.reward_bias

    def q_bounds(self, discount: float) -> tuple[float, float]:
        """(r_min, r_max)/(1 − γ) on mapped rewards: no return can lie outside (0 is included: episodes end)."""
        low, high = sorted(self.map_reward(r) / (1.0 - discount) for r in self.reward_range)
        return min(low, 0.0), max(high, 0.0)


def nearest(name: str, known: Iterable[str], kind: str) -> InputError:
    """The error for an unknown name: one line that lists the nearest known ones."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known)}"
    return InputError(f"unknown {kind} '{name}'; {hint}")


def load_attribute(path: str) -> Any:
    """Import `package.module:attribute`. Raises InputError where either half does not exist."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import '{path}': {error}; name it as package.module:factory") from error
