"""What a user should know of a data set before training on it: `calql data info` (describe) and `calql data check`.

How narrow are the data? Three numbers without units, from at most 2,000 sampled steps, observations standardised:

* *action noise* u: the share of the actions' variance that their states do not explain. Each action is predicted by the
  mean action of its state's 8 nearest neighbours in other episodes; 0 = a function of the state, 1 = independent of it.
  Few data in many dimensions make it too high.
* *behaviour spread* b: the standard deviation of what is left unexplained, over that of uniform actions in [−1, 1]
  (0.577). Gaussian noise of 0.1, 0.3 and 0.6 on the actions gives about 0.2, 0.5 and 0.9. Cal-QL corrects the values
  of actions that the data do not hold, so this is the number that says how many of those there are.
* *start spread* and *effective dimension*: how far starts lie apart, relative to all states (0 = one start, 1 = starts
  are anywhere); and (Σλ)²/Σλ² over the eigenvalues λ of the states' correlations.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from calql.datasets.arrays import named_leaves
from calql.datasets.episodes import Episodes
from calql.datasets.success import success_steps
from calql.tasks import Task
from calql.types import PyTree

NEIGHBOURS = 8
SAMPLES = 2_000
COLUMNS = 256
NARROW, WIDE = 0.6, 0.9
"""Behaviour spreads. Between them nothing is expected. Set by hand, on mazes with known noise."""
UNIT_SHARE, UNIT_SIZE = 0.2, 5.0
"""Beyond this share of entries outside [−1, 1], or this size, actions are taken to be in another unit."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Facts, problems and an expectation."""

    facts: dict[str, Any]
    """See `describe`."""
    errors: tuple[str, ...]
    """Why training is refused; each names the mend."""
    warnings: tuple[str, ...]
    """What is odd, and what will be done about it."""
    expectation: str
    """What calibration is expected to do on these data."""

    def text(self) -> str:
        """The report for a terminal."""
        lines = [*_lines(self.facts)]
        lines += [f"ERROR    {line}" for line in self.errors] + [f"warning  {line}" for line in self.warnings]
        return "\n".join([*lines, f"expect   {self.expectation}"])


def describe(episodes: Episodes, task: Task, discount: float = 0.99, target_rate: float = 0.005) -> dict[str, Any]:
    """Everything measured, as nested dicts of plain numbers and texts (JSON).

    Episodes of one terminal step (`single_step`) are left out of what is counted by the episode, if there are others.

    Args:
        episodes: the data.
        task: says how rewards are mapped, what failing pays and when the clock stops.
        discount: γ of the returns.
        target_rate: τ, the share by which the target network moves an update.
    """
    data = episodes.episodes
    flat = episodes.transitions(task, discount)
    lengths = np.array([e.length for e in data])
    terminated = np.array([bool(e.terminations[-1]) for e in data])
    # Leftovers of relabelled recordings: a hundred of them would drown the one episode that they are the tail of.
    single = terminated & (lengths == 1) if lengths.max() > 1 else np.zeros(len(data), bool)
    counted = [e for e, leftover in zip(data, single, strict=True) if not leftover]
    firsts = (np.cumsum(lengths) - lengths)[~single]
    actions = np.concatenate([e.actions for e in data])
    rewards = np.concatenate([e.rewards for e in data])
    returns = flat.returns
    arrays = {**dict(named_leaves("observations", flat.observations)), "actions": actions, "rewards": rewards}
    failing = task.failure_reward
    failed = [failing is not None and bool(np.allclose(task.map_reward(e.rewards), failing)) for e in counted]
    low, high = task.q_bounds(discount)
    # After n backups a critic misses γⁿ of what follows: 5 % after 3/(1 − γ), nothing after the steps to a terminal.
    far = 3.0 / (1.0 - discount)
    backups = np.where(terminated, np.minimum(lengths, far), far)[~single].mean()
    return {
        "reference": episodes.reference,
        "fingerprint": episodes.fingerprint(),
        "notes": list(episodes.notes),
        "task": task.id,
        "discount": discount,
        "episodes": episodes.num_episodes,
        "transitions": episodes.num_transitions,
        "arrays": {
            name: {"shape": list(x.shape[1:]), "dtype": str(x.dtype), "low": float(x.min()), "high": float(x.max())}
            for name, x in arrays.items()
        },
        "actions_outside": float((np.abs(actions) > 1.0).mean()),
        "single_step": int(single.sum()),
        "length": _quantiles(lengths[~single]),
        "horizon": task.horizon,
        "over_horizon": float((lengths[~single] > task.horizon).mean()),
        "success": float(np.mean([success_steps(e, task).any() for e in counted])),
        "success_from": "the recorded signal" if all(e.successes is not None for e in data) else "the rewards",
        "return_start": _quantiles(returns[firsts]),
        "return_all": _quantiles(returns),
        "return_spread": float(np.subtract(*np.quantile(returns, [0.9, 0.1])) / max(np.abs(returns).max(), 1e-12)),
        "return_floor": float((returns <= low + 0.02 * abs(low)).mean()) if low < 0 else 0.0,
        "return_bounds": [low, high],
        "failures": float(np.mean(failed)),
        "failure_return": None if failing is None else failing / (1.0 - discount),
        "terminated": int(terminated.sum()),
        "truncated": int((~terminated).sum()),
        "terminal_steps": int(sum(e.terminations.sum() for e in data)),
        "updates_to_converge": int(round(float(backups) / target_rate, -2)),
        "target_rate": target_rate,
        **_narrowness(flat.observations, np.clip(actions, -1.0, 1.0), np.repeat(np.arange(len(data)), lengths), firsts),
    }


