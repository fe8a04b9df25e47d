"""Pick and place: the rules against states that were put there by hand, the motions, and the images."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from calql.envs.make import make_env
from calql.paper.demonstrators.pick_place import script
from calql.paper.envs import pick_place
from calql.paper.envs.pick_place import DISTRACTORS, MOVE, TARGETS
from calql.paper.tasks import TASKS
from calql.types import InputError

STILL = np.zeros(7, np.float32)
SIZE = 64


@pytest.fixture(scope="module")
def env():
    return pick_place.make(SIZE)


@pytest.fixture(scope="module")
def cube():
    """The same with these two objects alone."""
    return pick_place.make(SIZE, "cube", "puck")


def act(env, times=1, **parts):
    """Take an action with those components, e.g. dx=1, so often."""
    action = STILL.copy()
    for name, value in parts.items():
        action[["dx", "dy", "dz", "roll", "pitch", "yaw", "grip"].index(name)] = value
    for _ in range(times):
        result = env.step(action)
    return result


def test_follows_gymnasium(env):
    check_env(env, skip_render_check=True)


def test_is_recovered_from_its_spec(env):
    assert isinstance(gymnasium.make(pick_place.SPEC).unwrapped, pick_place.PickPlace)


def test_what_is_seen(env):
    seen, _ = env.reset(seed=1)
    assert (seen["image"].shape, seen["image"].dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert (seen["state"].shape, seen["state"].dtype) == ((10,), np.float32)
    np.testing.assert_allclose(seen["state"][:3], [0.0, 0.22, 0.17], atol=5e-3)
    assert np.linalg.norm(seen["state"][3:7]) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(seen["state"][7:], [0.04, 0.04, 1.0], atol=1e-3)


def test_an_episode_is_a_function_of_seed_and_actions():
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 7)).astype(np.float32)
    first, second = pick_place.make(32), pick_place.make(32)
    second.reset(seed=9)
    act(second, 5, dx=1.0, grip=-1.0)
    for env in (first, second):
        env.seen = [env.reset(seed=3)[0], *(env.step(action)[0] for action in actions)]
    for one, other in zip(first.seen, second.seen, strict=True):
        np.testing.assert_array_equal(one["state"], other["state"])
        np.testing.assert_array_equal(one["image"], other["image"])


def test_places_and_objects_vary_and_keep_their_distance(env):
    seen = set()
    for seed in range(60):
        env.reset(seed=seed)
        seen |= {env.target, env.distractor}
        one, other = env.place(env.target)[:2], env.place(env.distractor)[:2]
        assert np.linalg.norm(one - other) > 0.06
        assert min(np.linalg.norm(one - env.bowl), np.linalg.norm(other - env.bowl)) > 0.10
        for name in {*TARGETS, *DISTRACTORS} - {env.target, env.distractor}:
            assert np.linalg.norm(env.place(name)[:2]) > 3
    assert seen == {*TARGETS, *DISTRACTORS}


def test_the_objects_can_be_chosen_and_places_are_the_same(env):
    chosen = pick_place.make(SIZE, "egg", "peg")
    for seed in range(5):
        chosen.reset(seed=seed)
        env.reset(seed=seed)
        assert (chosen.target, chosen.distractor) == ("egg", "peg")
        np.testing.assert_allclose(chosen.place("egg")[:2], env.place(env.target)[:2], atol=0.02)
    for names in (("peg", None), (None, "egg")):
        with pytest.raises(InputError, match="choose one of"):
            pick_place.make(SIZE, *names)


@pytest.mark.parametrize(("part", "axis"), [("dx", 0), ("dy", 1), ("dz", 2)])
def test_a_full_action_moves_along_its_axis(env, part, axis):
    for sign in (-1.0, 1.0):
        env.reset(seed=0)
        before = env.grasp()
        act(env, **{part: sign})
        act(env)
        moved = env.grasp() - before
        assert 0.5 * MOVE < sign * moved[axis] < MOVE
        assert np.abs(np.delete(moved, axis)).max() < 0.01


def test_yaw_turns_the_hand_and_roll_and_pitch_do_nothing(env):
    env.reset(seed=0)
    before = env.step(STILL)[0]["state"][3:7]
    same = act(env, 3, roll=1.0, pitch=-1.0)[0]["state"][3:7]
    np.testing.assert_allclose(same, before, atol=0.02)
    turned = act(env, 3, yaw=1.0)[0]["state"][3:7]
    assert 2 * np.arccos(min(abs(before @ turned), 1.0)) > 1.5 * pick_place.TURN


def test_the_gripper_changes_beyond_its_thresholds_alone(env):
    env.reset(seed=0)
    for grip, is_open in [(-0.4, True), (-0.6, False), (0.4, False), (0.0, False), (0.6, True)]:
        seen = act(env, grip=grip)[0]["state"]
        assert env.is_open == is_open == bool(seen[9])
        assert (seen[7] > 0.03) == is_open


# -- success -----------------------------------------------------------------------------------------------------------


def settled(cube, name, offset, height):
    """Put an object at that offset [2] from the bowl's centre, at that height, and let it come to rest."""
    cube.reset(seed=2)
    cube.put(name, [*(cube.bowl + offset), height])
    return act(cube, 4)


