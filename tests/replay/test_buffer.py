"""Replay against a plain list: fixed data in front, a first-in-first-out ring of whole episodes behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calql.replay import add_episode, buffer, make_replay, newest, put_back, rows_dropped, sample, sample_windows
from calql.replay.buffer import UNION
from calql.types import Transition

HORIZON, CAPACITY = 6, 11
LIKE = Transition(
    observations={"image": np.zeros((2, 2), np.uint8), "state": np.zeros(3, np.float32)},
    actions=np.zeros(2, np.float32),
    rewards=np.float32(0),
    next_observations={"image": np.zeros((2, 2), np.uint8), "state": np.zeros(3, np.float32)},
    masks=np.float32(0),
    returns=np.float32(0),
)
draw = jax.jit(sample, static_argnames="batch_size")


def rows(ids, padded_to=None):
    """Transitions in which every leaf tells the row's id (padding: 255, which is nobody's id)."""
    ids = np.asarray(ids)
    if padded_to is not None:
        ids = np.concatenate([ids, np.full(padded_to - len(ids), 255, ids.dtype)])

    def fill(example, factor):
        example = np.asarray(example)
        values = (ids * factor).astype(example.dtype).reshape(-1, *[1] * example.ndim)
        return np.broadcast_to(values, (len(ids), *example.shape)).copy()

    observation = jax.tree.map(lambda x: fill(x, 1), LIKE.observations)
    following = jax.tree.map(lambda x: fill(x, 1), LIKE.next_observations)
    return Transition(observation, fill(LIKE.actions, 2), fill(LIKE.rewards, 3), following, fill(LIKE.masks, 5),
                      fill(LIKE.returns, -7))  # fmt: skip


def ids_of(batch):
    """The ids in a batch; asserts that all leaves of a row belong together."""
    ids = np.asarray(batch.rewards) / 3
    expected = rows(ids.astype(int))
    jax.tree.map(np.testing.assert_array_equal, batch, expected)
    return ids.astype(int).tolist()


def contents(replay):
    """(offline ids, online ids in the order of the ring)."""
    offline, online = int(replay.offline), int(replay.online)
    stored = ids_of(jax.tree.map(lambda x: np.asarray(x)[: offline + online], replay.storage))
    return stored[:offline], stored[offline:]


def filled(offline=0, online=0, capacity=CAPACITY):
    replay = make_replay(rows(range(offline)) if offline else None, LIKE, capacity)
    for first in range(100, 100 + online, HORIZON):
        episode = range(first, min(first + HORIZON, 100 + online))
        replay = add_episode(replay, rows(episode, HORIZON), jnp.int32(len(episode)))
    return replay


@settings(max_examples=40, deadline=None)
@given(
    offline=st.sampled_from([0, 1, 7]),
    lengths=st.lists(st.integers(0, HORIZON), max_size=9),
    capacity=st.sampled_from([HORIZON, CAPACITY]),
)
def test_the_ring_holds_the_latest_transitions_in_order(offline, lengths, capacity):
    replay, model, next_id = make_replay(rows(range(offline)) if offline else None, LIKE, capacity), [], 50
    for length in lengths:
        episode = list(range(next_id, next_id + length))
        next_id += length
        replay = add_episode(replay, rows(episode, HORIZON), jnp.int32(length))
        model = (model + episode)[-capacity:]
        data, ring = contents(replay)
        assert data == list(range(offline))
        assert sorted(ring) == model
        cursor = int(replay.cursor)
        assert (ring[cursor:] + ring[:cursor] if len(ring) == capacity else ring) == model
        assert 0 <= cursor < capacity
    if offline + len(model):
        drawn = ids_of(draw(replay, jax.random.key(len(lengths)), 64, 0.5))
        assert set(drawn) <= {*range(offline), *model}


def test_episodes_of_all_lengths_share_one_program():
    replay = make_replay(rows(range(3)), LIKE, 13)
    add_episode(replay, rows([1], HORIZON), jnp.int32(1))
    compiled = add_episode._cache_size()
    replay = make_replay(rows(range(3)), LIKE, 13)
    for length in range(HORIZON + 1):
        replay = add_episode(replay, rows(range(length), HORIZON), jnp.int32(length))
    assert add_episode._cache_size() == compiled


def test_growth_and_mixing_share_one_program():
    own = jax.jit(lambda *arguments: sample(*arguments[:2], 8, arguments[2]))
    for online, mixing in ((0, 0.5), (4, 0.25), (9, -1.0), (30, 1.0)):
        own(filled(5, online), jax.random.key(0), jnp.float32(mixing))
    assert own._cache_size() == 1


@pytest.mark.parametrize("mixing", [0.0, 0.25, 0.5, 0.3, 1.0])
@pytest.mark.parametrize("batch_size", [1, 8, 10, 64])
def test_the_offline_share_of_a_batch_is_exact(mixing, batch_size):
    replay = filled(offline=5, online=9)
    for seed in range(3):
        ids = np.array(ids_of(draw(replay, jax.random.key(seed), batch_size, mixing)))
        assert len(ids) == batch_size
        assert (ids < 5).sum() == int(np.floor(mixing * batch_size))
        assert set(ids) <= {*range(5), *range(100, 109)}


@pytest.mark.parametrize(("offline", "online"), [(6, 2), (6, 6), (2, 9), (5, 30)])
def test_the_union_is_sampled_in_proportion_to_the_sizes(offline, online):
    replay = filled(offline, online)
    ids = np.array(ids_of(draw(replay, jax.random.key(1), 64, UNION)))
    share = offline / (offline + min(online, CAPACITY))
    assert (ids < 100).sum() == int(np.floor(share * 64))


@pytest.mark.parametrize("mixing", [UNION, 0.0, 0.5, 1.0])
def test_where_one_side_is_empty_the_other_fills_the_batch(mixing):
    assert set(ids_of(draw(filled(offline=5), jax.random.key(0), 64, mixing))) <= set(range(5))
    assert set(ids_of(draw(filled(online=9), jax.random.key(0), 64, mixing))) <= set(range(100, 109))


@pytest.mark.parametrize("mixing", [0.5, UNION])
def test_every_valid_row_is_equally_likely(mixing):
    replay = filled(offline=7, online=20)
    ids = ids_of(draw(replay, jax.random.key(2), 7 * 11 * 60, mixing))
    counts = np.bincount(ids, minlength=130)
    for side in (counts[:7], counts[109:120]):  # of 20 online rows the last 11 are left
        assert side.sum() > 1500
        assert stats.chisquare(side).pvalue > 1e-3
    assert counts[7:109].sum() == counts[120:].sum() == 0


def test_draws_differ_with_the_key_and_only_with_the_key():
    replay = filled(offline=7, online=9)
    one, same, other = (ids_of(draw(replay, jax.random.key(k), 32, 0.5)) for k in (0, 0, 1))
    assert one == same
    assert one != other


def test_offline_data_are_never_overwritten():
    replay = filled(offline=7, online=60)
    assert contents(replay)[0] == list(range(7))


def test_returns_and_dtypes_are_kept():
    replay = filled(offline=2, online=4)
    batch = draw(replay, jax.random.key(0), 16, 0.5)
    assert jax.tree.map(lambda x: x.dtype, batch) == jax.tree.map(lambda x: np.asarray(x).dtype, LIKE)
    np.testing.assert_array_equal(batch.returns, -7 * np.asarray(batch.rewards) / 3)


def test_without_room_for_online_data_sampling_still_works():
    replay = make_replay(rows(range(5)), LIKE, 0)
    assert set(ids_of(draw(replay, jax.random.key(0), 64, 1.0))) == set(range(5))


# -- one buffer, and what a checkpoint keeps ---------------------------------------------------------------------------


@pytest.mark.parametrize("one_buffer", [False, True])
@pytest.mark.parametrize("online", [0, 4, 9, 25])
@pytest.mark.parametrize("block", [1, 30, 10**6])
def test_the_newest_rows_and_how_many_were_collected_are_all_that_must_be_kept(one_buffer, online, block, monkeypatch):
    monkeypatch.setattr(buffer, "BLOCK", block)

    def fresh():
        return make_replay(rows(range(7)), LIKE, CAPACITY, one_buffer=one_buffer)

    replay = fresh()
    for first in range(100, 100 + online, HORIZON):
        episode = range(first, min(first + HORIZON, 100 + online))
        replay = add_episode(replay, rows(episode, HORIZON), jnp.int32(len(episode)))
    kept = newest(replay, online)
    assert ids_of(kept) == list(range(100, 100 + online))[-CAPACITY:]
    jax.tree.map(np.testing.assert_array_equal, put_back(fresh(), kept, online), replay)


def test_in_one_buffer_the_oldest_data_are_overwritten_first():
    replay = make_replay(rows(range(7)), LIKE, CAPACITY, one_buffer=True)
    assert contents(replay) == ([], [0, 1, 2, 3, 4, 5, 6])
    replay = add_episode(replay, rows(range(100, 106), HORIZON), jnp.int32(6))
    assert contents(replay) == ([], [104, 105, 2, 3, 4, 5, 6, 100, 101, 102, 103])


def test_one_buffer_keeps_the_newest_of_data_that_are_larger():
    replay = make_replay(rows(range(CAPACITY + 3)), LIKE, CAPACITY, one_buffer=True)
    assert contents(replay) == ([], list(range(3, CAPACITY + 3)))
    assert rows_dropped(rows(range(CAPACITY + 3)), CAPACITY, one_buffer=True) == 3
    assert rows_dropped(rows(range(CAPACITY + 3)), CAPACITY, one_buffer=False) == 0
    replay = add_episode(replay, rows(range(100, 102), HORIZON), jnp.int32(2))
    assert contents(replay)[1][:3] == [100, 101, 5]


# -- windows -----------------------------------------------------------------------------------------------------------


def episode_rows(ids):
    """Transitions of one episode that know their step."""
    return rows(ids)._replace(
        to_go=np.arange(len(ids), 0, -1, dtype=np.float32), timesteps=np.arange(len(ids), dtype=np.int32)
    )


def padded(ids):
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((HORIZON - len(x), *x.shape[1:]), x.dtype)]), episode_rows(ids)
    )


def join(*episodes):
    return jax.tree.map(lambda *x: np.concatenate(x), *episodes)


WINDOWS = jax.jit(sample_windows, static_argnames=("batch_size", "length"))


def assert_windows_are_stretches_of(replay, episodes, length):
    """Every window is a run of one episode from one of its steps, as long as it goes on or `length`; all occur."""
    batch = jax.tree.map(np.asarray, WINDOWS(replay, jax.random.key(0), 600, UNION, length))
    seen = set()
    for i in range(600):
        valid = batch.valid[i]
        count = int(valid.sum())
        assert valid.tolist() == [True] * count + [False] * (length - count)
        ids = (batch.actions[i, :count, 0] / 2).astype(int).tolist()
        episode = next(e for e in episodes if ids[0] in e)
        assert ids == episode[episode.index(ids[0]) :][:length]
        assert (np.diff(batch.timesteps[i, :count]) == 1).all()
        seen.add(ids[0])
    assert seen == {step for e in episodes for step in e}


@pytest.mark.parametrize("length", [1, 3, 8])
def test_windows_end_with_their_episode(length):
    offline = join(episode_rows([1, 2, 3]), episode_rows([4]), episode_rows([5, 6, 7, 8]))
    like = jax.tree.map(lambda x: x[0], offline)
    replay = make_replay(offline, like, CAPACITY)
    assert_windows_are_stretches_of(replay, [[1, 2, 3], [4], [5, 6, 7, 8]], length)
    episodes = [[1, 2, 3], [4], [5, 6, 7, 8]]
    online = [[20, 21, 22, 23, 24], [30, 31, 32], [40, 41, 42, 43, 44, 45]]
    for ids in online:
        replay = add_episode(replay, padded(ids), jnp.int32(len(ids)))
    # Fourteen steps in a ring of eleven: three of the first online episode are gone.
    assert_windows_are_stretches_of(replay, [*episodes, [23, 24], *online[1:]], length)
