"""The kitchen against the environment it is made of, and against hand-worked episodes."""

import mujoco
import numpy as np
import pytest
from gymnasium import make as recover
from gymnasium.utils.env_checker import check_env
from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

from calql.envs.make import make_env
from calql.paper.envs import kitchen
from calql.paper.tasks import TASKS
from calql.types import Episode, InputError

FOUR = ("microwave", "kettle", "light switch", "slide cabinet")
STILL = np.zeros(9, np.float32)


def actions(seed: int, steps: int = 60) -> np.ndarray:
    """Motions that are held for some steps, so that the arm meets the kitchen."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps // 5, 9)).repeat(5, axis=0).astype(np.float32)


def rollout(env, seed, moves) -> np.ndarray:
    return np.stack([env.reset(seed=seed)[0], *(env.step(move)[0] for move in moves)])


def put(env, name: str, solved: bool) -> None:
    """The subtask's joints at their goal, or where they start."""
    where = kitchen.OBS_ELEMENT_INDICES[name]
    env.data.qpos[where] = kitchen.OBS_ELEMENT_GOALS[name] if solved else kitchen.START[where]
    env.data.qvel[:] = 0


@pytest.fixture
def env():
    env = kitchen.make()
    yield env
    env.close()


@pytest.fixture(scope="module")
def theirs():
    """FrankaKitchen-v1 without noise, where it can be made."""
    try:
        return KitchenEnv(
            tasks_to_complete=list(FOUR),
            terminate_on_tasks_completed=False,
            remove_task_when_completed=False,
            robot_noise_ratio=0.0,
            object_noise_ratio=0.0,
        )
    except AssertionError:
        pytest.skip(f"FrankaKitchen-v1 cannot be made with MuJoCo {mujoco.__version__}")


def test_follows_gymnasium(env):
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("seed", range(3))
def test_physics_are_franka_kitchen_s_own(theirs, seed):
    moves = actions(seed, 150)
    states = [theirs.reset(seed=0)[0]["observation"]]
    states += [theirs.step(np.float64(move))[0]["observation"] for move in moves]
    expected = np.stack(states)[:, np.r_[:9, 18:39]].astype(np.float32)
    assert np.ptp(expected[:, :7], axis=0).min() > 0.3  # so the arm did move
    np.testing.assert_array_equal(rollout(kitchen.make(noise=0.0), 0, moves)[:, :30], expected)


def test_observation_is_robot_objects_goal(env):
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation[:30], kitchen.START, atol=0.011)
    goal = np.zeros(30)
    goal[17:19], goal[19], goal[22] = (-0.69, -0.05), 0.37, -0.75
    goal[23:30] = -0.23, 0.75, 1.62, 0.99, 0, 0, -0.06
    np.testing.assert_array_equal(observation[30:], goal.astype(np.float32))
    np.testing.assert_array_equal(env.step(STILL)[0][30:], observation[30:])


def test_noise_has_the_amplitude_of_d4rl(env):
    offset = np.stack([env.reset(seed=seed)[0][:30] for seed in range(300)]) - kitchen.START
    half_width = 0.1 * np.array(
        [0.1] * 9 + [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005]
    )
    assert (np.abs(offset).max(0) <= half_width * 1.01).all()
    assert (np.abs(offset).max(0) >= half_width * 0.9).all()


def test_noise_moves_the_arm(env):
    """A target is the last observed position plus the action, as in D4RL."""
    env.reset(seed=0)
    observed = env.step(STILL)[0][:7].astype(np.float64)
    env.step(STILL)
    np.testing.assert_allclose(env.data.ctrl[:7], observed, atol=1e-6)


def test_reset_determines_the_episode(env):
    first = rollout(env, 7, actions(0))
    rollout(env, 1, actions(1))  # whatever happened before
    np.testing.assert_array_equal(rollout(env, 7, actions(0)), first)
    np.testing.assert_array_equal(rollout(kitchen.make(), 7, actions(0)), first)
    assert not np.array_equal(rollout(env, 8, actions(0))[0], first[0])


def test_reward_counts_what_was_solved_so_far_and_nothing_ends(env):
    _, info = env.reset(seed=0)
    assert info == {"success": False, "solved": ()}
    rewards, ends = [], []

    def step():
        nonlocal info
        _, reward, terminated, truncated, info = env.step(STILL)
        rewards.append(reward)
        ends.append(terminated or truncated)

    step()
    put(env, "slide cabinet", True)
    step()
    put(env, "slide cabinet", False)
    step()
    assert info == {"success": False, "solved": ("slide cabinet",)}  # undone, and still counted
    put(env, "bottom burner", True)
    step()  # not one of the tasks
    put(env, "microwave", True)
    put(env, "light switch", True)
    step()
    put(env, "kettle", True)
    step()
    assert info["success"]
    assert set(info["solved"]) == set(FOUR)
    for name in FOUR:
        put(env, name, False)
    for _ in range(3):
        step()
    assert rewards == [0, 1, 1, 1, 3, 4, 4, 4, 4]
    assert not any(ends)
    assert info["success"]
    assert not env.reset(seed=0)[1]["success"]
    assert env.step(STILL)[1] == 0


