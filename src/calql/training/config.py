"""From (task, method, scale, overrides) to one resolved, printable, saveable configuration."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calql.algorithms import REFERENCES, SAC, VARIANTS
from calql.machine import provenance
from calql.methods import Method
from calql.networks import ENCODERS
from calql.paper.methods import METHODS, get_method
from calql.paper.tasks import get_task
from calql.tasks import SCALES, Task, nearest
from calql.training.run_dir import plain
from calql.types import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a method is trained and measured. The defaults are the official antmaze script's."""

    offline_steps: int = 1_000_000
    """Gradient steps of pre-training."""
    online_steps: int = 1_000_000
    """Environment steps of fine-tuning."""
    utd: int = 1
    """Gradient steps per environment step, done in one block after each whole episode."""
    updates_per_episode: int | None = None
    """Gradient steps after each online episode, however long it was (ODT); None: `utd` times its length."""
    actor_once_per_step: bool = False
    """Online, only the last of the `utd` updates of a step moves the policy (RLPD)."""
    start_steps: int = 0
    """Online steps of uniformly random actions before anything is learned (RLPD); their last episode is completed."""
    batch_size: int = 256
    """Transitions a gradient step."""
    random_crop: int = 4
    """Largest number of pixels by which images are shifted in training."""
    mixing: float = 0.5
    """Offline share of an online batch, in [0, 1], or −1 for the union of both (Appendix H.2)."""
    replay_capacity: int = 1_000_000
    """Online transitions kept, first in first out."""
    one_buffer: bool = False
    """The data are put into that memory too, as its oldest, and new transitions overwrite them (AWAC, ODT)."""
    variant: str = "official"
    """Named set of sampled actions: `official` (10 + 10 + 10, max target backup) or `listing` (4 + 4 + 0, plain)."""
    cql_alpha_online: float | None = None
    """Weight of the conservative term during fine-tuning; None: unchanged."""
    iql_temperature_online: float | None = None
    """β of IQL during fine-tuning (Fig. 9); None: unchanged."""
    target_q_clamp: bool = False
    """Clamp target Q to [r_min, r_max]/(1 − γ) of the task."""
    action_clip: float = 0.99999
    """Data actions are clipped to ± this."""
    horizon: int | None = None
    """Steps after which an episode is cut; None: the task's."""
    reward_scale: float | None = None
    """Rewards are mapped to scale · r + bias; None: the task's."""
    reward_bias: float | None = None
    """See `reward_scale`; None: the task's."""
    stop_at_success: bool | None = None
    """Episodes end at the first success; None: the task's."""
    score: str | None = None
    """How an episode becomes a score: `success`, `speed` or `last_reward/N`; None: the task's."""
    image_size: int | None = None
    """Side of the pictures in pixels; None: the task's."""
    slice_dimension: int | None = None
    """Component of the action along which Q is compared with rollouts after pre-training (Fig. 6); None: not."""
    tail_bootstrap: bool = False
    """Monte-Carlo returns go on after a cut with the last reward for ever, r / (1 − γ): what has been reached lasts."""
    cut_at_horizon: bool = False
    """Cut data episodes that are longer than the task's horizon (a note says how many)."""
    eval_every_offline: int = 50_000
    """Gradient steps between evaluations of pre-training (both ends are always evaluated)."""
    eval_every_online: int = 2_000
    """Environment steps between evaluations of fine-tuning."""
    eval_episodes: int = 20
    """Deterministic episodes an evaluation."""
    log_every: int = 1_000
    """Gradient steps averaged into one row of train.csv."""
    checkpoint_every: int = 50_000
    """Gradient steps between checkpoints (phase ends always have one)."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with one update rule."""

    name: str
    """`offline` or `online`."""
    algorithm: SAC
    """Update rule with its hyper-parameters."""
    gradient_steps: int
    """Gradient steps of the phase; online, where they go by the episode, as many as episodes of full length bring."""
    env_steps: int
    """Environment steps of the phase (0 offline)."""
    mixing: float
    """Offline share of a batch."""
    eval_every: int
    """Steps of the phase's own clock (gradient offline, environment online) between evaluations."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run, resolved."""

    task: Task
    """The row with the scale's horizon and reward map, and the physics of its data."""
    row: Task
    """The row as it stands in the table."""
    method: Method
    scale: str
    seed: int
    data: str | None
    protocol: Protocol
    phases: tuple[Phase, ...]
    overrides: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Every option by name: the protocol's, and each phase's algorithm's."""
        flat = dataclasses.asdict(self.protocol)
        for phase in self.phases:
            flat |= {name: value for name, value in dataclasses.asdict(phase.algorithm).items() if name not in flat}
        return flat


