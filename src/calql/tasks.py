"""THE table of tasks. A task is a row of names and numbers; its id appears here and nowhere else.

Factories are named as `module:attribute` strings and imported only when they are used, so that reading the table costs
nothing. `Task.scales` holds the *differences* from the library's defaults (which are the official code's settings) at
each scale; any field of an algorithm or of `calql.training.config.Protocol` may be named there.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from calql.types import InputError

SCALES = ("smoke", "laptop", "paper")


@dataclasses.dataclass(frozen=True)
class Task:
    """One row: where experience comes from, what it is worth, and how long to train on it."""

    id: str
    """Stable name, used on the command line and in results."""
    env: str | Callable[..., Any]
    """`module:factory` (or the factory itself) of a Gymnasium environment with a flat or dict observation, actions in
    [−1, 1] and `info["success"]`; called as `factory(render_mode=None)`. It need not enforce the horizon."""
    horizon: int
    """Steps after which an episode is cut (truncation, not termination)."""
    data: str | None
    """Default data reference, e.g. `local:pointmaze-medium-narrow`; None where the user must name one."""
    builder: str | None = None
    """`module:function` that makes the local data set, called as `build(seed=…, transitions=…, progress=…)`."""
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
    """How an episode becomes a score in [0, 1]: `success` (any step) or `last_reward/N`."""
    scales: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """scale → {option: value}: what differs there from `calql.training.config.DEFAULT_SCALES`."""
    summary: str = ""
    """One line for listings."""

    def map_reward(self, reward: Any) -> Any:
        """scale · r + bias, for a number or an array of raw rewards."""
        return self.reward_scale * reward + self.reward_bias

    def q_bounds(self, discount: float) -> tuple[float, float]:
        """(r_min, r_max)/(1 − γ) on mapped rewards: no return can lie outside (0 is included: episodes end)."""
        low, high = sorted(self.map_reward(r) / (1.0 - discount) for r in self.reward_range)
        return min(low, 0.0), max(high, 0.0)


TASKS: dict[str, Task] = {
    task.id: task
    for task in [
        Task(
            id="pointmaze-medium-narrow",
            summary="a point with inertia through a maze, from narrow demonstrations",
            env="calql.envs.pointmaze:make",
            data="local:pointmaze-medium-narrow",
            builder="calql.datasets.build_pointmaze:build",
            horizon=51,
            reward_scale=11.0,
            reward_bias=-1.0,
            failure_reward=-1.0,
            scales={
                "smoke": dict(online_steps=200),
                # Rewards −1/+10 and α 5 → 0.5 as in the visual task, where the paper shows unlearning (Fig. 2, 3).
                "laptop": dict(
                    offline_steps=20_000,
                    online_steps=5_000,
                    batch_size=128,
                    eval_every_offline=5_000,
                    eval_every_online=250,
                    eval_episodes=30,
                    replay_capacity=50_000,
                    discount=0.97,
                    tau=0.01,
                    cql_alpha=5.0,
                    cql_alpha_online=0.5,
                ),
                "paper": dict(
                    offline_steps=250_000,
                    online_steps=100_000,
                    cql_alpha=5.0,
                    cql_alpha_online=0.5,
                    eval_every_offline=25_000,
                    checkpoint_every=25_000,
                ),
            },
        ),
    ]
}


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


def get_task(name: str) -> Task:
    """The row of that id, or the user's own task from `package.module:factory`.

    A factory may return a `Task` (full control) or a Gymnasium environment; the latter gives a row with the
    environment's own horizon, raw rewards and success signal. Raises InputError on an unknown name.
    """
    if name in TASKS:
        return TASKS[name]
    if ":" not in name:
        raise nearest(name, TASKS, "task")
    try:
        made = load_attribute(name)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{name}' failed ({type(error).__name__}: {error}); mend the factory") from error
    if isinstance(made, Task):
        return dataclasses.replace(made, id=name)  # under its own name a later --resume finds it again
    horizon = getattr(getattr(made, "spec", None), "max_episode_steps", None)
    made.close()
    if horizon is None:
        raise InputError(
            f"'{name}' made an environment without max_episode_steps; set it, or return a calql.tasks.Task"
        )
    return Task(id=name, env=name, horizon=horizon, data=None, summary="a user's own environment")
