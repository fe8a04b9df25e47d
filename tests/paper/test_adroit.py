"""The hand's binary tasks against the environments they are made of, and against their own contract."""

import os

import h5py
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from calql.paper.envs import adroit
from calql.types import Episode, InputError

HANDS = pytest.mark.parametrize("hand", list(adroit.HANDS))
SIZES = {"pen": (45, 24), "door": (39, 28), "relocate": (39, 30)}


def moves(env, seed: int, steps: int = 60) -> np.ndarray:
    """Random joint targets that are held for some steps."""
    shape = (steps // 5, *env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).repeat(5, axis=0).astype(np.float32)


def rollout(env, seed: int, actions: np.ndarray) -> np.ndarray:
    return np.stack([env.reset(seed=seed)[0], *(env.step(action)[0] for action in actions)])


@HANDS
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*infinity:UserWarning")
def test_follows_gymnasium(hand):
    env = adroit.make(hand)
    check_env(env, skip_render_check=True)
    assert (env.observation_space.shape, env.action_space.shape) == ((SIZES[hand][0],), (SIZES[hand][1],))
    assert env.observation_space.dtype == env.action_space.dtype == np.float32
    env.close()


@HANDS
def test_physics_are_gymnasium_robotics_own(hand):
    theirs, env = adroit.HANDS[hand](), adroit.make(hand)
    actions = moves(env, 0)
    theirs.reset(seed=3)
    expected = [theirs._get_obs(), *(theirs.step(action)[0] for action in actions)]
    np.testing.assert_array_equal(rollout(env, 3, actions), np.stack(expected).astype(np.float32))


@HANDS
def test_reset_determines_the_episode(hand):
    env = adroit.make(hand)
    first = rollout(env, 7, moves(env, 0))
    rollout(env, 1, moves(env, 1))  # whatever happened before
    np.testing.assert_array_equal(rollout(env, 7, moves(env, 0)), first)
    np.testing.assert_array_equal(rollout(adroit.make(hand), 7, moves(env, 0)), first)
    assert not np.array_equal(rollout(env, 8, moves(env, 0))[0], first[0])


@HANDS
def test_a_reset_without_a_seed_goes_on_with_the_generator(hand):
    env = adroit.make(hand)
    starts = [env.reset(seed=5)[0], env.reset()[0], env.reset()[0]]
    np.testing.assert_array_equal([env.reset(seed=5)[0], env.reset()[0], env.reset()[0]], starts)
    assert not np.array_equal(starts[0], starts[1])


@HANDS
def test_actions_beyond_the_bounds_are_clipped(hand):
    env = adroit.make(hand)
    ones = np.ones((5, *env.action_space.shape), np.float32)
    np.testing.assert_array_equal(rollout(env, 0, 5 * ones), rollout(env, 0, ones))


def solved(env: adroit.Adroit) -> None:
    """Put the simulation where the task is all but solved."""
    data = env.simulation.data
    if env.hand == "door":
        data.qpos[28] = 1.36
    elif env.hand == "pen":  # the pen is where it should be; its target turns into it
        env.simulation.model.body_quat[env.simulation.target_obj_body_id] = data.xquat[env.simulation.obj_body_id]
    else:  # three sliding joints carry the ball
        model = env.simulation.model
        model.site_pos[env.simulation.target_obj_site_id] = data.xpos[env.simulation.obj_body_id] + (0, 0, 0.09)


@HANDS
def test_success_pays_and_does_not_end(hand):
    env = adroit.make(hand)
    _, info = env.reset(seed=0)
    assert info == {"success": False}
    still = np.zeros(env.action_space.shape, np.float32)
    results = [env.step(still)[1:]]
    solved(env)
    results.append(env.step(still)[1:])
    assert results == [(-1.0, False, False, {"success": False}), (0.0, False, False, {"success": True})]
    env.close()


@HANDS
def test_success_can_be_read_off_observations(hand):
    env = adroit.make(hand)
    states, signals = [], []
    for seed in range(6):
        env.reset(seed=seed)
        actions = moves(env, seed, 50)
        for step, action in enumerate(actions):
            if step == 10 * (seed % 4):
                solved(env)
            observation, _, _, _, info = env.step(0.2 * action)
            states.append(observation)
            signals.append(info["success"])
    np.testing.assert_array_equal(adroit.success_of(hand, np.stack(states)), signals)
    assert 0.02 < np.mean(signals) < 0.98


def test_success_has_the_leading_axes_of_the_observations():
    assert adroit.success_of("door", np.zeros((3, 2, 39))).shape == (3, 2)
    assert not adroit.success_of("door", np.zeros(39))
    with pytest.raises(InputError, match="39 entries"):
        adroit.success_of("relocate", np.zeros((3, 45)))
    with pytest.raises(InputError, match="did you mean door"):
        adroit.success_of("dor", np.zeros(39))
    with pytest.raises(InputError, match="unknown hand"):
        adroit.make("hammer")


def test_relabelling_turns_dense_rewards_into_binary_ones():
    states = np.zeros((4, 39), np.float32)
    states[:, 28] = [1.4, 1.0, 1.35, 1.2]
    recorded = Episode(states, np.zeros((3, 28), np.float32), np.float32([3, 14, 2]), np.zeros(3, bool), True)
    episode = adroit.relabel(recorded, "door")
    np.testing.assert_array_equal(episode.rewards, np.float32([-1, 0, -1]))
    np.testing.assert_array_equal(episode.successes, [False, True, False])
    assert episode.rewards.dtype == np.float32
    assert episode.truncated
    assert not episode.terminations.any()


@HANDS
def test_rendering_changes_nothing(hand):
    env, seen = adroit.make(hand), adroit.make(hand, render_mode="rgb_array")
    actions = moves(env, 2, 5)
    observations = [seen.reset(seed=3)[0]]
    for action in actions:
        image = seen.render()
        observations.append(seen.step(action)[0])
    seen.close()
    np.testing.assert_array_equal(np.stack(observations), rollout(env, 3, actions))
    assert (image.shape, image.dtype) == ((480, 480, 3), np.uint8)
    assert image.std() > 10


@pytest.mark.skipif("CALQL_DOOR_HDF5" not in os.environ, reason="CALQL_DOOR_HDF5 names no file")
def test_human_demonstrations_open_the_door():
    """Their actions from the rest pose, the door where they saw it: 8 of 25 succeed, as the recorded states (7) say.

    The recording keeps neither the initial state nor velocities, but all demonstrations began at rest in the zero pose
    (`init_state_dict` of `aravindr93/hand_dapg`), and the handle's place tells the door's.
    """
    with h5py.File(os.environ["CALQL_DOOR_HDF5"]) as file:
        rows = {name: np.asarray(file[name]) for name in ("observations", "actions", "timeouts")}
    ends = np.flatnonzero(rows["timeouts"])
    env = adroit.make("door")
    replayed, recorded = [], []
    for start, end in zip([0, *ends[:-1] + 1], ends + 1, strict=True):
        states, actions = rows["observations"][start:end], rows["actions"][start:end]
        replayed.append(any(replay(env, states[0], actions)))
        recorded.append(adroit.success_of("door", states).any())
    assert (sum(replayed), sum(recorded), len(replayed)) == (8, 7, 25)


def replay(env: adroit.Adroit, state: np.ndarray, actions: np.ndarray) -> list[bool]:
    simulation = env.simulation
    start = env.reset(seed=0)[0]
    door = simulation.model.body_pos[simulation.door_body_id] + (state[32:35] - start[32:35])
    simulation.set_env_state({"qpos": np.zeros(30), "qvel": np.zeros(30), "door_body_pos": door})
    return [env.step(action)[-1]["success"] for action in actions]