def resolve_saved(saved: Mapping[str, Any]) -> RunConfig:
    """The configuration of a config.json. Raises InputError where today's tables would resolve it differently."""
    overrides = {name: tuple(v) if isinstance(v, list) else v for name, v in saved.get("overrides", {}).items()}
    config = resolve(
        saved["task"], saved["method"], saved["scale"], saved["seed"], saved["data"]["reference"], overrides
    )
    here = plain(config.settings)
    changed = sorted(name for name in here if here[name] != saved["settings"].get(name))
    if changed:
        version = saved.get("packages", {}).get("calql", "unknown")
        raise InputError(f"the run was made with other defaults ({', '.join(changed)}), by calql {version}: use that")
    return config


def option_owners(*methods: Method) -> tuple[type, ...]:
    """Whose fields are the options of a run: the protocol, and the update rules of the table and of these methods."""
    rules = (rule for row in (*METHODS.values(), *methods) for rule in (row.offline, row.online) if rule)
    return tuple(dict.fromkeys([Protocol, *rules]))


def options(owners: Sequence[type] = ()) -> dict[str, dataclasses.Field]:
    """Every named option: the fields of protocol and algorithms (or of other dataclasses)."""
    return {field.name: field for owner in owners or option_owners() for field in dataclasses.fields(owner)}


def parse_options(options: Sequence[str], owners: Sequence[type] = ()) -> dict[str, Any]:
    """`name=value` texts → typed overrides. Raises InputError on a malformed one."""
    overrides = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, not '{text}'")
        overrides[name] = parse_value(name, value, owners)
    return overrides


def parse_value(name: str, text: str, owners: Sequence[type] = ()) -> Any:
    """Read the text of `--set name=text` as the option's own type. Raises InputError on a wrong name or value."""
    owners = owners or option_owners()
    if name not in options(owners):
        raise nearest(name, options(owners), "option")
    owner = next(owner for owner in owners if name in {field.name for field in dataclasses.fields(owner)})
    kind = typing.get_type_hints(owner)[name]
    try:
        return _convert(kind, text)
    except ValueError as error:
        kind = kind.__name__ if isinstance(kind, type) else kind
        raise InputError(f"option '{name}' cannot be '{text}': it is of type {kind}") from error


def _convert(kind: Any, text: str) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):  # of annotated types, or of plain ones
        if text.lower() in ("none", "null"):
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if typing.get_origin(kind) is tuple:
        elements, parts = typing.get_args(kind), [p for p in text.strip("()[] ").replace(" ", "").split(",") if p]
        if not parts or (elements[-1] is not Ellipsis and len(parts) != len(elements)):
            raise ValueError(text)
        return tuple(_convert(elements[0], part) for part in parts)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    value = float(text) if kind is int and "e" in text.lower() else kind(text)
    if value != value or (kind is int and value % 1):  # nan, or 1.5e0 for a whole number (inf % 1 is nan)
        raise ValueError(text)
    return kind(value)


