"""Random episodes, and the layouts of other people's files, written out by the tests themselves."""

import os

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from calql.rewards import Rewards
from calql.tasks import Task
from calql.types import Episode

TASK = Task(
    id="toy",
    env="nowhere:nothing",
    horizon=20,
    rewards=Rewards(scale=10.0, bias=5.0, low=-1.0, high=0.0, failing=-1.0),
)

FLAT = spaces.Box(-np.inf, np.inf, (2,), np.float32)
NESTED = spaces.Dict(
    image=spaces.Box(0, 255, (4, 4, 3), np.uint8),
    state=spaces.Dict(arm=FLAT, hand=spaces.Box(-np.inf, np.inf, (1,), np.float32)),
)


def an_episode(steps=3, *, terminated=False, success=None, dims=(2, 1), seed=0, keys=None, record=True):
    """T steps of random states and actions; reward 0 at the steps in `success`, else −1."""
    rng = np.random.default_rng(seed)
    wins = np.isin(np.arange(steps), [] if success is None else success)
    ends = np.zeros(steps, bool)
    ends[-1] = terminated
    states = rng.normal(size=(steps + 1, dims[0])).astype(np.float32)
    if keys:
        image = rng.integers(0, 256, (steps + 1, 4, 4, 3), dtype=np.uint8)
        states = {"image": image, "state": {"arm": states, "hand": states[:, :1]}}
    return Episode(
        observations=states,
        actions=rng.uniform(-1, 1, (steps, dims[1])).astype(np.float32),
        rewards=wins.astype(np.float32) - 1.0,
        terminations=ends,
        truncated=not terminated,
        successes=wins if record else None,
    )


@st.composite
def some_episodes(draw, min_size=1, max_size=6, min_steps=1, keys=False, inner_terminals=False):
    """A list of episodes of different lengths and ends."""
    episodes = []
    for number in range(draw(st.integers(min_size, max_size))):
        steps = draw(st.integers(min_steps, 6))
        success = draw(st.lists(st.integers(0, steps - 1), max_size=2))
        episode = an_episode(
            steps, terminated=draw(st.booleans()), success=success, seed=1000 * number + steps, keys=keys
        )
        if inner_terminals and draw(st.booleans()):
            episode.terminations[0] = True
        episodes.append(episode)
    return episodes


def same_tree(found, expected):
    """Equal keys, dtypes and numbers."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for key in expected:
            same_tree(found[key], expected[key])
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def same_episode(found, expected):
    """Equal in everything that was recorded."""
    same_tree(found.observations, expected.observations)
    for name in ("actions", "rewards", "terminations"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.truncated == expected.truncated
    if expected.successes is not None:
        np.testing.assert_array_equal(found.successes, expected.successes)


# -- other people's files ----------------------------------------------------------------------------------------------


def rows_of(episodes, timeouts=True):
    """D4RL's layout: one row a step; a cut episode ends in a row that only shows its last state."""
    rows = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for episode in episodes:
        cut = not episode.terminations[-1]
        rows["observations"].append(episode.observations[: episode.length + cut])
        rows["actions"].append(np.append(episode.actions, np.full((int(cut), episode.actions.shape[1]), 9.0), axis=0))
        rows["rewards"].append(np.append(episode.rewards, [99.0] * cut))
        rows["terminals"].append(np.append(episode.terminations, [False] * cut))
        rows["timeouts"].append(np.arange(episode.length + cut) == episode.length * cut + (not cut) * -1)
    rows = {name: np.concatenate(parts) for name, parts in rows.items()}
    if not timeouts:
        del rows["timeouts"]
    return rows


def write_hdf5(path, arrays):
    """A flat HDF5 file, as D4RL's."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def demonstration(episode):
    """A human demonstration: each state in a dict, one reward too many, terminals that mean nothing."""
    wrap = [{"state_observation": state} for state in episode.observations]
    return {
        "observations": wrap[:-1],
        "next_observations": wrap[1:],
        "actions": episode.actions,
        "rewards": np.append(episode.rewards, 0.0),
        "terminals": np.ones(episode.length, bool),
        "agent_infos": [{}],
        "env_infos": [{"qpos": np.zeros(3)}],
    }


def cloned(episode):
    """A trajectory of the cloned policy: plain arrays, rewards and terminals as columns."""
    return {
        "observations": episode.observations[:-1],
        "next_observations": episode.observations[1:],
        "actions": episode.actions,
        "rewards": episode.rewards[:, None],
        "terminals": np.ones((episode.length, 1)),
    }


def write_awac(folder, name, trajectories):
    """A .npy file of pickled dicts."""
    array = np.empty(len(trajectories), object)
    array[:] = trajectories
    np.save(os.path.join(folder, name), array)


def store(name, episodes, observations=FLAT, infos=True, jpeg=False):
    """A Minari data set, made as a user of Minari would."""
    buffers = [
        EpisodeBuffer(
            observations=e.observations,
            actions=e.actions,
            rewards=e.rewards,
            terminations=e.terminations,
            truncations=np.arange(1, e.length + 1) == e.length * e.truncated,
            infos={"success": np.append(False, e.successes)} if infos else None,
        )
        for e in episodes
    ]
    about = dict(
        code_permalink="x", author="x", author_email="x", algorithm_name="x", description="x", eval_env="CartPole-v1"
    )
    action_space = spaces.Box(-1, 1, (episodes[0].actions.shape[1],), np.float32)
    with pytest.warns(UserWarning, match="env_spec is None"):
        minari.create_dataset_from_buffers(
            name, buffers, action_space=action_space, observation_space=observations, jpeg_encoding=jpeg, **about
        )