def check(
    episodes: Episodes, task: Task, env: Any = None, discount: float = 0.99, target_rate: float = 0.005
) -> Report:
    """Is this data set fit for the task (and its Gymnasium environment, if given), and will calibration matter?"""
    facts = describe(episodes, task, discount, target_rate)
    errors = [] if env is None else _mismatches(episodes, env)
    warnings = []
    arrays, outside = facts["arrays"], facts["actions_outside"]
    largest = max(abs(arrays["actions"]["low"]), abs(arrays["actions"]["high"]))
    if outside > UNIT_SHARE or largest > UNIT_SIZE:
        errors.append(
            f"{outside:.1%} of the action entries lie outside [−1, 1], the largest at {largest:.3g}: they are in "
            "another unit; divide them by the largest command, here and in the environment"
        )
    elif outside:
        warnings.append(
            f"{outside:.1%} of the action entries lie outside [−1, 1] (up to {largest:.3g}); "
            "they are clipped to ±0.99999"
        )
    if facts["over_horizon"]:
        warnings.append(
            f"{facts['over_horizon']:.0%} of the episodes are longer than the task's horizon of {task.horizon} steps "
            f"(the longest has {facts['length']['max']:.0f}); --set cut_at_horizon=true cuts them"
        )
    low, high = sorted(task.reward_range)
    if arrays["rewards"]["low"] < low - 1e-6 or arrays["rewards"]["high"] > high + 1e-6:
        paid = f"[{arrays['rewards']['low']:.3g}, {arrays['rewards']['high']:.3g}]"
        warnings.append(
            f"rewards lie in {paid}, the task pays [{low:g}, {high:g}]: bounds on Q and the failure rule will be "
            "wrong; mend the rewards or the task's reward_range"
        )
    if arrays["rewards"]["low"] == arrays["rewards"]["high"]:
        warnings.append("all rewards are equal: nothing tells good from bad; check which array was recorded")
    elif facts["success"] == 0.0:
        warnings.append("no episode succeeds: only exploration can find the task's reward")
    if task.stop_at_success:
        late = sum(bool((success_steps(e, task) & ~e.terminations).any()) for e in episodes.episodes)
        if late:
            warnings.append(
                f"{late} episodes go on after a success, where the task ends; "
                "calql.datasets.success.end_at_success cuts them"
            )
    for name, array in arrays.items():
        size = max(abs(array["low"]), abs(array["high"]))
        if name.startswith("observations") and array["dtype"] == "float32" and size > 100.0:
            warnings.append(f"'{name}' reaches {size:.3g}, and networks take it as it is; scale it to about ±1")
    return Report(facts, tuple(errors), tuple(warnings), _expectation(facts))


