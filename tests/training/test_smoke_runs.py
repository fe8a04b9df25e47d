"""Every row of the method table on the default task at `smoke` scale: what a run must leave behind."""

import csv
import json
import re
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from calql.algorithms import HasValues
from calql.data.arrays import part
from calql.data.episodes import Episodes
from calql.data.transitions import to_transitions
from calql.paper.demonstrators.pointmaze import Recipe, demonstrations
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.training import loop
from calql.training.learner import train_steps
from calql.training.measure import EVAL_COLUMNS
from calql.training.options import experiment
from calql.training.record import new_record
from calql.training.run_dir import RunDir
from calql.training.state import Training

TASK = "pointmaze-medium-narrow"


STEPS = 300
"""So many of all data, here and in test_every_pair, so that tasks of one shape share their compiled programs."""


def first_steps(episodes):
    """The first steps of some episodes, the last one cut."""
    kept, left = [], STEPS
    for episode in episodes:
        kept.append(episode if episode.length <= left else part(episode, 0, left))
        left -= kept[-1].length
        if not left:
            return tuple(kept)
    raise AssertionError(f"{STEPS - left} steps are too few")


@cache
def data():
    return Episodes(first_steps(demonstrations(Recipe(transitions=STEPS))), uri="collected")


@pytest.fixture(scope="module")
def run(request, tmp_path_factory):
    """(config, trainer, events) of a finished run of one method."""
    config = experiment(TASK, request.param, "smoke", seed=1)
    run_dir = RunDir(tmp_path_factory.mktemp("runs") / request.param)
    run_dir.create(new_record(config, data(), {}))
    trainer = Training(config, data(), run_dir)
    events = list(loop.run(trainer))
    trainer.close()
    return config, trainer, events


def pytest_generate_tests(metafunc):
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", METHODS, indirect=True, scope="module")


def numbers(rows, name):
    return [float(row[name]) for row in rows]


def of_phase(rows, phase):
    return [row for row in rows if row["phase"] == phase]


def test_it_finishes_and_leaves_every_file(run):
    config, trainer, _ = run
    path = trainer.run_dir.path
    files = {"config.json", "eval.csv", "train.csv", "summary.json", "checkpoints", "DONE"}
    files |= {"episodes.csv"} if config.finetune else set()
    assert files == {entry.name for entry in path.iterdir()}
    summary = json.loads((path / "summary.json").read_text())
    assert {"score_before", "score_after", "regret", "relative_improvement", "dip", "wall_s"} <= set(summary)
    assert summary["wall_s"] > 0


