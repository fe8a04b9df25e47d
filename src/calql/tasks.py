"""What a task is: where experience comes from, what it is worth, and when an episode ends."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from calql.extras import missing
from calql.rewards import Rewards
from calql.types import InputError

if TYPE_CHECKING:
    Factory = str | Callable[..., Any]
else:  # msgspec decodes no union that a callable belongs to
    Factory = Any

Scale = Literal["smoke", "laptop", "paper"]
"""Name of a scale, see `calql.paper.scales.SCALES`."""
PUBLISHED = "minari:D4RL/*"
"""URIs of sets whose names say which task, and which physics, they were recorded in."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Public recordings of a task that need other physics than its own, or must be adapted."""

    pattern: str
    """Data URIs it covers, as a shell pattern: `minari:D4RL/door/*`."""
    adapt: str | None = None
    """`module:function` from a recorded episode to one of the task, called as `adapt(episode, **env_options)`."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Changes to the task's `env_options`: the physics of these recordings."""
    reader: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the reader, e.g. the task in a folder of several."""


OF_TASK = "().env"
"""Ends the name of a factory that can only be had from the function that makes its task, such as a lambda."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One row: where experience comes from, what it is worth, and how long to train on it."""

    id: str
    """Stable name, used on the command line and in results."""
    env: Factory
    """`module:factory` (or the factory itself) of a Gymnasium environment with a flat or dict observation, actions in
    [−1, 1] and `info["success"]`; called as `factory(render_mode=None, **env_options)`. The horizon is not its job."""
    horizon: Annotated[int, Meta(ge=1)]
    """Steps after which an episode is cut (truncation, not termination)."""
    data: str | None = None
    """URI of the default data, e.g. `local:pointmaze-medium-narrow`; None where the user must name one."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment's factory."""
    builder: str | None = None
    """`module:function` that makes the local data and returns their Minari id: `build(task, seed, transitions, workers,
    progress, **options)`, where `options` are fields of the module's `Recipe` and `progress` takes (done, total)."""
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the task sets of the builder's `Recipe`."""
    sources: tuple[Source, ...] = ()
    """Public recordings that are not taken as they are; the first whose pattern matches counts."""
    rewards: Rewards = dataclasses.field(default_factory=Rewards)
    """How rewards are mapped, between what they lie, and what failing pays."""
    stop_at_success: bool = False
    """End an episode (as terminated) at the first `info["success"]`, although the environment would go on."""
    score: Annotated[str, Meta(pattern=r"^(success|speed|last_reward/[1-9]\d*)$")] = "success"
    """How an episode becomes a score in [0, 1]: `success` (any step), `speed` (share of the horizon that was left
    at the first success, as RLPD scores the hand) or `last_reward/N`."""
    scales: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """scale → {option: value}: what differs there from `calql.paper.scales.SCALES`."""
    domain: str = ""
    """Tasks that methods have settings for: `antmaze`, `kitchen`, `adroit` as in the paper's Table 3; "" for none."""
    summary: str = ""
    """One line for listings."""

    def factory(self) -> Callable[..., Any]:
        """What makes the environment. Raises InputError if its name cannot be imported."""
        if not isinstance(self.env, str):
            return self.env
        if not self.env.endswith(OF_TASK):
            return load_attribute(self.env)
        made = load_attribute(self.env.removesuffix(OF_TASK))()
        return made.factory() if isinstance(made, Task) else made.env

    def source_of(self, uri: str) -> Source | None:
        """The source that covers that URI; None if none does. Raises InputError for another task's published set."""
        found = next((source for source in self.sources if fnmatch.fnmatchcase(uri, source.pattern)), None)
        if found is None and fnmatch.fnmatchcase(uri, PUBLISHED):
            paired = ", ".join(s.pattern for s in self.sources if fnmatch.fnmatchcase(s.pattern, PUBLISHED)) or "none"
            raise InputError(f"'{uri}' does not belong to task '{self.id}'; its published sets are: {paired}")
        return found

    def for_data(self, uri: str | None) -> Task:
        """This task with the physics of the recordings of that URI."""
        source = None if uri is None else self.source_of(uri)
        if source is None:
            return self
        return dataclasses.replace(self, env_options={**self.env_options, **source.env_options})


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
        if (lacks := missing(f"'{path}'", error)) is not None:
            raise lacks from error
        raise InputError(f"cannot import '{path}': {error}; name it as package.module:factory") from error