def _expectation(facts: dict[str, Any]) -> str:
    """What the paper (Sec. 3 and 6) and small runs of our own let one expect of data with such numbers."""
    spread = facts["behaviour_spread"]
    if facts["return_spread"] < 0.02:
        effect = "little difference between Cal-QL and CQL: the returns are all alike"
    elif spread >= WIDE:
        effect = "little difference between Cal-QL and CQL: the data are wide, most actions were tried"
    elif facts["success"] >= 0.95:
        effect = "little difference between Cal-QL and CQL: near-expert data leave little to learn"
    elif spread > NARROW:
        effect = "no clear sign: the data are neither narrow nor wide; run both"
    else:
        effect = (
            "calibration to matter: the data are narrow, with good and bad episodes; CQL is likely to push Q below "
            "the returns, and to lose performance while fine-tuning lifts it again"
        )
        if facts["return_floor"] > 0.5:
            effect += f" (but {facts['return_floor']:.0%} of the returns lie at the floor, where the bound says little)"
    return f"{effect}. An expectation, not a promise: look at the bounding rate once the critic has converged"


def _lines(facts: dict[str, Any]) -> list[str]:
    """The facts as aligned lines of text."""

    def spread(quantiles: dict[str, float]) -> str:
        return " | ".join(f"{value:.4g}" for value in quantiles.values())

    rows = [
        ("data", f"{facts['reference']}, fingerprint {facts['fingerprint'][:12]}"),
        ("task", f"{facts['task']}, horizon {facts['horizon']}; γ {facts['discount']:g}, τ {facts['target_rate']:g}"),
        ("size", f"{facts['episodes']:,} episodes, {facts['transitions']:,} transitions"),
        ("ends", f"{facts['terminated']:,} episodes terminated, {facts['truncated']:,} were cut"),
        ("ends", f"{facts['terminal_steps']:,} steps are terminal: what follows them has no value"),
        *(
            ("array", f"{name} {tuple(x['shape'])} {x['dtype']} in [{x['low']:.4g}, {x['high']:.4g}]")
            for name, x in facts["arrays"].items()
        ),
        *[("ends", f"{facts['single_step']:,} one-step episodes are left out of the next lines")]
        * (facts["single_step"] > 0),
        ("length", f"{spread(facts['length'])}   (min | 10 % | median | 90 % | max)"),
        ("success", f"{facts['success']:.1%} of the episodes, by {facts['success_from']}"),
        ("returns", f"{spread(facts['return_start'])}   from the first step, on mapped rewards"),
        ("returns", f"{spread(facts['return_all'])}   over all steps; {facts['return_floor']:.0%} lie at the floor"),
        ("failing", f"{facts['failures']:.1%} of the episodes fail at every step" + _failure_rule(facts)),
        ("narrow", f"behaviour spread {facts['behaviour_spread']:.2f} (0 = deterministic, 1 = uniform actions)"),
        ("narrow", f"action noise {facts['action_noise']:.2f} (share of action variance that states do not explain)"),
        ("narrow", f"start spread {facts['start_spread']:.2f}, effective dimension {facts['effective_dimension']:.1f}"),
        ("critic", f"about {facts['updates_to_converge']:,} updates until its values are those of the data"),
        *(("note", note) for note in facts["notes"]),
    ]
    return [f"{label:8} {value}" for label, value in rows]


def _failure_rule(facts: dict[str, Any]) -> str:
    value = facts["failure_return"]
    return "; no failure rule" if value is None else f": each of their steps gets the return {value:.4g}"


