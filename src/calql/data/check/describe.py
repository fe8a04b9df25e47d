"""What a user should know about a data set before training: `calql data info` (describe) and `calql data check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from calql.data.actions import ROUNDING, in_unit
from calql.data.arrays import named_leaves
from calql.data.check.cloning import cloning
from calql.data.check.convergence import enough, updates_to_converge
from calql.data.check.environment import compare
from calql.data.check.narrowness import narrowness
from calql.data.episodes import Episodes
from calql.data.success import goes_on_after_success, knows_success, success_steps
from calql.data.transitions import returns_of
from calql.rewards import Rewards
from calql.tasks import Task, import_name
from calql.types import Episode, InputError
from calql.units import ActionUnit

NARROW, WIDE = 0.6, 0.9
"""Thresholds of the behaviour spread; between the two, nothing is predicted. Set by hand on mazes with known noise."""
FEW_EPISODES, FEW_TRANSITIONS = 8, 200
"""Below either, neighbours are too far apart for the behaviour spread to mean anything, and nothing is predicted."""
AT_BOUNDS = 0.999
"""Action components of at least this size need 3.8 or more before the tanh."""
HALF = 0.5
"""If every action component uses at most this share of its range, the unit may be another."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Facts, problems and an expectation."""

    facts: dict[str, Any]
    """See `describe`."""
    errors: tuple[str, ...]
    """Reasons why training is refused; each names the fix."""
    warnings: tuple[str, ...]
    """Irregularities, and how they will be handled."""
    expectation: str
    """Expected effect of calibration on these data."""

    def text(self) -> str:
        """The report for a terminal."""
        rows = [*_rows(self.facts), *(("ERROR", line) for line in self.errors)]
        rows += [*(("warning", line) for line in self.warnings), ("expect", self.expectation)]
        return "\n".join(f"{label:8} {line}" for label, line in rows)


def describe(
    episodes: Episodes, task: Task, discount: float = 0.99, target_rate: float = 0.005, tail_bootstrap: bool = False
) -> dict[str, Any]:
    """All measurements, as nested dicts of plain numbers and texts (JSON).

    Episodes of one terminal step (`single_step`) are left out of statistics per episode, if there are others.

    Args:
        episodes: the data.
        task: gives the reward map, the reward of failing and the horizon.
        discount: γ of the returns.
        target_rate: τ, the share by which the target network moves per update.
        tail_bootstrap: see `calql.rewards.Rewards.returns`.
    """
    data = episodes.episodes
    lengths = np.array([e.length for e in data])
    terminated = np.array([bool(e.terminations[-1]) for e in data])
    single = _leftovers(data)
    counted = [e for e, leftover in zip(data, single, strict=True) if not leftover]
    firsts = (np.cumsum(lengths) - lengths)[~single]
    actions = np.concatenate([e.actions for e in data])
    rewards = np.concatenate([e.rewards for e in data])
    pays = task.rewards
    returns = returns_of(data, pays, discount, tail_bootstrap)
    arrays = {**_observed(data), "actions": _array([actions]), "rewards": _array([rewards])}
    bounds = pays.q_bounds(discount)
    low = 0.0 if bounds is None else bounds[0]
    return {
        "uri": episodes.uri,
        "fingerprint": episodes.fingerprint(),
        "notes": list(episodes.notes),
        "task": task.id,
        "environment": task.env if isinstance(task.env, str) else import_name(task.env),
        "env_options": dict(task.env_options),
        "rewards": dataclasses.asdict(pays),
        "stop_at_success": task.stop_at_success,
        "score": task.score,
        "tail_bootstrap": tail_bootstrap,
        "discount": discount,
        "episodes": episodes.num_episodes,
        "transitions": episodes.num_transitions,
        "arrays": arrays,
        "rate": episodes.rate,
        "action_bounds": None if episodes.bounds is None else str(episodes.bounds),
        "unit_actions": episodes.unit_actions,
        "actions_outside": float((np.abs(actions) > 1.0).mean()),
        "range_used": ((actions.max(axis=0) - actions.min(axis=0)) / 2.0).tolist(),
        "actions_at_bounds": float((np.abs(actions) >= AT_BOUNDS).any(axis=1).mean()),
        "single_step": int(single.sum()),
        "length": _quantiles(lengths[~single]),
        "horizon": task.horizon,
        "over_horizon": float((lengths[~single] > task.horizon).mean()),
        "success": (
            float(np.mean([success_steps(e, pays).any() for e in counted])) if knows_success(episodes, pays) else None
        ),
        "success_from": "the rewards" if any(e.successes is None for e in data) else "the recorded signal",
        "return_start": _quantiles(returns[firsts]),
        "return_all": _quantiles(returns),
        "return_spread": float(np.ptp(returns) / max(np.abs(returns).max(), 1e-12)),
        "return_floor": float((returns <= low + 0.02 * abs(low)).mean()) if low else 0.0,
        "return_bounds": None if bounds is None else list(bounds),
        "failures": float(np.mean([pays.fails(e.rewards) for e in counted])),
        "failure_return": None if pays.failing is None else pays.map(pays.failing) / (1.0 - discount),
        "terminated": int(terminated.sum()),
        "truncated": int((~terminated).sum()),
        "terminal_steps": int(sum(e.terminations.sum() for e in data)),
        "updates_to_converge": updates_to_converge(counted, discount, target_rate),
        "target_rate": target_rate,
        **narrowness(data, firsts),
    }


