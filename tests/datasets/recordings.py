"""Random episodes, and the layouts of other people's files, written out by the tests themselves."""

import numpy as np
from hypothesis import strategies as st

from calql.tasks import Task
from calql.types import Episode

TASK = Task(
    id="toy",
    env="nowhere:nothing",
    horizon=20,
    data=None,
    reward_scale=10.0,
    reward_bias=5.0,
    reward_range=(-1.0, 0.0),
    failure_reward=-5.0,
)


def an_episode(steps=3, *, terminated=False, success=None, dims=(2, 1), seed=0, keys=None, record=True):
    """T steps of random states and actions; reward 0 at the steps in `success`, else −1."""
    rng = np.random.default_rng(seed)
    wins = np.isin(np.arange(steps), [] if success is None else success)
    ends = np.zeros(steps, bool)
    ends[-1] = terminated
    states = rng.normal(size=(steps + 1, dims[0])).astype(np.float32)
    if keys:
        picture = rng.integers(0, 256, (steps + 1, 4, 4, 3), dtype=np.uint8)
        states = {"image": picture, "state": {"arm": states, "hand": states[:, :1]}}
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
