"""calql: calibrated offline-to-online reinforcement learning. The names below are the library; see docs/library.md."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load": "calql.data.load",
    "check": "calql.data.check.describe",
    "Episodes": "calql.data.episodes",
    "Rewards": "calql.rewards",
    "Task": "calql.tasks",
    "Method": "calql.methods",
    "TASKS": "calql.paper.tasks",
    "METHODS": "calql.paper.methods",
    "Experiment": "calql.training.experiment",
    "experiment": "calql.training.options",
    "events": "calql.training.run",
    "train": "calql.training.run",
    "evaluate": "calql.training.policy",
    "load_policy": "calql.training.policy",
    "Policy": "calql.training.policy",
    "UpdateRule": "calql.algorithms.protocol",
    "SAC": "calql.algorithms",
    "CQL": "calql.algorithms",
    "CalQL": "calql.algorithms",
    "IQL": "calql.algorithms",
    "AWAC": "calql.algorithms",
    "TD3BC": "calql.algorithms",
    "BC": "calql.algorithms",
    "InputError": "calql.types",
    "RunError": "calql.types",
}
"""Public name → the module that it lives in, imported at first use."""

__all__ = [
    "AWAC",
    "BC",
    "CQL",
    "IQL",
    "METHODS",
    "SAC",
    "TASKS",
    "TD3BC",
    "CalQL",
    "Episodes",
    "Experiment",
    "InputError",
    "Method",
    "Policy",
    "Rewards",
    "RunError",
    "Task",
    "UpdateRule",
    "check",
    "evaluate",
    "events",
    "experiment",
    "load",
    "load_policy",
    "train",
]

if TYPE_CHECKING:
    from calql.algorithms import AWAC, BC, CQL, IQL, SAC, TD3BC, CalQL
    from calql.algorithms.protocol import UpdateRule
    from calql.data.check.describe import check
    from calql.data.episodes import Episodes
    from calql.data.load import load
    from calql.methods import Method
    from calql.paper.methods import METHODS
    from calql.paper.tasks import TASKS
    from calql.rewards import Rewards
    from calql.tasks import Task
    from calql.training.experiment import Experiment
    from calql.training.options import experiment
    from calql.training.policy import Policy, evaluate, load_policy
    from calql.training.run import events, train
    from calql.types import InputError, RunError


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'calql' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