def test_in_the_bowl(cube):
    _, reward, terminated, truncated, info = settled(cube, "cube", [0.0, 0.0], 0.04)
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)


def test_off_its_middle_but_in_the_bowl(cube):
    assert settled(cube, "cube", [0.025, 0.01], 0.05)[1] == 1.0


def test_the_wrong_object_in_the_bowl(cube):
    assert settled(cube, "puck", [0.0, 0.0], 0.04)[1:4] == (0.0, False, False)


def test_beside_the_bowl(cube):
    assert settled(cube, "cube", [0.1, 0.0], 0.02)[1] == 0.0


def test_on_the_rim(cube):
    cube.reset(seed=2)
    cube.put("cube", [cube.bowl[0] + pick_place.BOWL, cube.bowl[1], pick_place.BOWL_HEIGHT + 0.02])
    assert not cube.solved()


def test_above_the_bowl(cube):
    cube.reset(seed=2)
    for height in (0.06, 0.13):
        cube.put("cube", [*cube.bowl, height])
        assert not cube.solved()


def test_under_the_bowl(cube):
    cube.reset(seed=2)
    for height in (0.004, -0.02):
        cube.put("cube", [*cube.bowl, height])
        assert not cube.solved()


def test_held_is_not_yet_let_go(cube):
    """By a closed gripper in the bowl; it counts as soon as the gripper opens."""
    cube.reset(seed=2)
    steps = script(cube, "cube", cube.bowl)
    while np.linalg.norm(cube.place("cube")[:2] - cube.bowl) > 0.02:
        cube.step(next(steps))
    while cube.grasp()[2] > 0.07:
        _, reward, *_ = act(cube, dz=-0.5)
        assert reward == 0.0
    cube.put("cube", [*cube.bowl, 0.04])
    assert not cube.is_open
    assert not cube.solved()
    assert act(cube, 2, grip=1.0)[1] == 1.0


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [48, 64, 128])
def test_images_of_every_size_show_the_same(size):
    image = pick_place.make(size).reset(seed=5)[0]["image"]
    assert image.shape == (size, size, 3)
    large = pick_place.make(480).reset(seed=5)[0]["image"].astype(float)
    rows = np.arange(size) * 480 // size + 240 // size
    assert np.abs(large[rows][:, rows] - image).mean() < 12


def test_the_target_is_in_the_image_in_its_colour():
    """Where it stands, seen from the front: its mirrored x, and larger y nearer."""
    for name, place in [("cube", (-0.1, 0.2)), ("cube", (0.02, 0.25)), ("can", (-0.1, 0.25))]:
        env = pick_place.make(SIZE, name, "stone")
        env.reset(seed=0)
        env.put("stone", [3, 3, 0.1])
        env.put(name, [*place, 0.03])
        image = act(env)[0]["image"].astype(float) / 255
        colour = np.array(TARGETS[name].colour)
        distance = np.linalg.norm(image / image.sum(-1, keepdims=True) - colour / colour.sum(), axis=-1)
        rows, columns = np.nonzero(distance < 0.12)
        assert len(rows) >= 4
        assert columns.mean() / SIZE == pytest.approx(0.5 - place[0] / 0.45, abs=0.12)


def test_an_image_for_people(env):
    env.reset(seed=0)
    assert env.render().shape == (480, 480, 3)


def test_the_row_takes_a_size():
    task = TASKS["visual-pick-place"]
    assert make_env(task).observation_space["image"].shape == (48, 48, 3)


def test_no_library_that_draws_is_one_clear_line():
    code = "from calql.envs.make import make_env; from calql.paper.tasks import TASKS\n"
    code += "from calql.types import InputError\n"
    code += "try: make_env(TASKS['visual-pick-place']).reset()\nexcept InputError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "MUJOCO_EGL_DEVICE_ID": "99"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "cannot render with egl" in done.stdout, done.stderr
    assert "libegl1" in done.stdout
