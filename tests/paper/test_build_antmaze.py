"""AntMaze data: the ant that walks, where it is sent, and what is on disk afterwards."""

import dataclasses
import functools
import itertools
import math
import subprocess
import sys

import minari
import numpy as np
import pytest

from calql.data.load import load
from calql.paper.demonstrators import ant_clone
from calql.paper.demonstrators import antmaze as builder
from calql.paper.demonstrators.antmaze import HAND_PICKED, Guide, Recipe, demonstrate, waypoint
from calql.paper.envs import antmaze
from calql.paper.envs.ways import shortest_ways
from calql.paper.tasks import TASKS
from calql.types import InputError

PLAY, DIVERSE, NARROW = (TASKS[f"antmaze-medium-{kind}"] for kind in ("play", "diverse", "narrow"))
SHORT = Recipe(horizon=40)
ONE_STEP = Recipe(horizon=1)


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def starts(recipe, attempts=60):
    maze = antmaze.make(recipe.maze).maze
    made = [demonstrate(recipe, 0, index) for index in range(attempts)]
    places = np.stack([episode.observations[0, :2] for episode in made if episode is not None])
    return maze, places, {maze.cell_of(place) for place in places}


# -- the walk ----------------------------------------------------------------------------------------------------------


def test_collection_needs_no_jax():
    code = "import sys, calql.paper.demonstrators.antmaze; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# -- the way -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["medium", "large"])
def test_shortest_ways(name):
    maze = antmaze.make(name).maze
    ways = shortest_ways(maze.is_free, maze.goal)
    assert set(ways) == set(maze.free_cells)
    for cell, way in ways.items():
        assert (way[0], way[-1]) == (cell, maze.goal)
        assert all(math.dist(a, b) == 1 for a, b in itertools.pairwise(way))
    assert len(ways[maze.start]) == {"medium": 11, "large": 15}[name]


def test_waypoints_keep_to_the_middle():
    maze = antmaze.make("medium").maze
    goal = maze.cell_center(maze.goal)
    way = shortest_ways(maze.is_free, maze.goal)[maze.start]
    first, second = map(maze.cell_center, way[:2])
    axis = (second - first) / antmaze.CELL
    np.testing.assert_array_equal(waypoint(maze, first, goal), second)
    np.testing.assert_allclose(waypoint(maze, first + 1.5 * axis[::-1], goal), first + 0.7 * axis)
    np.testing.assert_array_equal(waypoint(maze, maze.cell_center(way[-2]), goal), goal)


def test_spread_waypoints_are_random_points_of_the_next_cell_one_per_cell():
    maze, spread = antmaze.make("medium").maze, 1.3
    goal = maze.cell_center(maze.goal)
    way = shortest_ways(maze.is_free, maze.goal)[maze.start]
    here, ahead = map(maze.cell_center, way[:2])
    points = []
    for seed in range(200):
        guide = Guide(maze, np.random.default_rng(seed), spread)
        headings = {guide.heading(here, goal) for _ in range(5)}
        assert len(headings) == 1
        points.append(guide._waypoint(here, goal) - ahead)
        beyond = guide._waypoint(ahead, goal)
        assert maze.cell_of(beyond) == way[2]
        np.testing.assert_array_equal(guide._waypoint(maze.cell_center(way[-2]), goal), goal)
    points = np.abs(points)
    assert points.max() <= spread
    assert points.mean(axis=0) == pytest.approx([spread / 2] * 2, rel=0.15)


@pytest.mark.parametrize("index", range(4))
def test_solves_the_medium_maze(index):
    episode = demonstrate(Recipe(commands="narrow", horizon=700), 0, index)
    assert episode.successes[-1]
    assert episode.length > 100


# -- episodes ----------------------------------------------------------------------------------------------------------


def test_an_attempt_is_a_function_of_recipe_seed_and_number():
    first = demonstrate(SHORT, 0, 3)
    others = (
        demonstrate(SHORT, 0, 4),
        demonstrate(SHORT, 1, 3),
        demonstrate(dataclasses.replace(SHORT, horizon=30), 0, 3),
    )
    assert same(demonstrate(SHORT, 0, 3), first)
    assert not any(np.array_equal(other.actions, first.actions) for other in others)


