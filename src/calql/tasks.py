"""Tasks: the environment and its data, the rewards, and when an episode ends."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from calql.extras import missing
from calql.limits import Limits
from calql.rewards import Rewards
from calql.types import InputError

if TYPE_CHECKING:
    Factory = str | Callable[..., Any]
else:  # msgspec cannot decode a union that contains a callable
    Factory = Any

Scale = Literal["smoke", "laptop", "desk", "paper"]
"""Name of a scale, see `calql.paper.scales.SCALES`."""
PUBLISHED = "minari:D4RL/*"
"""URIs of published data sets whose names state the task and the physics that they were recorded with."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Public recordings of a task that must be adapted, or that need other physics than the task's default."""

    pattern: str
    """Shell pattern of the data URIs, e.g. `minari:D4RL/door/*`."""
    adapt: str | None = None
    """`module:function` that converts a recorded episode to the task, called as `adapt(episode, **env_options)`."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Changes to the task's `env_options` for the physics of these recordings."""
    reader: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the reader, e.g. which task to read from a folder with several."""


OF_TASK = "().env"
"""Suffix of the name of a factory that cannot be imported, such as a lambda: the factory is then the `env` of the task
that the named function returns."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment with its data, rewards, horizon, score and settings of training."""

    id: str
    """Name on the command line and in results; it never changes."""
    env: Factory
    """`module:factory` (or the factory itself) of a Gymnasium environment with a flat or dict observation, actions in a
    Box, and `info["success"]` (or `is_success`) at every step, unless `score` does without; called as
    `factory(render_mode=None, **env_options)`. calql applies the horizon."""
    horizon: Annotated[int, Meta(ge=1)]
    """Steps after which an episode is cut (truncation, not termination)."""
    data: str | None = None
    """URI of the default data, e.g. `local:pointmaze-medium-narrow`; None: the user must give one."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment's factory."""
    builder: str | None = None
    """`module:function` that builds the local data and returns their Minari id: `build(task, seed, transitions,
    workers, progress, **options)`, where `options` are fields of the module's `Recipe` and `progress` takes (done,
    total)."""
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The task's values for fields of the builder's `Recipe`."""
    earlier: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """{URI: {field: value}}: earlier versions of the local data, and how their recipes differed."""
    sources: tuple[Source, ...] = ()
    """Public recordings that need a conversion or other physics; the first source whose pattern matches is used."""
    rewards: Rewards = dataclasses.field(default_factory=Rewards)
    """The reward map, the range of rewards, and the reward of a failing step."""
    stop_at_success: bool = False
    """Whether an episode ends, as terminated, at the first success signal, even if the environment continues."""
    score: Annotated[str, Meta(pattern=r"^(success|speed|return|last_reward/[1-9]\d*)$")] = "success"
    """Score of an episode: `success` (1 if any step succeeds), `speed` (share of the horizon that is left at the first
    success, as RLPD scores the Adroit tasks), `last_reward/N` (the last raw reward divided by N), all in [0, 1], or
    `return` (the sum of raw rewards, linearly scaled by `score_range`, as in D4RL; it may leave [0, 1])."""
    score_range: tuple[float, float] | None = None
    """(low, high): raw returns that score 0 and 1 if `score` is `return`, e.g. of a random policy and of an expert."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    """Limits of the executed actions and of their change per step, for a machine."""
    before_episode: str | None = None
    """`module:function` that is called with the environment before every reset, e.g. to wait for an operator
    (`calql.envs.operator:wait_for_enter`) or to bring a machine back; None: nothing is called."""
    scales: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """scale → {option: value}: options of this task that differ from `calql.paper.scales.SCALES`."""
    domain: str = ""
    """Group of tasks for which methods have settings: `antmaze`, `kitchen`, `adroit` as in the paper's Table 3; "" for
    none."""
    summary: str = ""
    """One line for listings."""

    def factory(self) -> Callable[..., Any]:
        """The factory of the environment. Raises InputError if its name cannot be imported."""
        if not isinstance(self.env, str):
            return self.env
        if not self.env.endswith(OF_TASK):
            return load_attribute(self.env)
        made = load_attribute(self.env.removesuffix(OF_TASK))()
        return made.factory() if isinstance(made, Task) else made.env

    def source_of(self, uri: str) -> Source | None:
        """The source whose pattern matches the URI; None if none does. Raises InputError for a published data set of
        another task."""
        found = next((source for source in self.sources if fnmatch.fnmatchcase(uri, source.pattern)), None)
        if found is None and fnmatch.fnmatchcase(uri, PUBLISHED):
            paired = ", ".join(s.pattern for s in self.sources if fnmatch.fnmatchcase(s.pattern, PUBLISHED)) or "none"
            raise InputError(f"'{uri}' does not belong to task '{self.id}'; its published sets are: {paired}")
        return found

    def building(self, uri: str | None) -> Task | None:
        """This task with the recipe of the URI's data, if its builder makes them (this or an earlier version)."""
        if self.builder is None or uri is None or not uri.startswith("local:"):
            return None
        uri = uri.removesuffix("-v0")  # `local:TASK` is version 0
        if uri == self.data:
            return self
        changes = self.earlier.get(uri)
        return None if changes is None else dataclasses.replace(self, data=uri, recipe={**self.recipe, **changes})

    def for_data(self, uri: str | None) -> Task:
        """This task with the physics that the data at the URI were recorded with. Raises InputError as `source_of`."""
        source = None if uri is None else self.source_of(uri)
        if source is None:
            return self
        return dataclasses.replace(self, env_options={**self.env_options, **source.env_options})


def nearest(name: str, known: Iterable[str], kind: str) -> InputError:
    """The error for an unknown name, one line that lists the most similar known names."""
    near = close(name, known)
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return InputError(f"unknown {kind} '{name}'; {hint}")


def close(name: str, known: Iterable[str]) -> list[str]:
    """The names that are most similar, the best first; none if none is."""
    return difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)


def import_name(thing: Any) -> str:
    """`package.module:name` of a class or function; with `<` in it if it cannot be imported, such as a lambda."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)  # functools.partial, an object that can be called
    name = named.__qualname__ if named is thing else f"<{named.__qualname__}>"
    return f"{named.__module__}:{name}"


def load_attribute(path: str) -> Any:
    """Import `package.module:attribute`. Raises InputError if the module or the attribute does not exist."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if (extra_missing := missing(f"'{path}'", error)) is not None:
            raise extra_missing from error
        where = f"looked in {os.getcwd()} and among the installed packages"
        raise InputError(f"cannot import '{path}': {error} ({where}); write it as package.module:name") from error
