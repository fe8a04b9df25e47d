"""Rolling out: seeds, horizon, ends, and scores."""

import gymnasium
import numpy as np
import pytest

from calql.envs.rollout import Outcome, collect_episode, ending_at_success, evaluate, roll, score_of
from calql.rewards import Rewards
from calql.tasks import Task
from calql.types import InputError


class Walk(gymnasium.Env):
    """The observation is (start drawn from the seed, steps so far); the reward is the start plus the action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, terminate_after=None, truncate_after=None, success_at=()):
        self.ends, self.success_at, self.seeds = (terminate_after, truncate_after), success_at, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.start, self.steps = float(self.np_random.integers(1000)), 0
        return np.array([self.start, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        terminated, truncated = (self.steps == end for end in self.ends)
        info = {"success": self.steps in self.success_at}
        return np.array([self.start, self.steps], np.float32), self.start + action[0], terminated, truncated, info


class Seeded(Walk):
    """Ends after 1 + start % 7 steps, so that parallel episodes end at different times."""

    def step(self, action):
        self.ends = (1 + int(self.start) % 7, None)
        return super().step(action)


def task(**options):
    return Task(**{"id": "walk", "env": Walk, "horizon": 10, "data": None} | options)


def half(observations, steps, rewards):
    assert observations.shape[1:] == (2,)
    return np.full((len(observations), 1), 0.5, np.float32)


def by_state(observations, steps, rewards):
    return (observations.sum(axis=1, keepdims=True) % 2 - 0.5).astype(np.float32)


def half_sign(observations, back):
    """What `by_state` did so many steps before."""
    return (observations.sum(axis=1) - back) % 2 - 0.5


SEEDS = [3, 1, 4, 15, 9, 2, 6]


@pytest.mark.parametrize("parallel", [1, 3, 7, 10])
def test_each_seed_has_its_own_episode_however_many_run_side_by_side(parallel):
    alone = [evaluate([Seeded()], task(), by_state, [seed])[0] for seed in SEEDS]
    assert len({outcome.length for outcome in alone}) > 2
    envs = [Seeded() for _ in range(parallel)]
    sizes = []

    def act(observations, steps, rewards):
        assert len(observations) == len(steps) == len(rewards)
        np.testing.assert_array_equal(observations[:, 1], steps)  # each row has its own episode's step
        np.testing.assert_allclose(rewards, np.where(steps > 0, observations[:, 0] + half_sign(observations, 1), 0))
        sizes.append(len(observations))
        return by_state(observations, steps, rewards)

    assert evaluate(envs, task(), act, SEEDS) == alone
    assert sorted(seed for env in envs for seed in env.seeds) == sorted(SEEDS)
    assert set(sizes) == {parallel}  # one compiled program


class Quiet(Walk):
    """Tells success at no step, or only at some."""

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {"success": True} if info["success"] else {}


def test_a_score_by_success_is_not_measured_where_no_step_tells_success():
    for score in ("success", "speed"):
        outcomes = evaluate([Quiet(), Quiet()], task(score=score), half, [0, 1, 2])
        assert [outcome.score for outcome in outcomes] == [None] * 3
    assert collect_episode(Quiet(), task(stop_at_success=True), half, 0).successes is None
    # One step that tells success tells that the other episodes have none.
    sometimes = [Quiet(success_at=(4,)), Quiet()]
    assert sorted(outcome.score for outcome in evaluate(sometimes, task(), half, [0, 1])) == [0.0, 1.0]
    assert evaluate([Quiet()], task(score="return", score_range=(0.0, 1.0)), half, [0])[0].score is not None


def test_an_episode_is_cut_at_the_horizon():
    for env in (Walk(), Walk(terminate_after=10)):
        (outcome,) = evaluate([env], task(), half, [0])
        assert outcome == Outcome(0.0, pytest.approx(10 * (env.start + 0.5)), 10)
    assert evaluate([Walk(truncate_after=4)], task(), half, [0])[0].length == 4


@pytest.mark.parametrize(("stop", "length"), [(False, 10), (True, 4)])
def test_stop_at_success(stop, length):
    (outcome,) = evaluate([Walk(success_at=(4, 6))], task(stop_at_success=stop), half, [0])
    assert (outcome.score, outcome.length) == (1.0, length)
    episode = collect_episode(Walk(success_at=(4, 6)), task(stop_at_success=stop), half, 0)
    assert episode.length == length
    assert episode.terminations.tolist() == [stop and i == length - 1 for i in range(length)]
    assert episode.truncated == (not stop)


def test_total_reward_is_on_mapped_rewards_and_the_score_on_raw_ones():
    env = Walk(terminate_after=2)
    (outcome,) = evaluate([env], task(rewards=Rewards(scale=10.0, bias=-5.0), score="last_reward/2000"), half, [0])
    assert outcome.total_reward == pytest.approx(2 * (10 * (env.start + 0.5) - 5))
    assert outcome.score == pytest.approx((env.start + 0.5) / 2000)


def test_score_rules():
    assert score_of(task(), [0.0, 9.0], [True, False]) == 1.0
    assert score_of(task(), [9.0, 9.0], [False, False]) == 0.0
    assert score_of(task(score="last_reward/4"), [1.0, 3.0, 2.0], [True, True, False]) == 0.5
    assert score_of(task(score="speed"), [0.0] * 4, [False, False, False, True]) == pytest.approx(0.7)
    assert score_of(task(score="speed"), [0.0] * 2, [True, False]) == 1.0
    assert score_of(task(score="speed"), [0.0] * 4, [False] * 4) == 0.0
    pays = task(score="return", score_range=(-10.0, 30.0))
    assert score_of(pays, [10.0, -5.0, 5.0], [None, None, None]) == pytest.approx(0.5)
    assert score_of(pays, [70.0], [None]) == 2.0  # as in D4RL, scaled returns may leave [0, 1]
    for reward in (-1.0, 4.5):
        with pytest.raises(InputError, match=r"outside \[0, 4\].*score=return"):
            score_of(task(score="last_reward/4"), [1.0, reward], [False, False])
    with pytest.raises(ValueError, match="best_of_three"):
        score_of(task(score="best_of_three"), [0.0], [False])


@pytest.mark.parametrize(
    ("ends", "length", "terminated"),
    [
        ({"terminate_after": 3}, 3, True),
        ({"truncate_after": 3}, 3, False),
        ({}, 10, False),
        ({"terminate_after": 10}, 10, True),  # the task ends with its last possible step: no time-out
        ({"terminate_after": 3, "truncate_after": 3}, 3, True),
    ],
)
def test_collected_episodes_tell_terminated_from_truncated(ends, length, terminated):
    env = Walk(**ends)
    episode = collect_episode(env, task(), half, seed=5)
    assert env.seeds == [5]
    assert episode.length == length
    assert episode.terminations.tolist() == [False] * (length - 1) + [terminated]
    assert episode.truncated == (not terminated)


def test_collected_episodes_hold_raw_rewards_all_states_and_the_actions_taken():
    steps, rewards = [], []

    def act(observations, now, paid):
        assert observations.shape == (1, 2)
        steps.append(int(now[0]))
        rewards.append(float(paid[0]))
        return np.array([[now[0] / 10]], np.float32)

    episode = collect_episode(Walk(terminate_after=4, success_at=(2,)), task(rewards=Rewards(scale=10.0)), act, seed=5)
    assert steps == [0, 1, 2, 3]
    start = episode.observations[0, 0]
    np.testing.assert_array_equal(episode.observations, [[start, t] for t in range(5)])
    np.testing.assert_allclose(episode.actions[:, 0], [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(episode.rewards, start + episode.actions[:, 0])
    np.testing.assert_allclose(rewards, [0.0, *(10 * episode.rewards[:-1])])  # mapped, of the step before
    assert episode.successes.tolist() == [False, True, False, False]
    assert episode.actions.dtype == episode.rewards.dtype == np.float32


def test_collecting_survives_environments_that_reuse_their_arrays():
    class Reusing(Walk):
        def step(self, action):
            following, *rest = super().step(action)
            self.buffer[:] = following
            return self.buffer, *rest

        def reset(self, **options):
            self.buffer, info = super().reset(**options)
            return self.buffer, info

    episode = collect_episode(Reusing(terminate_after=3), task(), half, seed=0)
    assert episode.observations[:, 1].tolist() == [0, 1, 2, 3]


def test_dictionaries_of_observations():
    class Dictionary(Walk):
        def reset(self, **options):
            observation, info = super().reset(**options)
            return {"start": observation[:1], "steps": observation[1:]}, info

        def step(self, action):
            observation, *rest = super().step(action)
            return {"start": observation[:1], "steps": observation[1:]}, *rest

    def act(observations, steps, rewards):
        return np.zeros((len(observations["start"]), 1), np.float32)

    episode = collect_episode(Dictionary(terminate_after=3), task(), act, seed=0)
    assert {name: x.shape for name, x in episode.observations.items()} == {"start": (4, 1), "steps": (4, 1)}
    outcomes = evaluate([Dictionary(terminate_after=3) for _ in range(2)], task(), act, [1, 2, 3])
    assert [outcome.length for outcome in outcomes] == [3, 3, 3]


# -- the loop itself ---------------------------------------------------------------------------------------------------


def test_a_rollout_ends_at_the_horizon_where_the_policy_stops_or_where_it_is_told():
    def rolled(policy, env=None, **options):
        env = env or Walk(terminate_after=5, success_at=(2,))
        return roll(env, env.reset(seed=1)[0], policy, **{"horizon": 10} | options)

    def push(observation, before):
        return np.array([0.5], np.float32)

    def twice(observation, before):
        return None if before is not None and before.observation[1] == 2 else push(observation, before)

    whole = rolled(push)
    assert (whole.length, whole.truncated, whole.terminations.tolist()) == (5, False, 4 * [False] + [True])
    assert whole.successes.tolist() == [False, True, False, False, False]
    cut = [rolled(push, horizon=3), rolled(twice), rolled(push, Walk(truncate_after=4))]
    assert [(episode.length, episode.truncated) for episode in cut] == [(3, True), (2, True), (4, True)]
    won = rolled(push, over=lambda step: step.success)
    assert (won.length, won.truncated) == (2, True)
    assert ending_at_success(won).terminations.tolist() == [False, True]
    assert not ending_at_success(won).truncated
    on = rolled(push, Walk(terminate_after=2), horizon=4, over=lambda step: False)  # a recording that goes on
    assert (on.length, on.truncated, on.terminations.tolist()) == (4, True, [False, True, False, False])


def test_a_rollout_keeps_what_the_environment_writes_over():
    class Reused(Walk):
        """Hands out one and the same dict of arrays, filled anew."""

        def reset(self, **options):
            self.seen = {"state": super().reset(**options)[0]}
            return self.seen, {}

        def step(self, action):
            self.seen["state"][:], *rest = super().step(action)
            return self.seen, *rest

    env = Reused(terminate_after=3)
    episode = roll(env, env.reset(seed=1)[0], lambda observation, before: np.zeros(1), horizon=10)
    assert episode.observations["state"][:, 1].tolist() == [0, 1, 2, 3]
