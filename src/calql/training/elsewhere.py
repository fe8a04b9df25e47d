"""Episodes that another process collects: it drops them in a folder, and acts by the policy that a run publishes.

Learner and actor share nothing but these files, so either may be killed at any time. The actor writes every whole
episode as one file under a new name (`calql act`). The run takes the files in the order of their names, notes each in
episodes.csv, and never changes them: a run that is resumed from an older checkpoint takes the later ones again. The
policy is replaced atomically before the run takes an episode.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import calql
from calql.algorithms.protocol import UpdateRule
from calql.data.actions import in_unit
from calql.data.arrays import named_leaves, spread_states
from calql.data.episodes import Episodes
from calql.data.load import load
from calql.export.contract import Interface, contract_of
from calql.export.write import write_policy
from calql.tasks import Task
from calql.types import Episode, InputError, PyTree, Spec

POLICY = "policy.npz"
"""Name of the published policy in the run directory."""
POLL = 0.2
"""Seconds between two looks at the folder."""
STATES = 16
"""Observations of the data at which a published policy is compared with the run's."""


class Elsewhere:
    """The folder that episodes come from, and the policy that is published for them."""

    def __init__(self, folder: Path | str, task: Task, data: Episodes, out: Path) -> None:
        """`out` is the run directory. Raises InputError if the folder cannot be made."""
        if data.bounds is None:
            raise InputError(f"the data {data.uri} do not tell the bounds of actions; leave unit_actions to calql")
        self.folder, self.task, self.policy = Path(folder), task, out / POLICY
        self.interface = Interface(data.spec(), data.bounds, data.rate, data.action_names)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be a folder of episodes ({error.strerror}); choose another") from error
        self._states = spread_states(data.episodes, STATES)
        self._shapes, self._sizes = _shapes(data), dict[str, int]()

    def take(self, taken: Collection[str]) -> tuple[str, Episode] | None:
        """The next episode and its name (that of its file, and `#number` where a file holds several); None: not yet.

        `taken` are the names of those before. Raises InputError, naming the file, if it does not fit the task.
        """
        for path in sorted(self.folder.glob("*.npz")):
            count = self._sizes.get(path.name)
            if count is not None and all(name in taken for name in _names(path, count)):
                continue
            episodes = self._read(path)
            self._sizes[path.name] = episodes.num_episodes
            for name, episode in zip(_names(path, episodes.num_episodes), episodes.episodes, strict=True):
                if name not in taken:
                    return name, episode
        return None

    def _read(self, path: Path) -> Episodes:
        bounds = self.interface.bounds
        episodes = in_unit(load(f"npz:{path}"), bounds, "env")
        if (found := _shapes(episodes)) != self._shapes:
            raise InputError(f"{path}: it has {found}, and the run {self._shapes}")
        for episode in episodes.episodes:
            if episode.length > self.task.horizon:
                raise InputError(f"{path}: an episode has {episode.length} steps, the horizon is {self.task.horizon}")
        beyond = max(float(abs(episode.actions).max()) for episode in episodes.episodes) - 1.0
        if beyond > 1e-3:
            raise InputError(f"{path}: actions lie outside the bounds {bounds} of the environment")
        return episodes

    def publish(self, rule: UpdateRule, spec: Spec, state: PyTree, about: dict[str, Any]) -> None:
        """Replace the policy file. Raises InputError if it cannot be exported, and RunError if it cannot be written."""
        provenance = {**about, "calql": calql.__version__}
        contract = contract_of(self.interface._replace(spec=spec), task=self.task, provenance=provenance)
        write_policy(self.policy, rule, spec, state, contract, self._states, "the data")


def _names(path: Path, count: int) -> list[str]:
    """Names of a file's episodes."""
    return [path.name] if count == 1 else [f"{path.name}#{number}" for number in range(count)]


def _shapes(data: Episodes) -> str:
    """Shapes and dtypes of observations and actions, in words."""
    spec = data.spec()
    leaves = named_leaves("observations", spec.observation)
    return ", ".join([*(f"{name} {list(x.shape)} {x.dtype}" for name, x in leaves), f"actions [{spec.action_dim}]"])
