"""The definition of a run: one typed record. config.json holds it; every later command decodes it from there.

    Experiment
      task          environment, horizon, rewards, score        (`calql.tasks.Task`)
      data          which data set, and how it is preprocessed
      pretrain      update rule and schedule of the offline phase; None: no offline phase
      finetune      update rule, schedule and replay of the online phase; None: no online phase
      measurement   evaluations, logs, checkpoints
      seed          of networks, batches, resets and exploration

`calql.training.options.experiment` combines the tables with the user's options. Nothing else reads a table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

import calql.algorithms
from calql.algorithms.protocol import UpdateRule
from calql.replay.buffer import UNION
from calql.tasks import OF_TASK, Task, import_name, load_attribute
from calql.training.run_dir import plain
from calql.types import InputError
from calql.units import ActionUnit

FORMAT = 2
"""Version of config.json."""

Some = Annotated[int, msgspec.Meta(ge=1)]
"""A count of at least 1."""
Any0 = Annotated[int, msgspec.Meta(ge=0)]
"""A count that may be 0."""

LARGEST = 2**31 - 1
"""Largest whole number that JAX counts with, and so that an option can be."""
SMALLEST, LARGEST_FLOAT = (float(number) for number in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
"""Numbers that JAX would not round to 0 or to infinity."""


@dataclasses.dataclass(frozen=True)
class Data:
    """The data set that a run learns from."""

    uri: str | None = None
    """`local:TASK`, `minari:ID`, `npz:FILE`, …; None if the task has no data of its own and none was given."""
    action_clip: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.99999
    """Actions of the data are clipped to ± this, so that their density under a tanh policy is finite."""
    tail_bootstrap: bool = False
    """Monte-Carlo returns of truncated episodes continue with the last reward for ever, r / (1 − γ)."""
    cut_at_horizon: bool = False
    """Cut recorded episodes that are longer than the task's horizon (a note says how many)."""
    action_unit: ActionUnit = "auto"
    """Unit of the recorded actions: env, the environment's own; unit, [−1, 1], where −1 and 1 stand for its bounds;
    auto, which recording and environment agree on, or the data are refused. env and unit also clip what lies beyond."""
    normalise_observations: bool = False
    """Networks see (observation − mean) / deviation of the data, entry by entry; images stay as they are."""


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """The offline phase. The defaults are the official antmaze script's."""

    algorithm: UpdateRule
    """Update rule with its hyper-parameters."""
    offline_steps: Any0 = 1_000_000
    """Gradient steps of pre-training."""
    batch_size: Some = 256
    """Transitions per gradient step."""
    random_crop: Any0 = 4
    """Largest shift in pixels of the images in a batch (DrQ)."""
    eval_every_offline: Some = 50_000
    """Gradient steps between evaluations during pre-training (its start and end are always evaluated)."""

    name: ClassVar[str] = "offline"
    mixing: ClassVar[float] = 1.0

    @property
    def length(self) -> int:
        """End of the phase on its own clock: gradient steps."""
        return self.offline_steps

    @property
    def eval_every(self) -> int:
        """Steps of the phase's own clock between evaluations."""
        return self.eval_every_offline

    def gradient_steps(self, horizon: int) -> int:
        """Gradient steps of the whole phase."""
        return self.offline_steps


