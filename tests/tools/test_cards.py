"""Task cards say what the table of tasks says; figures of data can be drawn of any data."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import runpy
import sys
from pathlib import Path

import gymnasium
import matplotlib.text
import numpy as np
import pytest
from matplotlib.figure import Figure

from calql.cli import main
from calql.commit import git_commit
from calql.data.episodes import Episodes
from calql.envs.make import make_env
from calql.paper.demonstrators.pointmaze import build
from calql.paper.tasks import TASKS
from calql.reports import data_figures
from calql.reports.data_figures import data_figure
from calql.rewards import Rewards
from calql.tasks import Task
from calql.types import Episode, InputError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "cards"))
from data_table import read_table, write_table  # noqa: E402 - a folder of scripts, not a package
from task_card import family, pages, write_card  # noqa: E402
from task_page import budgets, settings  # noqa: E402

CARDS = ROOT / "docs" / "tasks"
POINT = "pointmaze-medium-narrow"


# -- the committed pages -----------------------------------------------------------------------------------------------


def test_every_page_says_what_the_tables_say():
    for name, text in pages(CARDS).items():
        assert (CARDS / name).is_file(), f"{name} is missing: run `python tools/cards`"
        assert (CARDS / name).read_text(encoding="utf-8") == text, f"{name} is out of date: run `python tools/cards`"


def test_every_task_has_notes():
    assert {path.stem for path in (CARDS / "notes").glob("*.md")} == {family(task) for task in TASKS.values()}


def test_pages_have_no_strays():
    assert {path.stem for path in CARDS.glob("*.md")} == {"README", *TASKS}
    assert read_table(CARDS / "data.csv").keys() <= TASKS.keys()


def test_links_and_images_of_the_pages_exist():
    for page in CARDS.glob("*.md"):
        for target in re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / "".join(target)).exists(), f"{page.name}: {target}"


def test_recordings_of_the_notes_belong_to_their_tasks():
    for page in (CARDS / "notes").glob("*.md"):
        for command in re.findall(r"^calql .*", page.read_text(encoding="utf-8"), re.MULTILINE):
            recording = re.search(r"(?:info|check|--data) (\S+)", command)
            if not recording:
                continue
            task, reference = TASKS[re.search(r"--task (\S+)", command)[1]], recording[1]
            assert task.source_of(reference) is not None or reference.startswith("d4rl:")  # those are taken as they are


# -- the generated tables ----------------------------------------------------------------------------------------------


def test_settings_of_a_row():
    said = dict(settings(TASKS["door-binary"]))
    assert said["observation"] == "39"
    assert said["action"] == "28 in [−1, 1]"
    assert said["reward"] == "−1 to 0 per step; learned from as 10 r + 5"
    assert said["horizon"] == "200 steps"
    assert said["an episode ends"] == "at the first success, or at the horizon"
    assert "−5/(1 − γ)" in said["an episode that fails"]
    assert said["score"] == "success at any step"


def test_settings_of_a_row_without_a_reward_map():
    changed = {"rewards": Rewards(bias=-4.0, low=0.0, high=1.0), "score": "last_reward/4"}
    task = dataclasses.replace(TASKS[POINT], **changed)
    said = dict(settings(task))
    assert said["reward"] == "0 to 1 per step; learned from as r − 4"
    assert said["score"] == "last reward/4"
    assert "an episode that fails" not in said


def test_budgets_name_every_difference_between_the_scales():
    task = TASKS[POINT]
    said = {line[0].strip("`"): line[1:] for line in budgets(task)}
    assert said["offline_steps"] == ("60", "20,000", "20,000", "250,000")
    assert said["discount"] == ("0.99", "0.97", "0.97", "0.99")
    assert said["critic_hidden"][-1] == "256 · 256 · 256 · 256"
    shown = {name.split(".")[-1] for name in said}
    assert {name.split(".")[-1] for scale in task.scales.values() for name in scale} <= shown
    assert (said["pretrain.cql_alpha"][1], said["finetune.cql_alpha"][1]) == ("5", "0.5")
    assert "utd" not in said


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def point_data():
    build(TASKS[POINT], transitions=300)


def test_a_card_is_measured_and_written(point_data, tmp_path):
    page = write_card(POINT, tmp_path)
    text, row = page.read_text(encoding="utf-8"), read_table(tmp_path / "data.csv")[POINT]
    assert int(row["transitions"]) >= 300
    assert int(row["terminated"]) + int(row["truncated"]) == int(row["episodes"])
    assert float(row["length_max"]) <= TASKS[POINT].horizon
    assert float(row["score"]) == float(row["success"])
    assert float(row["build_s"]) > 0
    assert row["git_commit"] == (git_commit() or "")
    assert json.loads(row["recipe"])["transitions"] == 300
    assert row["fingerprint"][:16] in text
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "data.csv", f"{POINT}.md", f"{POINT}.png", f"{POINT}-data.png",
    }  # fmt: skip
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_card(POINT, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rows_of_other_tasks_stay(tmp_path):
    rows = {name: {"task": name, "episodes": "3"} for name in ("unknown", *reversed(TASKS))}
    write_table(tmp_path / "data.csv", rows)
    assert read_table(tmp_path / "data.csv") == rows
    with (tmp_path / "data.csv").open() as file:
        assert [line["task"] for line in csv.DictReader(file)] == [*TASKS, "unknown"]


def test_another_csv_file_is_refused(tmp_path):
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a table of data sets"):
        read_table(tmp_path / "data.csv")


def test_a_task_without_data_has_no_card(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "bare", dataclasses.replace(TASKS[POINT], id="bare", data=None))
    with pytest.raises(InputError, match="no data of its own"):
        write_card("bare", tmp_path)


def test_commands(point_data, tmp_path, monkeypatch, capsys):
    def cards(*arguments):
        monkeypatch.setattr(sys, "argv", ["cards", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "tools" / "cards"), run_name="__main__")
        return stop.value.code, capsys.readouterr().err

    for arguments in ([POINT, "--out", tmp_path / "pages"], ["--out", tmp_path / "pages"]):
        assert cards(*arguments) == (0, "")
    assert {path.stem for path in (tmp_path / "pages").glob("*.md")} == {"README", *TASKS}
    (tmp_path / "file").touch()
    for arguments in (["pointmaze"], ["--out", tmp_path / "file"]):
        code, said = cards(*arguments)
        assert code == 2
        assert said.startswith("error: ")
        assert said.count("\n") == 1
    monkeypatch.chdir(tmp_path)
    for figures, code in (("drawn", 0), ("file", 2)):
        with pytest.raises(SystemExit) as stop:
            main(["data", "info", f"local:{POINT}", "--figures", figures])
        assert stop.value.code == code, capsys.readouterr().err
    assert {path.suffix for path in (tmp_path / "drawn").iterdir()} == {".png", ".svg"}


# -- figures -----------------------------------------------------------------------------------------------------------


class Images(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(
        image=gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8), state=gymnasium.spaces.Box(-1, 1, (2,))
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,))


IMAGES = Task(id="images", env=Images, horizon=20, data=None)


def episode(observations, length: int, won: bool) -> Episode:
    ends = np.arange(length) == length - 1 if won else np.zeros(length, bool)
    actions = np.zeros((length, 2), np.float32)
    return Episode(observations, actions, ends.astype(np.float32), ends, not won, ends)


def with_images(length: int = 5, won: bool = True, constant: bool = False) -> Episode:
    rng = np.random.default_rng(length)
    image = rng.integers(0, 255, (length + 1, 16, 16, 3)).astype(np.uint8)
    state = rng.normal(size=(length + 1, 2)).astype(np.float32)
    scale = 0 if constant else 1
    return episode({"image": image * np.uint8(scale), "state": state * np.float32(scale)}, length, won)


def test_a_figure_does_not_invent_success():
    for observations in (with_images().observations, np.eye(6, dtype=np.float32)):
        silent = episode(observations, 5, won=True)._replace(successes=None)
        figure = drawn([silent], IMAGES)
        words = [text.get_text() for axes in figure.axes for text in axes.findobj(matplotlib.text.Text)]
        assert "success unknown" in words
        assert not {"success", "failure"} & set(words)


def drawn(episodes: list[Episode], task: Task) -> Figure:
    figure = data_figure(Episodes(tuple(episodes)), task)
    figure.canvas.draw()
    return figure


@pytest.mark.parametrize(
    "episodes",
    [
        [with_images()],
        [with_images(1)],
        [with_images(won=False)],
        [with_images(constant=True)],
        [with_images(1, won=False, constant=True)],
        [with_images(n, won=n % 2 == 0) for n in range(1, 9)],
    ],
    ids=["one episode", "one step", "one failure", "one state", "one state, one step", "several"],
)
def test_any_data_can_be_drawn(episodes):
    assert len(drawn(episodes, IMAGES).axes) == 3


def test_images_are_shown_from_the_first_to_the_last_of_an_episode():
    episodes = [with_images(n, won=n % 2 == 0) for n in range(1, 9)]
    axes = drawn(episodes, IMAGES).axes[2]
    shown = [episodes[i] for i in (0, 1, 3, 5, 7)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["failure", *["success"] * 4]
    pixels = np.asarray(axes.images[0].get_array())
    for row, one in enumerate(shown):
        line = pixels[18 * row : 18 * row + 16]
        np.testing.assert_array_equal(line[:, :16], one.observations["image"][0])
        np.testing.assert_array_equal(line[:, -18:-2], one.observations["image"][-1])


def test_one_dimensional_states_can_be_drawn():
    states = np.linspace(0, 1, 6, dtype=np.float32)[:, None]
    drawn([episode(states, 5, won=True)], IMAGES)


def test_leftovers_of_one_terminal_step_are_not_counted():
    figure = drawn([with_images(5), with_images(1), with_images(1), with_images(7, won=False)], IMAGES)
    assert [text.get_text() for text in figure.texts][1] == "12 transitions in 2 episodes, 50% of them successful"


def test_bars_count_the_episodes():
    axes = Figure().subplots()
    lengths = [3, 3, 4, 20, 25]
    data_figures.draw_lengths(axes, Episodes(tuple(with_images(n, won=n == 3) for n in lengths)), IMAGES)
    tops = {}
    for bar in axes.patches:
        middle = round(bar.get_x() + bar.get_width() / 2)
        tops[middle] = tops.get(middle, 0) + bar.get_height()
    assert {x: top for x, top in tops.items() if top} == {3: 2, 4: 1, 20: 1, 25: 1}
    assert "horizon" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("name", [POINT, "antmaze-large-play"])
def test_a_maze_is_drawn_with_its_walls(name):
    task = TASKS[name]
    with make_env(task) as env:
        plan = env.unwrapped.floor_plan()
        observations = np.repeat(env.reset(seed=0)[0][None], 4, axis=0)
    axes = drawn([episode(observations, 3, won=True)], task).axes[2]
    assert len(axes.patches) == len(plan.walls) + 1
    assert {text.get_text() for text in axes.texts} == {"start", "goal"}
    position = observations[0, :2] * plan.unit
    assert np.linalg.norm(position - plan.start) < 1.5
    assert not (np.abs(plan.walls - position) < plan.cell / 2).all(axis=1).any()
    assert not (np.abs(plan.walls - plan.goal) < plan.cell / 2).all(axis=1).any()


def test_the_order_of_a_kitchens_subtasks():
    from calql.paper.envs.kitchen import START, goal_vector

    def joints(*solved: str) -> np.ndarray:
        goal = goal_vector(solved or ["kettle"])
        return np.concatenate([np.where(goal, goal, START) if solved else START, np.zeros(30)]).astype(np.float32)

    way = np.stack([joints(), joints("kettle"), joints("kettle", "microwave"), joints("kettle"), joints()])
    with make_env(TASKS["kitchen-mixed"]) as env:
        ranks = env.unwrapped.solution_ranks(way)
    assert list(ranks.values()) == [2, 1, 0, 0, 0, 0, 0]
    assert list(ranks)[:4] == ["microwave", "kettle", "bottom burner", "light switch"]
    axes = drawn([episode(way, 4, won=False)], TASKS["kitchen-mixed"]).axes[2]
    shown = {(round(text.get_position()[1]), round(text.get_position()[0])) for text in axes.texts}
    assert {(0, 1), (1, 0)} <= shown  # microwave second, kettle first
    assert len(shown) == 7  # every subtask has one place