@pytest.mark.parametrize("recipe", [SHORT, Recipe(commands="narrow", horizon=400), Recipe(maze="large", horizon=40)])
def test_episodes_are_what_the_environment_records(recipe):
    episode = demonstrate(recipe, 0, 1)
    length = episode.length
    assert episode.observations.shape == (length + 1, 29)
    assert episode.actions.shape == (length, 8)
    assert {a.dtype for a in (episode.observations, episode.actions, episode.rewards)} == {np.dtype(np.float32)}
    assert np.abs(episode.actions).max() == 1  # clipped
    assert not episode.terminations[:-1].any()
    np.testing.assert_array_equal(episode.terminations, episode.successes)
    np.testing.assert_array_equal(episode.rewards, episode.successes.astype(np.float32))
    assert episode.truncated != episode.terminations[-1]
    assert length == recipe.horizon if episode.truncated else length <= recipe.horizon


def test_recorded_actions_are_the_executed_ones():
    episode, env = demonstrate(dataclasses.replace(SHORT, action_noise=0.5), 0, 0), antmaze.make("medium")
    env.reset(seed=0)
    for step in range(0, episode.length, 5):
        env.set_state(episode.observations[step])
        np.testing.assert_allclose(env.step(episode.actions[step])[0], episode.observations[step + 1], atol=2e-2)


def off_the_walk(recipe, index):
    """[T] whether a step's action is another than the walker's towards the next cell."""
    episode, maze, walk = demonstrate(recipe, 0, index), antmaze.make(recipe.maze).maze, ant_clone.load()
    goal, off = maze.cell_center(maze.goal), []
    for observation, action in zip(episode.observations, episode.actions, strict=False):
        x, y = waypoint(maze, observation[:2], goal) - observation[:2]
        off.append(not np.allclose(walk(observation, np.arctan2(y, x)), action, atol=1e-4))
    return np.array(off)


def test_a_stumble_is_eight_random_actions():
    recipe = Recipe(commands="narrow", horizon=150, action_noise=0.0, spread=0.0)
    assert not off_the_walk(recipe, 0).any()
    off = off_the_walk(dataclasses.replace(recipe, stumbling=0.2), 0)
    runs = [sum(run) for stumbles, run in itertools.groupby(off) if stumbles]
    assert set(runs[:-1]) <= {8, 16, 24}  # the last one may be cut short
    assert 0.1 < off.mean() < 0.3


def test_a_wandering_ant_weaves_and_arrives():
    recipe = Recipe(commands="narrow", horizon=1000, action_noise=0.0, spread=0.0)

    def aside(recipe):
        """Median distance from the corridor's line, in metres, over two walks."""
        maze, found = antmaze.make("medium").maze, []
        for index in range(2):
            episode = demonstrate(recipe, 0, index)
            assert episode.successes[-1]
            middles = np.stack([maze.cell_center(maze.cell_of(place)) for place in episode.observations[:, :2]])
            found.append(np.abs(episode.observations[:, :2] - middles).min(axis=1))
        return np.median(np.concatenate(found))

    assert aside(dataclasses.replace(recipe, wander=0.6)) > 1.5 * aside(recipe)


# -- commands ----------------------------------------------------------------------------------------------------------


def test_narrow_has_one_start():
    maze, places, cells = starts(dataclasses.replace(ONE_STEP, commands="narrow"), 20)
    assert cells == {maze.start}
    assert np.abs(places).max() <= 0.1


def test_diverse_starts_anywhere():
    maze, places, cells = starts(ONE_STEP, 200)
    assert cells == set(maze.free_cells)
    offset = places - [maze.cell_center(maze.cell_of(place)) for place in places]
    assert 0 <= offset.min() < 0.1
    assert 0.9 < offset.max() <= 1


@pytest.mark.parametrize("maze", ["medium", "large"])
def test_play_starts_where_it_is_never_sent(maze):
    maze, _, cells = starts(dataclasses.replace(ONE_STEP, commands="play", maze=maze, to_goal=0.0), 400)
    picked = set(HAND_PICKED["medium" if maze.shape == (8, 8) else "large"])
    assert picked <= set(maze.free_cells)
    assert cells == set(maze.free_cells) - picked


def test_the_ant_gets_where_it_is_sent():
    recipe = Recipe(commands="play", on_arrival="end", to_goal=0.0, horizon=500)
    maze = antmaze.make("medium").maze
    ends = [demonstrate(recipe, 0, index) for index in range(4)]
    cells = {maze.cell_of(episode.observations[-1, :2]) for episode in ends if not episode.successes[-1]}
    assert cells <= set(HAND_PICKED["medium"])
    assert all(episode.length < 500 for episode in ends)