def test_evaluations_have_the_columns_of_the_contract(run):
    config, trainer, _ = run
    with (trainer.run_dir.path / "eval.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file)))[: len(EVAL_COLUMNS)] == EVAL_COLUMNS
    learns = isinstance(config.phases[0].algorithm, HasValues)
    for row in trainer.run_dir.read_rows("eval.csv"):
        assert 0 <= float(row["score_mean"]) <= 1
        assert int(row["episodes"]) == config.measurement.eval_episodes
        assert 0 < float(row["length_mean"]) <= config.task.horizon
        assert np.isfinite(float(row["mc_return_mean"]))
        assert (row["q_data_mean"] != "", row["bounding_rate"] != "") == (learns, learns)
        if learns:
            assert 0 <= float(row["bounding_rate"]) <= 1
    walls = numbers(trainer.run_dir.read_rows("eval.csv"), "wall_s")
    assert walls == sorted(walls)


def test_evaluations_fall_on_the_grid(run):
    config, trainer, _ = run
    if config.finetune and (config.finetune.steps_before_updates or config.finetune.updates_per_episode):
        pytest.skip("the grid's steps are met where something has been learned; see the tests of the loop below")
    rows, before = trainer.run_dir.read_rows("eval.csv"), 0
    for phase in config.phases:
        own, end = of_phase(rows, phase.name), phase.length
        if phase.name == "offline":
            assert numbers(own, "grad_step") == [*range(0, end, phase.eval_every), end]
            assert set(numbers(own, "env_step")) == {0}
            before = end
        else:
            grid = [*range(0, end, phase.eval_every), end]
            assert numbers(own, "env_step") == grid
            assert numbers(own, "grad_step") == [before + step * phase.utd for step in grid]
    assert [row["phase"] for row in rows] == sorted(row["phase"] for row in rows)  # offline, then online


def test_fine_tuning_starts_from_the_evaluation_of_the_pre_trained_policy(run):
    config, trainer, _ = run
    rows = trainer.run_dir.read_rows("eval.csv")
    online = of_phase(rows, "online")
    if online:
        assert online[0]["env_step"] == "0"
        if len(config.phases) == 2:
            assert online[0] == of_phase(rows, "offline")[-1] | {"phase": "online"}
    summary = json.loads((trainer.run_dir.path / "summary.json").read_text())
    assert summary["score_before"] == float((online or rows[-1:])[0]["score_mean"])


def test_gradient_steps_follow_the_update_to_data_ratio(run):
    config, trainer, events = run
    if config.finetune and (config.finetune.steps_before_updates or config.finetune.updates_per_episode):
        pytest.skip("see the tests of the loop below")
    done = sum(phase.gradient_steps(config.task.horizon) for phase in config.phases)
    assert trainer.counters.total_grad_step == done
    assert done == sum(phase.length * getattr(phase, "utd", 1) for phase in config.phases)
    if config.phases[-1].name == "online":
        lengths = [event.info["length"] for event in events if event.kind == "episode"]
        budget = config.finetune.online_steps
        assert sum(lengths[:-1]) < budget <= sum(lengths)  # no episode that is not learned from
        assert trainer.counters.env_step == sum(lengths)
        assert int(trainer.replay.online) == min(sum(lengths), config.finetune.replay_capacity)


def test_training_metrics_are_logged_on_their_grid(run):
    config, trainer, _ = run
    rows, evaluations = (trainer.run_dir.read_rows(name) for name in ("train.csv", "eval.csv"))
    before = 0
    for phase in config.phases:
        every, end = config.measurement.log_every, int(of_phase(evaluations, phase.name)[-1]["grad_step"])
        grid = [step for step in range(every, end + every, every) if step > before]
        assert numbers(of_phase(rows, phase.name), "grad_step") == [min(step, end) for step in grid]
        before = end
    for row in rows:
        assert all(np.isfinite(float(cell)) for name, cell in row.items() if name != "phase" and cell != "")
    assert {"phase", "env_step", "grad_step", "actor_loss"} <= set(rows[0])


def test_what_is_logged_stands_on_the_method_s_page(run):
    """Or on a page that it refers to under "Logged"."""
    config, trainer, _ = run
    folder = Path(__file__).resolve().parents[2] / "docs" / "methods"

    def logged(name):
        text = (folder / f"{name}.md").read_text()
        about = re.split(r"\n## (?:Logged|Settings, metrics, code)\n", text)[1].split("\n## ")[0]
        return about + "".join(logged(other) for other in re.findall(r"\]\(([\w-]+)\.md\)", about))

    said = set(re.findall(r"`(\w+)`", logged(config.method)))
    names = set(trainer.run_dir.read_rows("train.csv")[0]) | set(trainer.run_dir.read_rows("train.csv")[-1])
    assert names - {"phase", "env_step", "grad_step"} <= said


def test_data_in_replay_are_the_data(run):
    config, trainer, _ = run
    assert not (config.finetune and config.finetune.one_buffer)  # where new transitions may lie over them
    offline = trainer.transitions(data().episodes, config.data.action_clip)
    count = data().num_transitions
    assert count == int(trainer.replay.offline)
    stored = jax.tree.map(lambda x: np.asarray(x)[:count], trainer.replay.storage)
    jax.tree.map(np.testing.assert_array_equal, stored, offline)


def test_progress_never_goes_backwards(run):
    config, _, events = run
    for phase in config.phases:
        steps = [event.step for event in events if event.phase == phase.name]
        assert steps == sorted(steps)
        assert {event.total for event in events if event.phase == phase.name} == {steps[-1]}


# -- the loop in detail, on a task of no cost --------------------------------------------------------------------------


@pytest.mark.parametrize("utd", [1, 3])
def test_an_episode_is_followed_by_its_length_times_utd_gradient_steps(tmp_path, utd):
    made = tiny.trainer(tmp_path / "run", "hybrid", utd=utd)
    collected = 0
    for event in loop.run(made):
        if event.kind == "episode":
            assert made.counters.grad_step == collected * utd  # all earlier experience has been learned from
            collected += event.info["length"]
        elif event.kind == "update":
            assert made.counters.grad_step <= collected * utd
    assert made.counters.grad_step == 30 * utd


def test_random_episodes_come_first_and_bring_no_updates(tmp_path):
    made = tiny.trainer(tmp_path / "run", "hybrid", start_steps=9)
    events = [event for event in loop.run(made) if event.kind in ("episode", "update")]
    first = [event.kind for event in events].index("update")
    random = sum(event.info["length"] for event in events[:first])
    assert sum(event.info["length"] for event in events[: first - 2]) < 9 <= random - events[first - 1].info["length"]
    assert made.counters.grad_step == (30 - (random - events[first - 1].info["length"])) * 2
    actions = np.asarray(made.replay.storage.actions)[int(made.replay.offline) :]
    assert np.abs(actions).max() <= 1
    rows = made.run_dir.read_rows("eval.csv")
    assert numbers(rows, "env_step") == sorted(set(numbers(rows, "env_step")))
    assert (rows[0]["grad_step"], rows[-1]["env_step"]) == ("0", "30")


@pytest.mark.parametrize("updates", [3, 50])
def test_updates_by_the_episode(tmp_path, updates):
    made = tiny.trainer(tmp_path / "run", "hybrid", updates_per_episode=updates)
    episodes = 0
    for event in loop.run(made):
        if event.kind == "episode":
            assert made.counters.grad_step == episodes * updates
            episodes += 1
    assert (episodes - 1) * updates < made.counters.grad_step <= episodes * updates
    steps = numbers(made.run_dir.read_rows("eval.csv"), "env_step")
    assert (steps[0], steps[-1]) == (0, 30)
    assert [step // 8 for step in steps[:-1]] == [0, 1, 2, 3]  # one in each stretch of the grid


def test_one_buffer_loses_the_oldest_data_first(tmp_path):
    made = tiny.trainer(tmp_path / "run", "hybrid", one_buffer=True, replay_capacity=len(tiny_data().rewards) + 10)
    lengths = [event.info["length"] for event in loop.run(made) if event.kind == "episode"]
    lost = sum(lengths) - 10
    stored = jax.tree.map(np.asarray, made.replay.storage)
    assert (int(made.replay.offline), int(made.replay.online), int(made.replay.cursor)) == (
        0,
        len(stored.rewards),
        lost,
    )
    np.testing.assert_array_equal(stored.actions[lost:-10], tiny_data().actions[lost:])
    assert not np.isin(stored.observations[:lost], tiny_data().observations[:lost]).all()


def test_one_buffer_holds_the_newest_of_more_data_than_it_has_room_for_and_says_so(tmp_path):
    made = tiny.trainer(tmp_path / "run", "hybrid", one_buffer=True, replay_capacity=9)
    dropped = tiny.DATA.num_transitions - 9
    np.testing.assert_array_equal(made.replay.storage.actions, tiny_data().actions[-9:])
    assert (int(made.replay.online), int(made.replay.cursor)) == (9, 0)
    notices = [event.info["text"] for event in loop.run(made) if event.kind == "notice"]
    assert f"oldest {dropped} transitions" in notices[0]
    assert made.run_dir.done


def tiny_data():
    return to_transitions(tiny.DATA.episodes, tiny.TASK.rewards, 0.9)


def test_online_transitions_carry_mapped_rewards_masks_and_their_own_returns(tmp_path):
    made = tiny.trainer(tmp_path / "run", "sac", replay_capacity=200, online_steps=90, utd=1)
    lengths = [event.info["length"] for event in loop.run(made) if event.kind == "episode"]
    first = int(made.replay.offline)
    ring = jax.tree.map(lambda x: np.asarray(x)[first : first + sum(lengths)], made.replay.storage)
    assert set(np.unique(ring.rewards)) <= {-1.0, 10.0}
    start, kinds = 0, set()
    for length in lengths:
        rewards, masks = ring.rewards[start : start + length], ring.masks[start : start + length]
        states, following = ring.observations[start : start + length], ring.next_observations[start : start + length]
        np.testing.assert_array_equal(states[1:], following[:-1])
        assert (masks[:-1] == 1).all()
        ended = abs(following[-1, 0]) > 1
        assert masks[-1] == (not ended)
        if (rewards == -1).all() and not ended:
            expected = np.full(length, -10.0)  # −1 / (1 − 0.9)
            kinds.add("time-out")
        else:
            expected = [sum(0.9 ** (i - t) * rewards[i] for i in range(t, length)) for t in range(length)]
            kinds.add("fell" if (rewards == -1).all() else "arrived")
        np.testing.assert_allclose(ring.returns[start : start + length], expected, rtol=1e-5)
        start += length
    assert "arrived" in kinds
    assert kinds - {"arrived"}


def test_seeds_decide_a_run(tmp_path):
    results = []
    for i, seed in enumerate((0, 0, 1)):
        run_dir = RunDir(tmp_path / str(i))
        run_dir.create({})
        made = Training(tiny.made(seed=seed, online_steps=8), tiny.DATA, run_dir)
        list(loop.run(made))
        results.append(tiny.outcome(made))
    assert results[0] == results[1]
    assert results[0]["train"] != results[2]["train"]


def test_steps_of_any_number_share_one_program(tmp_path):
    made = tiny.trainer(tmp_path / "run", "cal-ql", tau=0.0123)
    before = train_steps._cache_size()
    counts, done = set(), 0
    for event in loop.run(made):
        if event.kind == "update":
            counts.add(made.counters.total_grad_step - done)
            done = made.counters.total_grad_step
    assert len(counts) > 2
    assert train_steps._cache_size() - before <= len(made.experiment.phases)


def test_no_offline_steps_at_all(tmp_path):
    made = tiny.trainer(tmp_path / "run", offline_steps=0, online_steps=8)
    list(loop.run(made))
    rows = made.run_dir.read_rows("eval.csv")
    assert [(row["phase"], row["grad_step"]) for row in rows] == [("offline", "0"), ("online", "0"), ("online", "16")]


def test_the_default_task_is_in_the_table():
    assert TASK in TASKS
