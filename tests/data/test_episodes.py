"""Episodes: what they refuse, what they become, and that they say what was done to them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from recordings import TASK, an_episode, same_tree, some_episodes

from calql.data import Episodes
from calql.data.arrays import named_leaves, nest
from calql.data.success import end_at_success, success_steps
from calql.data.transitions import to_transitions
from calql.rewards import Rewards
from calql.types import InputError, map_leaves


def damaged(**changes):
    return Episodes((an_episode(), an_episode(5, seed=1)._replace(**changes)), "npz:log.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.array([0, 0, 0, np.nan, 0])}, "episode 1: 'rewards' holds NaN or infinite values at step 3"),
        ({"observations": np.full((6, 2), np.inf)}, "episode 1: 'observations' holds NaN or infinite values at step 0"),
        ({"observations": np.full((6, 2), 1e300)}, "episode 1: 'observations' holds NaN or infinite values"),
        ({"observations": np.zeros((5, 2))}, r"'observations' has shape \(5, 2\), expected \(6, …\)"),
        ({"observations": {}}, "'observations' is an empty dict"),
        ({"actions": np.zeros((4, 1))}, r"'actions' has shape \(4, 1\), expected \(5, A\)"),
        ({"actions": np.zeros(5)}, r"'actions' has shape \(5,\), expected \(5, A\)"),
        ({"actions": np.array([["a"]] * 5)}, "'actions' does not hold numbers of one shape"),
        ({"actions": [[1.0], [1.0, 2.0]]}, "'actions' does not hold numbers of one shape"),
        ({"rewards": np.zeros((5, 1))}, r"'rewards' has shape \(5, 1\), expected \(T,\)"),
        ({"rewards": np.zeros(0)}, "episode 1 has no steps"),
        ({"terminations": np.zeros(4, bool)}, "'terminations' has shape"),
        ({"successes": np.zeros(4, bool)}, "'successes' has shape"),
        ({"actions": np.zeros((5, 7))}, r"a step of episode 1 holds .*actions \(7,\).* of episode 0 .*actions \(1,\)"),
        ({"observations": {"x": np.zeros((6, 2))}}, "all episodes must share their keys, shapes and dtypes"),
    ],
)
def test_unsound_episodes_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        damaged(**changes)
    assert str(caught.value).startswith("npz:log.npz: ")
    assert "\n" not in str(caught.value)


def test_no_episodes_are_refused():
    with pytest.raises(InputError, match="no complete episode"):
        Episodes(())


def test_dtypes_become_canonical():
    episode = an_episode()._replace(
        observations=np.zeros((4, 2)), actions=[[0], [1], [0]], rewards=[0, 0, 1], terminations=[0, 0, 1]
    )
    found = Episodes((episode,)).episodes[0]
    assert [x.dtype for x in (found.observations, found.actions, found.rewards)] == [np.float32] * 3
    assert found.terminations.dtype == bool


def test_what_did_not_terminate_was_truncated():
    assert Episodes((an_episode()._replace(truncated=False),)).episodes[0].truncated


@given(some_episodes(inner_terminals=True))
@settings(deadline=None)
def test_transitions_are_the_steps(episodes):
    data = Episodes(tuple(episodes))
    flat = to_transitions(data.episodes, TASK.rewards, 0.9)
    assert data.num_transitions == len(flat.rewards) == sum(e.length for e in episodes)
    row = 0
    for episode in episodes:
        mapped = 10 * episode.rewards + 5
        returns = TASK.rewards.returns(episode.rewards, episode.terminations, 0.9)
        for t in range(episode.length):
            np.testing.assert_array_equal(flat.observations[row], episode.observations[t])
            np.testing.assert_array_equal(flat.next_observations[row], episode.observations[t + 1])
            assert flat.rewards[row] == mapped[t]
            assert flat.masks[row] == 1 - episode.terminations[t]
            assert flat.returns[row] == returns[t]
            row += 1
    assert {x.dtype for x in jax.tree.leaves(flat)} == {np.dtype(np.float32)}


def test_actions_are_clipped_where_a_tanh_policy_is_finite():
    episode = an_episode()._replace(actions=np.array([[-1.5], [0.5], [1.0]]))
    flat = to_transitions([episode], TASK.rewards, 0.9)
    np.testing.assert_allclose(flat.actions[:, 0], [-0.99999, 0.5, 0.99999], rtol=1e-6)
    assert to_transitions([episode], TASK.rewards, 0.9, action_clip=0.4).actions.max() == np.float32(0.4)
    own = to_transitions([episode], TASK.rewards, 0.9, action_clip=None)  # a policy's own actions
    assert own.actions[:, 0].tolist() == [-1.5, 0.5, 1.0]


def test_dict_observations_keep_their_images():
    data = Episodes((an_episode(keys=True), an_episode(2, keys=True)))
    flat = to_transitions(data.episodes, TASK.rewards, 0.9)
    assert flat.observations["image"].dtype == flat.next_observations["image"].dtype == np.uint8
    assert flat.observations["image"].shape == (5, 4, 4, 3)
    assert flat.observations["state"]["arm"].shape == (5, 2)
    spec = data.spec()
    assert spec.action_dim == 1
    assert spec.observation["image"].shape == (4, 4, 3)


def test_tail_bootstrap_reaches_the_returns():
    data = Episodes((an_episode(1, success=[0]),))
    assert to_transitions(data.episodes, TASK.rewards, 0.5).returns.tolist() == [5.0]
    assert to_transitions(data.episodes, TASK.rewards, 0.5, tail_bootstrap=True).returns.tolist() == [10.0]


def test_fingerprint_tells_data_apart_and_nothing_else():
    first, second = an_episode(seed=1), an_episode(seed=2)
    mark = Episodes((first, second)).fingerprint()
    assert len(mark) == 64
    assert mark == Episodes((first, second), "elsewhere", ("a note",)).fingerprint()
    assert mark == Episodes((first._replace(rewards=first.rewards.astype(">f8")), second)).fingerprint()
    others = [
        (second, first),
        (first,),
        (first, second._replace(rewards=second.rewards + 1)),
        (first, second._replace(successes=None)),
        (first, second._replace(terminations=np.array([1, 0, 0]))),
    ]
    assert len({mark, *(Episodes(other).fingerprint() for other in others)}) == 6


def test_fingerprint_is_the_same_on_every_machine():
    episode = an_episode(2)._replace(observations=np.zeros((3, 2)), actions=np.ones((2, 1)))
    expected = "ba409a8518b933cc720755551eeb6abe542b7ea98ec101e02bca1031bd9163ec"
    assert Episodes((episode,)).fingerprint() == expected


def test_truncation_is_no_termination_and_is_noted():
    data = Episodes((an_episode(5, terminated=True, success=[4]), an_episode(2, terminated=True)))
    cut = data.truncate_at_horizon(3)
    assert [e.length for e in cut.episodes] == [3, 2]
    assert [e.truncated for e in cut.episodes] == [True, False]
    assert cut.episodes[0].observations.shape == (4, 2)
    assert not cut.episodes[0].terminations.any()
    assert cut.notes == ("1 of 2 episodes were cut after 3 steps (2 transitions dropped)",)
    assert data.truncate_at_horizon(5).notes == ()


def test_ending_at_the_first_or_last_success():
    data = Episodes((an_episode(6, success=[1, 3]), an_episode(4)))
    first = end_at_success(data, Rewards())
    assert [e.length for e in first.episodes] == [2, 4]
    assert first.episodes[0].terminations.tolist() == [False, True]
    assert [e.truncated for e in first.episodes] == [False, True]
    last = end_at_success(data, Rewards(), last=True, keep_failures=False)
    assert [e.terminations.tolist() for e in last.episodes] == [[False, True, False, True]]
    assert "last success" in last.notes[0]
    assert "1 episodes without success and 6 transitions" in last.notes[0]
    with pytest.raises(InputError, match="no episode has a success"):
        end_at_success(Episodes((an_episode(),)), Rewards(), keep_failures=False)


def test_success_is_recorded_or_told_by_the_rewards():
    silent = an_episode(3, success=[2], record=False)
    assert success_steps(silent, TASK.rewards).tolist() == [False, False, True]
    with pytest.raises(InputError, match="no success signal was recorded, and the rewards do not show"):
        success_steps(silent, Rewards())
    loud = an_episode(3, success=[2])._replace(successes=np.array([True, False, False]))
    assert success_steps(loud, TASK.rewards).tolist() == [True, False, False]
    assert end_at_success(Episodes((silent,)), TASK.rewards).episodes[0].terminations.tolist() == [False, False, True]


def test_names_of_leaves_lead_back_to_the_tree():
    tree = an_episode(keys=True).observations
    same_tree(nest(dict(named_leaves("observations", tree)), "observations"), tree)
    same_tree(map_leaves(lambda x: x, tree), tree)
    assert nest({"rewards": np.zeros(3)}, "observations") is None