def _leftovers(data: Sequence[Episode]) -> np.ndarray:
    """[N] bool: episodes of one terminal step, if there are others. They are leftovers of relabelled recordings: a
    hundred of them would outweigh the one episode that they belong to."""
    lengths = np.array([e.length for e in data])
    return (lengths == 1) & (lengths.max() > 1) & np.array([bool(e.terminations[-1]) for e in data])


def _observed(data: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    """`_array` of every leaf of the observations, without each episode's last one."""
    leaves = [dict(named_leaves("observations", e.observations)) for e in data]
    return {name: _array([some[name][:-1] for some in leaves]) for name in leaves[0]}


def _array(parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Shape of a row, dtype and range of one array in parts [N_i, …]."""
    low, high = float(min(x.min() for x in parts)), float(max(x.max() for x in parts))
    return {"shape": list(parts[0].shape[1:]), "dtype": str(parts[0].dtype), "low": low, "high": high}


def check(
    episodes: Episodes,
    task: Task,
    env: Any = None,
    discount: float = 0.99,
    target_rate: float = 0.005,
    tail_bootstrap: bool = False,
    action_unit: ActionUnit = "auto",
    updates: int | None = None,
    normalised: bool = False,
    clone: bool = False,
) -> Report:
    """Check whether data suit the task (and its Gymnasium environment, if given), and whether calibration matters.

    The arguments are those of `describe`, `action_unit` of `calql.data.actions`, and

    Args:
        updates: the gradient steps of a run's pre-training, to be compared with those that its values need.
        normalised: whether the run normalises observations.
        clone: also measure how well the actions can be cloned (`calql.data.check.cloning`, some seconds): one more
            fact, `cloning`, which is None if there are too few episodes.

    With an environment there is one more fact, `physics_error`, which is None if the environment cannot be put into
    recorded states: see `calql.data.check.environment`.
    """
    from calql.envs.wrappers import action_bounds  # here, because importing Gymnasium is slow

    other_unit: list[str] = []
    if env is not None and (own := action_bounds(env)) is not None:
        try:
            episodes = in_unit(episodes, own, action_unit)
        except InputError as error:
            other_unit.append(str(error))
    facts = describe(episodes, task, discount, target_rate, tail_bootstrap)
    facts["updates"] = updates
    if clone:
        measured = cloning(episodes.episodes) if not other_unit else None
        facts["cloning"] = measured and measured._asdict() | {"text": measured.text()}
    errors: list[str] = []
    warnings: list[str] = []
    if env is not None:
        errors, warnings, facts["physics_error"] = compare(episodes, task, env)
        errors += other_unit
    if updates is not None and updates < facts["updates_to_converge"]:
        counted = [e for e, single in zip(episodes.episodes, _leftovers(episodes.episodes), strict=True) if not single]
        ways = enough(counted, updates, discount, target_rate)
        warnings.append(
            f"{updates:,} gradient steps of pre-training are too few for values to converge, which takes about "
            f"{facts['updates_to_converge']:,}; enough are: {', or '.join(ways)}"
        )
    arrays, outside = facts["arrays"], facts["actions_outside"]
    largest = max(abs(arrays["actions"]["low"]), abs(arrays["actions"]["high"]))
    if largest > 1.0 + ROUNDING and not other_unit:
        what = "they are clipped to ±0.99999" if facts["unit_actions"] else "only the environment tells their unit"
        warnings.append(f"{outside:.1%} of the action entries lie outside [−1, 1] (up to {largest:.3g}); {what}")
    if facts["unit_actions"] and 0.0 < max(facts["range_used"]) <= HALF + ROUNDING:
        warnings.append(
            f"no action component uses more than {max(facts['range_used']):.0%} of the environment's range "
            f"{facts['action_bounds']}: look whether the log has the environment's unit"
        )
    if facts["over_horizon"]:
        warnings.append(
            f"{facts['over_horizon']:.0%} of the episodes are longer than the task's horizon of {task.horizon} steps "
            f"(the longest has {facts['length']['max']:.0f}); --set cut_at_horizon=true cuts them"
        )
    low = np.inf if task.rewards.low is None else task.rewards.low
    high = -np.inf if task.rewards.high is None else task.rewards.high
    lowest, highest = arrays["rewards"]["low"], arrays["rewards"]["high"]
    if not task.rewards.holds(lowest, highest):
        warnings.append(
            f"rewards lie in [{lowest:.3g}, {highest:.3g}], the task pays [{low:g}, {high:g}]: target_q_clamp and the "
            f"failure rule would be wrong; fix the rewards, or --set rewards.low={min(lowest, low):g} "
            f"rewards.high={max(highest, high):g}"
        )
    if lowest == highest:
        warnings.append("all rewards are equal, so nothing can be learned from them; check which array was recorded")
    elif facts["success"] == 0.0:
        warnings.append("no episode succeeds: what can be learned lies in the differences between rewards alone")
    if (
        task.stop_at_success
        and facts["success"] is not None
        and (late := sum(goes_on_after_success(e, task.rewards) for e in episodes.episodes))
    ):
        warnings.append(
            f"{late} episodes continue after a success, which ends the task; "
            "calql.data.success.end_at_success cuts them"
        )
    for name, array in arrays.items():
        size = max(abs(array["low"]), abs(array["high"]))
        if name.startswith("observations") and array["dtype"] == "float32" and size > 100.0 and not normalised:
            warnings.append(f"'{name}' reaches {size:.3g} and is not normalised; --set normalise_observations=true")
    return Report(facts, tuple(errors), tuple(warnings), _expectation(facts))


def _expectation(facts: dict[str, Any]) -> str:
    """The expected effect of calibration, after the paper (Sec. 3 and 6) and small runs of our own."""
    spread = facts["behaviour_spread"]
    if facts["return_spread"] < 0.02:
        effect = "little difference between Cal-QL and CQL: all returns are similar"
    elif facts["episodes"] - facts["single_step"] < FEW_EPISODES or facts["transitions"] < FEW_TRANSITIONS:
        effect = (
            f"no sign: fewer than {FEW_EPISODES} episodes or {FEW_TRANSITIONS} transitions do not show whether data "
            "are narrow; run both"
        )
    elif spread >= WIDE:
        effect = "calibration matters less than on narrow data: many actions were tried in nearby states"
    elif facts["success"] is not None and facts["success"] >= 0.95:
        effect = "little difference between Cal-QL and CQL: near-expert data leave little to learn"
    elif spread > NARROW:
        effect = "no clear sign: the data are neither narrow nor wide; run both"
    else:
        effect = (
            "calibration matters: the data are narrow, with good and bad episodes; CQL is likely to push Q below "
            "the returns, and to lose performance while fine-tuning raises Q again"
        )
        if facts["return_floor"] > 0.5:
            effect += f" (but {facts['return_floor']:.0%} of the returns lie at the floor, where the bound does little)"
    return f"{effect}. An expectation, not a promise: look at the bounding rate once the critic has converged"


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as (label, text)."""

    def quantiles_text(quantiles: dict[str, float]) -> str:
        return " | ".join(f"{value:.4g}" for value in quantiles.values())

    rewards = Rewards(**facts["rewards"])
    options = ", ".join(f"{name}={value!r}" for name, value in facts["env_options"].items())
    ends = "at the first success" if facts["stop_at_success"] else "when the environment ends them"
    score = facts["score"].replace("_", " ").replace("/", " / ")
    score = "1 if any step succeeds, else 0" if score == "success" else score
    failure_rule = "no failure rule: every return is the discounted sum of rewards"
    if rewards.failing is not None:
        failure_rule = (
            f"failure rule: if every step of an episode pays {rewards.map(rewards.failing):g} until it is cut, each "
            f"return is {facts['failure_return']:.4g}"
        )
    success = "unknown: no signal was recorded, and the task states neither rewards.failing nor rewards.high"
    if facts["success"] is not None:
        success = f"{facts['success']:.1%} of the episodes, by {facts['success_from']}"

    rows = [("data", f"{facts['uri']}, fingerprint {facts['fingerprint'][:12]}")]
    rows += [("note", note) for note in facts["notes"]]
    if facts["unit_actions"]:
        rows.append(("unit", f"−1 and 1 stand for the environment's bounds {facts['action_bounds']}"))
    rows += [
        ("task", f"{facts['task']}; γ {facts['discount']:g}, τ {facts['target_rate']:g}"),
        ("task", f"rewards are mapped to {_map(rewards)}"),
        ("task", failure_rule),
        ("task", f"its episodes end {ends} (terminated), or after {facts['horizon']} steps (cut)"),
        ("task", f"its score is {score}"),
        ("physics", f"{facts['environment']}({options})"),
    ]
    if "physics_error" in facts:
        rows.append(("physics", _replay(facts["physics_error"])))
    rows += [
        ("size", f"{facts['episodes']:,} episodes, {facts['transitions']:,} transitions"),
        *([] if facts["rate"] is None else [("size", f"recorded at {facts['rate']:g} steps per second")]),
        ("ends", f"{facts['terminated']:,} episodes terminated, {facts['truncated']:,} were cut"),
        ("ends", f"{facts['terminal_steps']:,} steps are terminal (no bootstrapping)"),
    ]
    if facts["tail_bootstrap"]:
        rows.append(("ends", "truncated episodes count as if the last reward continued for ever"))
    for name, x in facts["arrays"].items():
        rows.append(("array", f"{name} {tuple(x['shape'])} {x['dtype']} in [{x['low']:.4g}, {x['high']:.4g}]"))
    if (share := facts["actions_at_bounds"]) > 0.005:
        rows.append(("bounds", f"{share:.0%} of the actions are at ±1, where a tanh policy saturates"))
    if facts["single_step"]:
        rows.append(("ends", f"{facts['single_step']:,} one-step episodes are left out of the next lines"))
    returns, floor = quantiles_text(facts["return_all"]), facts["return_floor"]
    return [
        *rows,
        ("length", f"{quantiles_text(facts['length'])}   (min | 10 % | median | 90 % | max)"),
        ("length", f"{facts['over_horizon']:.1%} of the episodes are longer than the horizon"),
        ("success", success),
        ("failing", f"{facts['failures']:.1%} of the episodes fail at every step"),
        ("returns", f"{quantiles_text(facts['return_start'])}   from the first step, on mapped rewards"),
        ("returns", f"{returns}   over all steps; {floor:.0%} lie at the floor"),
        ("narrow", f"behaviour spread {facts['behaviour_spread']:.2f} (0 = deterministic, 1 = uniform actions)"),
        ("narrow", f"action noise {facts['action_noise']:.2f} (share of action variance that states do not explain)"),
        ("narrow", f"start spread {facts['start_spread']:.2f}, effective dimension {facts['effective_dimension']:.1f}"),
        ("critic", _convergence(facts)),
        *([("cloning", _cloning(facts["cloning"]))] if "cloning" in facts else []),
    ]


def _convergence(facts: dict[str, Any]) -> str:
    needed, updates = facts["updates_to_converge"], facts.get("updates")
    text = f"about {needed:,} updates until its values have converged on the data"
    return (
        text
        if updates is None
        else f"{text}; the run makes {updates:,}: {'enough' if updates >= needed else 'too few'}"
    )


def _cloning(found: dict[str, Any] | None) -> str:
    return (
        "not measured: fewer than 8 episodes, constant actions, or actions of another unit"
        if found is None
        else found["text"]
    )


def _map(rewards: Rewards) -> str:
    """`10 r − 5: -5 to 5`."""
    scale, bias = rewards.scale, rewards.bias
    text = f"{scale:g} r {'−' if bias < 0 else '+'} {abs(bias):g}" if bias else f"{scale:g} r"
    if rewards.low is None or rewards.high is None:
        return f"{text}; the range is not stated"
    return f"{text}: {rewards.map(rewards.low):g} to {rewards.map(rewards.high):g}"


def _replay(error: float | None) -> str:
    if error is None:
        return "not compared: the environment cannot be set to recorded states"
    return f"recorded steps, repeated in it, deviate by {error:.2g} of the change (0 = the same physics)"


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = {"min": 0.0, "q10": 0.1, "median": 0.5, "q90": 0.9, "max": 1.0}
    return dict(zip(names, np.quantile(values, list(names.values())).tolist(), strict=True))
