"""How episodes end: what each environment says of episodes that are known to end in a certain way."""

import math

import numpy as np
import pytest

from calql.envs.make import make_env
from calql.evaluation.endings import SUCCESS, ending, watch
from calql.paper.envs.kitchen import OBS_ELEMENT_INDICES, goal_vector
from calql.paper.tasks import TASKS
from calql.reports.coverage import paths_figure
from calql.types import Episode


def episode(observations, success=False, terminated=False):
    """An episode with these observations [T + 1, …]; success at its last step."""
    steps = len(observations) - 1
    last = np.arange(steps) == steps - 1
    return Episode(
        np.asarray(observations, np.float32),
        np.zeros((steps, 2), np.float32),
        np.zeros(steps, np.float32),
        last & terminated,
        not terminated,
        last & success,
    )


def ending_of(task, observations, **how):
    env = make_env(TASKS[task])
    env.reset(seed=0)
    made = ending(env, episode(observations, **how))
    env.close()
    return made


class Plain:
    unwrapped = None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, "out of time"),
        ({"terminated": True}, "terminated without success"),
        ({"success": True, "terminated": True}, "success"),
    ],
)
def test_an_environment_that_says_nothing(how, said):
    told = ending(Plain(), episode(np.zeros((4, 2)), **how))
    assert told.how == said
    assert told.progress == 1.0 if said == "success" else math.isnan(told.progress)


def test_an_ant_reaches_the_goal_falls_sticks_or_runs_out_of_time():
    env = make_env(TASKS["antmaze-medium-play"])
    ant, _ = env.reset(seed=0)
    walked = np.repeat(ant[None], 301, axis=0)
    assert ending(env, episode(walked)) == ("stuck near (0, 0)", 0.0)
    walked[:, 0] += np.linspace(0.0, 4.0, 301)  # one cell of ten
    assert ending(env, episode(walked)) == ("out of time on the way", pytest.approx(0.1))
    walked[150:, 0] = 4.0
    assert ending(env, episode(walked)) == ("stuck near (4, 0)", pytest.approx(0.1))
    walked[-1, 3:7] = [0.0, 1.0, 0.0, 0.0]  # half a turn about x
    assert ending(env, episode(walked))[0] == "fell on its back"
    assert ending(env, episode(walked, success=True)) is SUCCESS
    walked[:] = ant
    walked[150:, :2] = env.unwrapped.goal + 1.0  # in the goal's cell, and not at the goal
    told = ending(env, episode(walked))
    assert told.progress == 1.0
    assert told is not SUCCESS
    figure = paths_figure({"IQL": [(episode(walked), told)]}, env.unwrapped.floor_plan())
    assert figure.axes[0].get_title("left") == "IQL: 0 of 1 episodes reach the goal"
    env.close()


def test_a_pen_is_dropped_or_not_turned_far_enough():
    seen = np.zeros((5, 45))
    seen[:, 33:36], seen[:, 36:39] = [1, 0, 0], [0, 1, 0]
    assert ending_of("pen-binary", seen) == ("the pen was not turned far enough", 0.0)
    seen[2, 33:36] = [np.cos(np.pi / 4), np.sin(np.pi / 4), 0]
    assert ending_of("pen-binary", seen)[1] == pytest.approx(0.5)
    seen[-1, 41] = -0.3
    assert ending_of("pen-binary", seen)[0] == "the pen was dropped"


def test_a_door_is_shut_or_opened_a_little():
    seen = np.zeros((5, 39))
    assert ending_of("door-binary", seen) == ("the latch was not turned", 0.0)
    seen[2:, 27] = 1.8
    assert ending_of("door-binary", seen)[0] == "the latch was turned, the door not opened"
    seen[3, 28] = 0.675
    assert ending_of("door-binary", seen) == ("the door was opened a little", pytest.approx(0.5))


def test_a_ball_is_left_lost_or_carried_elsewhere():
    seen = np.zeros((5, 39))
    seen[:, 36:39] = [0.4, 0.0, -0.2]
    assert ending_of("relocate-binary", seen) == ("the ball was not lifted", 0.0)
    seen[2, 38] = 0.0
    assert ending_of("relocate-binary", seen)[0] == "the ball was lifted, and not held"
    seen[2:, 38] = 0.0
    assert ending_of("relocate-binary", seen)[0] == "the ball was carried elsewhere"


def test_the_kitchen_names_what_was_solved():
    env = make_env(TASKS["kitchen-complete"])
    first, _ = env.reset(seed=0)
    seen = np.repeat(first[None], 5, axis=0)
    assert ending(env, episode(seen)) == ("no subtask", 0.0)
    goal = goal_vector(["kettle", "microwave"])
    kettle, microwave = (OBS_ELEMENT_INDICES[name] for name in ("kettle", "microwave"))
    seen[2:, kettle], seen[3, microwave] = goal[kettle], goal[microwave]
    assert ending(env, episode(seen)) == ("kettle, microwave", 0.5)
    env.close()


def test_objects_are_put_into_the_bowl_moved_or_left():
    env = make_env(TASKS["visual-ball-in-bowl"])
    env.reset(seed=0)
    world, plain = env.unwrapped, episode(np.zeros((3, 1)))
    assert ending(env, plain)[0] == "the object was not moved"
    world.put("ball", [*((world.place("ball")[:2] + world.bowl) / 2), 0.03])
    assert ending(env, plain) == ("the object was moved, not into the bowl", pytest.approx(0.5, abs=0.01))
    world.put("peg", [*world.bowl, 0.03])
    assert ending(env, plain)[0] == "the wrong object is in the bowl"
    env.close()


def test_watched_episodes_depend_only_on_their_seeds():
    task = TASKS["pointmaze-medium-narrow"]
    env = make_env(task)
    still = lambda observations, steps, rewards: np.zeros((len(observations), 2), np.float32)  # noqa: E731
    seen = watch(env, task, still, [3, 4, 3])
    assert [ended.how for _, ended in seen] == ["out of time on the way"] * 3
    np.testing.assert_array_equal(seen[0][0].observations, seen[2][0].observations)
    assert not np.array_equal(seen[0][0].observations, seen[1][0].observations)
    env.close()