@pytest.mark.parametrize(
    ("name", "joint", "solved", "unsolved"),
    [
        ("microwave", 22, -0.46, -0.44),
        ("slide cabinet", 19, 0.08, 0.06),
        ("bottom burner", 11, -0.59, -0.57),
        ("light switch", 17, -0.40, -0.38),
        ("kettle", 24, 0.46, 0.44),
    ],
)
def test_thresholds(name, joint, solved, unsolved):
    joints = kitchen.START.copy()
    assert not kitchen.is_solved(name, joints)
    joints[kitchen.OBS_ELEMENT_INDICES[name]] = kitchen.OBS_ELEMENT_GOALS[name]
    joints[joint] = solved
    assert kitchen.is_solved(name, joints)
    joints[joint] = unsolved
    assert not kitchen.is_solved(name, joints)
    assert kitchen.is_solved(name, np.stack([joints, kitchen.START])).tolist() == [False, False]


def test_actions_beyond_the_bounds_are_clipped(env):
    np.testing.assert_array_equal(rollout(env, 0, 5 * np.ones((5, 9))), rollout(env, 0, np.ones((5, 9))))


@pytest.mark.parametrize("tasks", [("kettle", "toaster"), (), ("kettle", "kettle")])
def test_impossible_tasks_are_input_errors(tasks):
    with pytest.raises(InputError):
        kitchen.make(tasks)


@pytest.mark.parametrize("task", ["kitchen-complete", "kitchen-partial", "kitchen-mixed"])
def test_rows_make_it(task):
    env = make_env(TASKS[task])
    assert env.observation_space.shape == (60,)
    goal = env.reset(seed=0)[0][30:]
    knob, cabinet = goal[11] != 0, goal[19] != 0
    assert (knob, cabinet) == ((True, False) if task == "kitchen-mixed" else (False, True))
    env.close()


def test_is_recovered_from_its_spec():
    env = kitchen.make(("kettle",), noise=0.0)
    again = recover(env.spec)
    assert (again.unwrapped.tasks, again.spec.kwargs) == (("kettle",), env.spec.kwargs)
    np.testing.assert_array_equal(rollout(again.unwrapped, 0, actions(0, 5)), rollout(env, 0, actions(0, 5)))


def test_draws_an_image_and_changes_nothing():
    seen = kitchen.make(render_mode="rgb_array")
    observations = [seen.reset(seed=3)[0]]
    image = seen.render()
    observations += [seen.step(move)[0] for move in actions(2, 5)]
    seen.close()
    np.testing.assert_array_equal(np.stack(observations), rollout(kitchen.make(), 3, actions(2, 5)))
    assert (image.shape, image.dtype) == ((480, 480, 3), np.uint8)
    assert image.std() > 10


def test_adapts_recordings_of_franka_kitchen(theirs):
    """Minari's recordings: dict observations in, [T + 1, 60] out, rewards as they were."""
    moves = actions(0, 5)
    steps = [theirs.reset(seed=0)[0], *(theirs.step(np.float64(move))[0] for move in moves)]
    states = np.stack([step["observation"] for step in steps])
    states[3, 18:39][[8, 9, 10, 13]] = -0.69, -0.05, 0.37, -0.75  # light switch 17, 18, slide 19, microwave 22
    states[3, 18 + 14 : 39] = kitchen.OBS_ELEMENT_GOALS["kettle"]
    rewards = np.array([0, 1, 4, 0, 0], np.float32)
    recorded = Episode({"observation": states, "achieved_goal": {}}, moves, rewards, np.zeros(5, bool), True)
    adapted = kitchen.from_gymnasium_robotics(recorded, FOUR)
    np.testing.assert_array_equal(adapted.observations[[0, 1, 2]], rollout(kitchen.make(noise=0.0), 0, moves)[:3])
    assert adapted.observations.shape == (6, 60)
    assert adapted.observations.dtype == np.float32
    assert adapted.successes.tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(adapted.rewards, rewards)
    with pytest.raises(InputError, match="FrankaKitchen-v1"):
        kitchen.from_gymnasium_robotics(recorded._replace(observations=states), FOUR)