def test_it_stays_there_or_goes_on():
    def moved(**options):
        """How far from its last place the ant is in the last 20 s of a minute, at most."""
        place = demonstrate(Recipe(farthest=2, to_goal=0.0, horizon=600, **options), 0, 2).observations[-200:, :2]
        return np.linalg.norm(place - place[-1], axis=1).max()

    assert moved(on_arrival="stay") < 2.5
    assert moved(on_arrival="continue") > 4


def test_to_goal_is_the_share_of_commands_that_pay():
    def goals(share):
        made = [demonstrate(Recipe(farthest=2, to_goal=share, on_arrival="end", horizon=200), 0, i) for i in range(6)]
        return sum(episode.successes[-1] for episode in made if episode is not None)

    assert goals(1.0) >= 5
    assert goals(0.0) <= 1


def test_farthest_bounds_the_way():
    recipe = dataclasses.replace(ONE_STEP, farthest=2, to_goal=1.0)
    maze, _, cells = starts(recipe)
    assert {len(shortest_ways(maze.is_free, maze.goal)[cell]) - 1 for cell in cells} == {1, 2}


def test_the_stranded_fail_on_the_way():
    recipe = Recipe(commands="narrow", stranded=1.0, horizon=300)
    episode, maze = demonstrate(recipe, 0, 1), antmaze.make("medium").maze
    assert not episode.successes.any()
    assert episode.length == 300
    assert maze.cell_of(episode.observations[-1, :2]) in shortest_ways(maze.is_free, maze.goal)[maze.start][:-1]


def test_labels_as_d4rl_released_them():
    recipe = Recipe(commands="play", d4rl_labels=True, to_goal=1.0, farthest=2, horizon=250)
    goal_of_the_set = antmaze.make("medium")
    goal_of_the_set.reset(seed=5)
    counts = []
    for index in range(3):
        episode = demonstrate(recipe, 5, index)
        near = np.linalg.norm(episode.observations[1:, :2] - goal_of_the_set.goal, axis=1) <= 0.5
        np.testing.assert_array_equal(episode.terminations, near)
        np.testing.assert_array_equal(episode.rewards, near)
        assert episode.length == 250
        counts.append(near.sum())
    assert max(counts) > 10


@pytest.mark.parametrize(
    "options",
    [
        {"maze": "huge"},
        {"commands": "any"},
        {"on_arrival": "dance"},
        {"action_noise": -1.0},
        {"wander": -0.1},
        {"stumbling": 1.0},
        {"to_goal": 1.5},
        {"stranded": -0.1},
        {"horizon": 0},
        {"farthest": 0},
    ],
)
def test_impossible_options_are_input_errors(options):
    with pytest.raises(InputError):
        Recipe(**options)


# -- on disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("task", [PLAY, DIVERSE, NARROW], ids=lambda task: task.id)
def test_stored_and_read_back(root, task):
    made = builder.build(task, seed=3, transitions=100, horizon=30)
    recipe = Recipe(**task.recipe | {"transitions": 100, "horizon": 30})
    attempts = (demonstrate(recipe, 3, index) for index in itertools.count())
    expected = list(itertools.islice((episode for episode in attempts if episode is not None), 4))
    read = load(task.data)
    assert read.num_transitions == sum(episode.length for episode in expected) >= 100
    for stored, episode in zip(read.episodes, expected, strict=True):
        for name in ("observations", "actions", "rewards", "terminations", "truncated", "successes"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(episode, name))
    data = minari.load_dataset(made)
    provenance = data.storage.metadata["calql"]
    assert (provenance["builder"], provenance["seed"]) == (task.builder, 3)
    assert provenance["recipe"] == dataclasses.asdict(recipe)
    env = data.recover_environment()
    assert isinstance(env.unwrapped, antmaze.AntMaze)
    env.close()


def test_any_number_of_workers_makes_the_same_data(root):
    fingerprints = set()
    for workers in (1, 2):
        builder.build(DIVERSE, seed=1, transitions=150, horizon=20, workers=workers)
        fingerprints.add(load(DIVERSE.data).fingerprint())
    assert len(fingerprints) == 1


def test_unknown_options_are_named(root):
    with pytest.raises(InputError, match=r"wobble.*action_noise"):
        functools.partial(builder.build, PLAY)(wobble=1)