def _mismatches(episodes: Episodes, env: Any) -> list[str]:
    """Where the data do not fit a Gymnasium environment's observation and action spaces, both shapes named."""
    spec = episodes.spec()
    errors = []
    found, wanted = _shapes(spec.observation), _shapes(_spaces(env.observation_space))
    if wanted != found:
        errors.append(
            f"the data's observations are {found}, the environment's are {wanted}; "
            "use the data of this task, or an environment with the same observations"
        )
    box = env.action_space
    if getattr(box, "low", None) is None or box.shape is None:
        errors.append(f"the environment's actions are {box}; only continuous actions (Box) can be learned")
    elif box.shape != (spec.action_dim,):
        errors.append(f"the data's actions are ({spec.action_dim},), the environment's {box.shape}; use matching data")
    elif not (np.allclose(box.low, -1.0) and np.allclose(box.high, 1.0)):
        errors.append(
            f"the environment takes actions in [{box.low.min():.3g}, {box.high.max():.3g}], the data hold [−1, 1]; "
            "wrap it in gymnasium.wrappers.RescaleAction(env, -1, 1)"
        )
    return errors


def _spaces(space: Any) -> PyTree:
    """A Dict space as nested dicts of spaces."""
    return {key: _spaces(inner) for key, inner in space.spaces.items()} if hasattr(space, "keys") else space


def _shapes(tree: PyTree) -> str:
    """Keys and shapes of an observation or of its spaces, and which are pictures: equal texts where the two fit."""
    named = [(name.removeprefix("observations").lstrip("/"), leaf) for name, leaf in named_leaves("observations", tree)]
    kind = {True: " uint8", False: ""}
    return ", ".join(f"{name} {tuple(leaf.shape or ())}{kind[leaf.dtype == np.uint8]}".strip() for name, leaf in named)


def _narrowness(observations: PyTree, actions: np.ndarray, episode: np.ndarray, firsts: np.ndarray) -> dict[str, Any]:
    """The measures of the module's docstring; `episode` [N] numbers each step's episode, `firsts` are first steps."""
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    chosen = np.sort(rng.permutation(len(actions))[:SAMPLES])
    states = _features(observations, chosen)
    center, scale = states.mean(axis=0), states.std(axis=0)
    used = scale > 1e-6 * np.maximum(1.0, np.abs(center))
    states = (states[:, used] - center[used]) / scale[used]
    eigenvalues = np.linalg.svd(states, compute_uv=False) ** 2
    starts = (_features(observations, rng.permutation(firsts)[:SAMPLES])[:, used] - center[used]) / scale[used]

    distance = cdist(states, states, "sqeuclidean")
    apart = episode[chosen] if episode[-1] else chosen  # a single episode has only itself to compare with
    distance[apart[:, None] == apart] = np.inf
    k = min(NEIGHBOURS, int(np.isfinite(distance).sum(axis=1).min()))
    noise = spread = 0.0
    if k:
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        rest = actions[chosen] - actions[chosen][nearest].mean(axis=1)
        unexplained = (rest**2).mean() / (1.0 + 1.0 / k)  # a mean of k noisy actions is noisy, too
        noise = min(1.0, unexplained / max(actions[chosen].var(axis=0).mean(), 1e-12))
        spread = float(np.sqrt(3.0 * unexplained))
    return {
        "action_noise": float(noise),
        "behaviour_spread": spread,
        "start_spread": float(np.sqrt(starts.var(axis=0).mean())) if used.any() else 0.0,
        "effective_dimension": float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum()) if used.any() else 0.0,
    }


def _features(observations: PyTree, rows: np.ndarray) -> np.ndarray:
    """[rows, D] float64: all leaves side by side, of each at most 256 evenly spaced columns (pictures have more)."""
    columns = []
    for _, leaf in named_leaves("", observations):
        flat = leaf[rows].reshape(len(rows), -1)
        columns.append(flat[:, :: -(-flat.shape[1] // COLUMNS) or 1].astype(np.float64))
    return np.concatenate(columns, axis=1)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    names = {"min": 0.0, "q10": 0.1, "median": 0.5, "q90": 0.9, "max": 1.0}
    return dict(zip(names, np.quantile(values, list(names.values())).tolist(), strict=True))