@dataclasses.dataclass(frozen=True)
class Finetune:
    """The online phase. The defaults are the official antmaze script's."""

    algorithm: UpdateRule
    """Update rule with its hyper-parameters."""
    online_steps: Any0 = 1_000_000
    """Environment steps of fine-tuning."""
    utd: Some = 1
    """Update-to-data ratio: gradient steps per environment step, done in one block after each episode."""
    updates_per_episode: Some | None = None
    """Gradient steps per episode, whatever its length (ODT); None: `utd` per environment step."""
    start_steps: Any0 = 0
    """Environment steps with uniformly random actions before the first update (RLPD); the last of these episodes is
    completed."""
    warmup_steps: Any0 = 0
    """Environment steps with the policy as it is at the start of fine-tuning, before the first update (WSRL); the last
    of these episodes is completed. Those of `start_steps` are part of them."""
    batch_size: Some = 256
    """Transitions per gradient step."""
    mixing: float = 0.5
    """Offline share of a batch, in [0, 1], or −1 for the union of both buffers (Appendix H.2)."""
    replay_capacity: Some = 1_000_000
    """Capacity of the replay buffer in online transitions, first in, first out."""
    one_buffer: bool = False
    """The offline data go into the same buffer, as its oldest rows, and new transitions overwrite them (AWAC, ODT)."""
    random_crop: Any0 = 4
    """Largest shift in pixels of the images in a batch (DrQ)."""
    eval_every_online: Some = 2_000
    """Environment steps between evaluations during fine-tuning."""

    name: ClassVar[str] = "online"

    @property
    def steps_before_updates(self) -> int:
        """Environment steps before the first update, up to the end of the last episode that begins with fewer."""
        return max(self.start_steps, self.warmup_steps)

    def __post_init__(self) -> None:
        if not (0.0 <= self.mixing <= 1.0 or self.mixing == UNION):
            raise InputError(f"mixing is {self.mixing}; it must lie in [0, 1] or be -1 (the union of both buffers)")

    @property
    def length(self) -> int:
        """End of the phase on its own clock: environment steps."""
        return self.online_steps

    @property
    def eval_every(self) -> int:
        """Steps of the phase's own clock between evaluations."""
        return self.eval_every_online

    def gradient_steps(self, horizon: int) -> int:
        """Gradient steps of the whole phase; updates per episode are counted for episodes of full length."""
        steps = max(self.online_steps - self.steps_before_updates, 0)
        return steps * self.utd if self.updates_per_episode is None else steps * self.updates_per_episode // horizon


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Evaluations, logs and checkpoints. Only the number of evaluation environments can change what is learned."""

    eval_episodes: Some = 20
    """Deterministic episodes per evaluation."""
    eval_envs: Some = 10
    """Environments for evaluations, stepped side by side (at most `eval_episodes`); 1: evaluate in the training
    environment, so that the run opens only one."""
    eval_from: Literal["env", "training", "nothing"] = "env"
    """What scores come from: env, deterministic episodes of their own in the environment; training, the online episodes
    since the last evaluation, with their exploration; nothing: they are not measured."""
    eval_untrained: bool = True
    """Whether the untrained policy is evaluated, at gradient step 0; False: nothing untrained moves the environment
    (networks of `init_from` are trained ones)."""
    slice_dimension: Any0 | None = None
    """Action dimension along which Q is compared with rollouts after pre-training (Fig. 6); None: no comparison."""
    log_every: Some = 1_000
    """Gradient steps averaged into one row of train.csv."""
    checkpoint_every: Some = 50_000
    """Gradient steps between checkpoints (the end of a phase always has one)."""


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """The run whose networks this run starts from."""

    run: str
    """Its directory."""
    step: int
    """Gradient steps of the checkpoint."""
    sha256: str
    """Checksum of the checkpoint's state file."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that determines a run. Two runs of equal experiments on one machine are equal bit for bit."""

    task: Task
    data: Data
    pretrain: Pretrain | None
    finetune: Finetune | None
    measurement: Measurement
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    method: str = ""
    """Name of the method that the update rules and their settings come from."""
    title: str = ""
    """Name of the method in tables and figures."""
    scale: str = "laptop"
    """Name of the scale that the settings come from; one of an older version may be gone."""
    init_from: InitFrom | None = None
    """Run whose networks this run starts from; None: networks are initialised from the seed."""

    @property
    def phases(self) -> tuple[Pretrain | Finetune, ...]:
        """The phases in order."""
        return tuple(phase for phase in (self.pretrain, self.finetune) if phase is not None)

    @property
    def discount(self) -> float:
        """γ of the Monte-Carlo returns."""
        return self.phases[0].algorithm.discount


# -- to and from JSON --------------------------------------------------------------------------------------------------


def encode(experiment: Experiment) -> dict[str, Any]:
    """The record as JSON values. Infinite numbers become text ("inf", "-inf"), tuples become lists."""
    # Prose and what other scales would be are no part of a run.
    task = dataclasses.replace(experiment.task, env=name_of(experiment.task), scales={}, summary="")
    record = plain(msgspec.to_builtins(dataclasses.replace(experiment, task=task)))
    for phase in experiment.phases:
        part = record["pretrain" if phase is experiment.pretrain else "finetune"]
        part["rule"] = rule_name(type(phase.algorithm))
    return record


