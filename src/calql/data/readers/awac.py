"""`awac:DIR` or `awac:DIR#TASK`: the Adroit demonstrations of AWAC (Nair et al. 2020), used by Cal-QL for *-binary.

Per task a file of 25 human demonstrations and one of a cloned policy's trajectories, both .npy files of pickled dicts.
Processed as in `nakamotoo/Cal-QL`, `get_hand_dataset_with_mc_calculation`: the files' own terminals are
ignored; a reward of 0 is success, and terminal; trajectories end after their last success; those without are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from calql.data.arrays import numbers
from calql.data.episodes import Episodes
from calql.data.readers.files import existing_folder
from calql.data.readers.rows import refuse_gaps
from calql.data.readers.safe_pickle import load_object_npy
from calql.data.success import end_at_success
from calql.rewards import Rewards
from calql.types import Episode, InputError

FILES = {
    task: (f"{task}2_sparse.npy", f"{task}_bc_sparse4.npy")  # demonstrations, cloned policy
    for task in ("pen", "door", "relocate")
}


def read_awac(folder: str, *, task: str = "") -> Episodes:
    """The trajectories of one task.

    Args:
        folder: folder of the files, followed by `#TASK` if it holds files of several tasks.
        task: the task, if there is no `#TASK`.

    Raises:
        InputError: no such folder, task or file, or a file with other contents.
    """
    where = f"awac:{folder}"
    folder, _, named = folder.partition("#")
    if named and task and named != task:
        raise InputError(f"{where} names '{named}', but '{task}' is wanted; leave #{named} out")
    task = named or task
    if (place := existing_folder(where, folder)) is None:
        raise InputError(f"{where}: there is no such folder; give the folder with files like {FILES['door'][0]}")
    if task and task not in FILES:
        raise InputError(f"{where}: there is no task '{task}'; choose one of {', '.join(FILES)}")
    wanted = {task: FILES[task]} if task else FILES
    held = [t for t, names in wanted.items() if any((place / name).is_file() for name in names)]
    if not held:
        names = ", ".join(name for names in wanted.values() for name in names)
        raise InputError(f"{where}: the folder holds none of {names}; check the folder")
    if len(held) > 1:
        raise InputError(f"{where}: the folder holds {', '.join(held)}; name one, as in awac:{folder}#{held[0]}")

    episodes, notes = [], []
    for name in FILES[held[0]]:
        path = place / name
        if not path.is_file():
            notes.append(f"{name} is missing; only the other file is used")
            continue
        try:
            trajectories = load_object_npy(path)
        except OSError as error:
            raise InputError(f"{where}: cannot read {name} ({error.strerror}); check its permissions") from error
        except InputError as error:
            raise InputError(f"{where}: cannot read {name}: {error}") from error
        episodes += [_episode(f"{where}: {name}, trajectory {i}", t) for i, t in enumerate(trajectories)]
        notes.append(f"{name} holds {len(trajectories)} trajectories")
    whole = Episodes(tuple(episodes), where, tuple(notes))
    return end_at_success(whole, Rewards(), last=True, keep_failures=False)


def _episode(where: str, trajectory: Any) -> Episode:
    """A complete trajectory of T steps, without terminals; reward 0 is success."""
    names = ("observations", "next_observations", "actions", "rewards")
    if not isinstance(trajectory, Mapping) or not all(name in trajectory for name in names):
        raise InputError(f"{where} is not a dict with {', '.join(names)}; check which file this is")
    actions = numbers(where, "actions", trajectory["actions"], axes=2)
    steps = len(actions)
    states = numbers(where, "observations", _states(where, trajectory["observations"]), steps, axes=2)
    following = numbers(where, "next_observations", _states(where, trajectory["next_observations"]), steps, axes=2)
    rewards = numbers(where, "rewards", trajectory["rewards"]).reshape(-1)  # [T, 1] in the cloned policy's file
    if steps == 0 or len(rewards) not in (steps, steps + 1):  # the demonstrations have one reward too many
        raise InputError(f"{where} has {len(rewards)} rewards for {steps} actions; download the file again")
    rewards = rewards[:steps]
    refuse_gaps(where, states, following, np.array([steps - 1]), "split the trajectory there")
    path = np.concatenate([states, following[-1:]])
    return Episode(path, actions, rewards, np.zeros(steps, bool), truncated=True, successes=rewards == 0.0)


def _states(where: str, recorded: Any) -> Any:
    """[T, …] states; the demonstrations wrap each state in a dict."""
    if isinstance(recorded, list | np.ndarray) and len(recorded) and isinstance(recorded[0], Mapping):
        if not all(isinstance(state, Mapping) and "state_observation" in state for state in recorded):
            raise InputError(f"{where} has observations without 'state_observation'; check which file this is")
        return [state["state_observation"] for state in recorded]
    return recorded