def resolve(
    task: str | Task,
    method: str,
    scale: str = "laptop",
    seed: int = 0,
    data: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
) -> RunConfig:
    """Look up both tables and lay the scale's row and the overrides over the official defaults.

    Overrides are values by name, or texts `name=value` as on the command line. Raises InputError for an unknown task,
    method, scale or option, and for values out of range.
    """
    base, how = (task if isinstance(task, Task) else get_task(task)), get_method(method)
    if scale not in SCALES:
        raise nearest(scale, SCALES, "scale")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must lie in [0, 2^32)")
    named = option_owners(how)
    overrides = overrides if isinstance(overrides, Mapping) else parse_options(overrides or (), named)
    known = options(named)
    chosen = DEFAULT_SCALES[scale] | dict(base.scales.get(scale, {})) | how.settings_at(scale, base.domain)
    chosen |= overrides
    for name in chosen:
        if name not in known:
            raise nearest(name, known, "option")
    variant = chosen.get("variant", Protocol.variant)
    if variant not in VARIANTS:
        raise nearest(variant, VARIANTS, "variant")
    chosen = VARIANTS[variant] | chosen
    reference = data or base.data
    row = _overridden(base, chosen).for_data(reference)
    of_row = {name: getattr(row, name) for name in TASK_OPTIONS} | {"image_size": row.env_options.get("image_size")}
    protocol = _pick(Protocol, chosen | of_row)
    if not (0.0 <= protocol.mixing <= 1.0 or protocol.mixing == -1.0):
        raise InputError(f"mixing is {protocol.mixing}; it must lie in [0, 1] or be -1 (the union of both data)")
    for names, holds, wanted in REQUIREMENTS:
        for name in sorted(names & chosen.keys()):
            if not holds(chosen[name]):
                raise InputError(f"{name} is {chosen[name]}; it must be {wanted}")
    if protocol.replay_capacity < row.horizon:
        raise InputError(f"replay_capacity {protocol.replay_capacity} is below the horizon {row.horizon}; raise it")
    return RunConfig(
        row, base, how, scale, seed, reference, protocol, tuple(_phases(row, how, protocol, chosen)), overrides
    )


def _overridden(task: Task, chosen: Mapping[str, Any]) -> Task:
    """The task with the horizon and the reward map that the options name; what failing pays is mapped anew."""
    changed = dataclasses.replace(task, **{name: chosen[name] for name in TASK_OPTIONS if chosen.get(name) is not None})
    if (size := chosen.get("image_size")) is not None:
        if "image_size" not in task.env_options:
            raise InputError(f"the environment of '{task.id}' takes no image_size; leave it out")
        changed = dataclasses.replace(changed, env_options={**changed.env_options, "image_size": size})
    if task.failure_reward is None:
        return changed
    raw = (task.failure_reward - task.reward_bias) / task.reward_scale
    return dataclasses.replace(changed, failure_reward=changed.map_reward(raw))


def _phases(task: Task, method: Method, protocol: Protocol, chosen: Mapping[str, Any]) -> list[Phase]:
    def make(rule: type[SAC], extra: Mapping[str, Any]) -> SAC:
        algorithm = _pick(rule, chosen | extra)
        has_range = any(field.name == "target_q_range" for field in dataclasses.fields(rule))
        if protocol.target_q_clamp and has_range and algorithm.target_q_range is None:
            algorithm = dataclasses.replace(algorithm, target_q_range=task.q_bounds(algorithm.discount))
        return algorithm

    phases = []
    if method.offline:
        phases.append(
            Phase("offline", make(method.offline, {}), protocol.offline_steps, 0, 1.0, protocol.eval_every_offline)
        )
    if method.online:
        changed = {"cql_alpha": protocol.cql_alpha_online, "iql_temperature": protocol.iql_temperature_online}
        changed |= {"actor_every": protocol.utd if protocol.actor_once_per_step else None}
        changed = {name: value for name, value in changed.items() if value is not None}
        steps = protocol.online_steps
        each = protocol.updates_per_episode
        updates = max(steps - protocol.start_steps, 0) * protocol.utd if each is None else steps * each // task.horizon
        phases.append(
            Phase("online", make(method.online, changed), updates, steps, protocol.mixing, protocol.eval_every_online)
        )
    return phases