def decode(record: Mapping[str, Any]) -> Experiment:
    """The experiment that a record describes; missing fields take their defaults.

    Raises InputError, naming the field, if a value is missing, of the wrong type or out of bounds, and if an update
    rule or a factory of the user's own cannot be imported.
    """
    record = dict(record)
    for name in ("pretrain", "finetune"):
        if record.get(name) is not None:
            phase = dict(record[name])
            phase["algorithm"] = {"rule": phase.pop("rule", None), **phase["algorithm"]}
            record[name] = phase
    try:
        return _complete(msgspec.convert(record, Experiment, strict=False, dec_hook=_rule))
    except msgspec.ValidationError as error:
        raise InputError(f"the record of the run cannot be read: {error}; it was edited or is damaged") from error


def _complete(record: Any) -> Any:
    """The same with every default as the instance's own: what msgspec does not find, it neither sets nor writes."""
    if not dataclasses.is_dataclass(record) or isinstance(record, type):
        return record
    parts = {field.name: _complete(getattr(record, field.name)) for field in dataclasses.fields(record)}
    return dataclasses.replace(record, **parts)


def unknown(record: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """Paths of fields that a record has and this version does not know."""

    def extra(found: Mapping[str, Any], known: Mapping[str, Any], path: str) -> Iterator[str]:
        for name, value in found.items():
            if name not in known:
                yield path + name
            elif isinstance(value, Mapping) and isinstance(known[name], Mapping):
                yield from extra(value, known[name], f"{path}{name}.")

    return list(extra(record, encode(experiment), ""))


def _rule(kind: type, value: Any) -> Any:
    """The update rule of a record's `algorithm`."""
    rule = rule_named(value["rule"])
    return msgspec.convert({k: v for k, v in value.items() if k != "rule"}, rule, strict=False)


def rule_name(rule: type) -> str:
    """`CalQL` for the library's own rules, `package.module:Class` for others."""
    return rule.__name__ if getattr(calql.algorithms, rule.__name__, None) is rule else import_name(rule)


def rule_named(name: str) -> type:
    """The inverse of `rule_name`. Raises InputError if there is no such rule."""
    found = load_attribute(name) if ":" in str(name) else getattr(calql.algorithms, str(name), None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise InputError(f"'{name}' is not an update rule (a dataclass with init, update and act)")
    return found


def name_of(task: Task) -> str:
    """The import name of the task's environment: `package.module:factory`."""
    if isinstance(task.env, str):
        return task.env
    name = import_name(task.env)
    return task.id + OF_TASK if "<" in name and ":" in task.id else name  # a lambda, or a class within a function


# -- comparing ---------------------------------------------------------------------------------------------------------


def refuse_seed(seed: int) -> None:
    """Raise InputError unless a run can have this seed."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must lie in [0, 2^32)")


def unusable(value: Any) -> str | None:
    """Why a number cannot be the value of an option; None if it can."""
    if value != value:
        return "it must be a number"
    if isinstance(value, float) and not (value == 0 or SMALLEST <= abs(value) <= LARGEST_FLOAT or math.isinf(value)):
        return f"it must be 0, or between {SMALLEST:.1e} and {LARGEST_FLOAT:.1e}, as numbers of 32 bits are"
    return f"it must be at most {LARGEST}" if isinstance(value, int) and value > LARGEST else None


def differences(one: Experiment, other: Experiment) -> list[str]:
    """Paths at which two records differ, e.g. `finetune.algorithm.cql_alpha`."""

    def differing(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> Iterator[str]:
        for name in dict.fromkeys([*a, *b]):
            x, y = a.get(name), b.get(name)
            if isinstance(x, Mapping) and isinstance(y, Mapping):
                yield from differing(x, y, f"{path}{name}.")
            elif x != y:
                yield path + name

    return list(differing(encode(one), encode(other), ""))


def before_fine_tuning(experiment: Experiment) -> Experiment:
    """The part that determines pre-training: experiments that are equal in it share it, bit for bit."""
    return dataclasses.replace(experiment, finetune=None, method="", title="", scale="paper")


def own_code(experiment: Experiment) -> dict[str, str]:
    """{`package.module`: SHA-256 of its file} of every module outside calql that a run's record names."""
    named = [name_of(experiment.task), experiment.task.id, experiment.method, experiment.data.uri or ""]
    named += [experiment.task.before_episode or ""]
    named += [import_name(type(phase.algorithm)) for phase in experiment.phases]
    hashes = {}
    for module in sorted({name.partition(":")[0] for name in named if ":" in name} - {"__main__"}):
        loaded = sys.modules.get(module)
        file = getattr(loaded, "__file__", None)
        if file and module.partition(".")[0] != "calql":
            hashes[module] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return hashes