def _pick(kind: type, values: Mapping[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def differs_from_paper(config: RunConfig) -> dict[str, dict[str, Any]]:
    """{option: {paper, here}} for every option whose value is not the one of the same task at `paper` scale."""
    paper = resolve(config.row, config.method.id, "paper").settings
    here = config.settings
    return {name: {"paper": paper.get(name), "here": value} for name, value in here.items() if value != paper.get(name)}


def describe(config: RunConfig, data: Any | None) -> dict[str, Any]:
    """What config.json holds: the resolved run, its data (`Episodes`, or None before they are read), its origin."""
    about = {} if data is None else {
        "fingerprint": data.fingerprint(), "episodes": data.num_episodes, "transitions": data.num_transitions,
    }  # fmt: skip
    return {
        "format": 1,
        "task": config.task.id,
        "method": config.method.id,
        "seed": config.seed,
        "scale": config.scale,
        "data": {"reference": config.data, **about},
        "phases": [
            {
                "name": phase.name,
                "algorithm": type(phase.algorithm).__name__,
                "gradient_steps": phase.gradient_steps,
                "env_steps": phase.env_steps,
                "mixing": phase.mixing,
                "utd": config.protocol.utd,
            }
            for phase in config.phases
        ],
        "settings": config.settings,
        "differs_from_paper": differs_from_paper(config),
        "overrides": dict(config.overrides),
        **provenance(),
    }


TASK_OPTIONS = ("horizon", "reward_scale", "reward_bias", "stop_at_success", "score")
"""Options that stand in the task's row and may be overridden."""


REQUIREMENTS: tuple[tuple[set[str], Callable[[Any], bool], str], ...] = (
    (
        {"utd", "batch_size", "eval_episodes", "log_every", "checkpoint_every", "replay_capacity", "eval_every_offline",
         "eval_every_online", "num_critics", "num_target_actions", "horizon", "updates_per_episode", "actor_every",
         "target_subset"},
        lambda x: x is None or x >= 1,
        "at least 1",
    ),
    (
        {"offline_steps", "online_steps", "start_steps", "num_random_actions", "num_policy_actions",
         "num_next_actions", "random_crop"},
        lambda x: x >= 0,
        "at least 0",
    ),
    ({"slice_dimension"}, lambda x: x is None or x >= 0, "at least 0"),
    ({"reward_scale"}, lambda x: x is None or 0 < x < float("inf"), "above 0"),
    ({"reward_bias"}, lambda x: x is None or abs(x) < float("inf"), "a finite number"),
    ({"discount"}, lambda x: 0 <= x < 1, "in [0, 1)"),
    ({"tau", "action_clip"}, lambda x: 0 < x <= 1, "in (0, 1]"),
    ({"actor_lr", "critic_lr", "cql_temperature"}, lambda x: 0 < x < float("inf"), "above 0"),
    ({"target_q_range", "cql_clip"}, lambda x: x is None or x[0] < x[1], "two numbers, the lower one first"),
    (
        {"score"},
        lambda x: x is None or re.fullmatch(r"success|speed|last_reward/[1-9]\d*", x),
        "success, speed or last_reward/N",
    ),
    ({"image_size"}, lambda x: x is None or 8 <= x <= 480, "in [8, 480]"),
    ({"encoder"}, lambda x: x in ENCODERS, f"one of {', '.join(ENCODERS)}"),
    ({"reference"}, lambda x: x in REFERENCES, f"one of {', '.join(REFERENCES)}"),
    ({"actor_hidden", "critic_hidden"}, lambda x: all(width >= 1 for width in x), "widths of at least 1"),
)  # fmt: skip
"""(options, what must hold, in words)."""


DEFAULT_SCALES: dict[str, dict[str, Any]] = {
    "smoke": dict(
        offline_steps=60, online_steps=100, batch_size=16, eval_every_offline=30, eval_every_online=50,
        eval_episodes=2, log_every=20, checkpoint_every=40, replay_capacity=1_000, actor_hidden=(16, 16),
        critic_hidden=(16, 16), variant="listing",
    ),
    "laptop": dict(
        offline_steps=10_000, online_steps=10_000, eval_every_offline=2_000, eval_every_online=500, eval_episodes=20,
        log_every=500, checkpoint_every=5_000, replay_capacity=100_000, actor_hidden=(128, 128),
        critic_hidden=(128, 128), variant="listing",
    ),
    "paper": {},
}  # fmt: skip
"""What each scale changes of the official defaults, before a task's own row does."""
