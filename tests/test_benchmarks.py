"""The pure parts of `benchmarks/`: nothing is installed and no other library is needed."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calql.algorithms import CalQL
from calql.paper.methods import METHODS
from calql.paper.tasks import TASKS
from calql.replay import make_replay
from calql.training.learner import train_steps
from calql.training.speed import BATCH, SIZES, synthetic

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def peers():
    return load("peers")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return load("gpu")


@pytest.fixture(scope="module")
def environments():
    return load("environments")


@pytest.fixture
def robot(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    return load("robot")


@pytest.fixture(scope="module")
def demonstrators():
    return load("demonstrators")


def test_sizes_are_those_of_calql_bench(peers):
    for name in ("adroit", "antmaze"):
        assert tuple(SIZES[name]) == peers.SIZES[name]
    assert tuple(SIZES["laptop"]) == peers.SIZES["laptop-listing"]


def test_settings_are_translated_with_our_defaults(peers):
    theirs = peers.peer_settings({}, lambda widths: widths)
    ours = CalQL()
    assert theirs["actor_encoder_factory"] == [*ours.actor_hidden]
    assert theirs["critic_encoder_factory"] == [*ours.critic_hidden]
    assert theirs["conservative_weight"] == ours.cql_alpha
    assert theirs["n_action_samples"] == ours.num_random_actions == ours.num_policy_actions == ours.num_next_actions
    assert (theirs["gamma"], theirs["tau"], theirs["n_critics"]) == (ours.discount, ours.tau, ours.num_critics)
    assert (theirs["actor_learning_rate"], theirs["critic_learning_rate"]) == (ours.actor_lr, ours.critic_lr)
    assert theirs["max_q_backup"]
    assert (theirs["alpha_learning_rate"], theirs["alpha_threshold"], theirs["initial_alpha"]) == (0.0, 0.0, 1.0)


def test_the_gap_brings_the_multiplier(peers):
    theirs = peers.peer_settings(peers.SIZES["antmaze"][2], lambda widths: widths)
    assert theirs["alpha_threshold"] == 0.8
    assert theirs["alpha_learning_rate"] == 3e-4
    assert theirs["initial_alpha"] == pytest.approx(np.e)


@pytest.mark.parametrize(("size", "samples", "best"), [("laptop", 4, True), ("laptop-listing", 4, False)])
def test_the_laptop_has_fewer_actions(peers, size, samples, best):
    theirs = peers.peer_settings(peers.SIZES[size][2], lambda widths: widths)
    assert (theirs["n_action_samples"], theirs["max_q_backup"]) == (samples, best)


def test_every_setting_is_a_field_of_ours(peers):
    fields = {field.name for field in dataclasses.fields(CalQL)}
    assert all(set(settings) <= fields for _, _, settings in peers.SIZES.values())


def test_both_sides_learn_from_the_same_episodes(peers):
    first, second = peers.episodes("laptop"), peers.episodes("laptop")
    assert first["observations"].shape == (100, 100, 4)
    assert first["actions"].shape == (100, 100, 2)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_return_of_an_episode_is_discounted_to_its_end(peers):
    returns = peers.returns_of(np.full((2, 3), -1.0, np.float32), 0.5)
    np.testing.assert_allclose(returns, [[-1.75, -1.5, -1.0]] * 2)


def test_summary_of_blocks(peers):
    def block(wall, cpu, memory):
        return {"wall_s": wall, "cpu_s": cpu, "memory_mb": memory, "count": 10}

    result = peers.summary(
        {
            "ours_whole": [block(1.0, 1.0, 300.0), block(2.0, 1.0, 310.0)],
            "ours_estimated": [block(0.5, 0.5, 305.0)],
            "ours_bfloat16": [block(0.25, 0.25, 305.0)],
            "ours_both": [block(0.1, 0.1, 305.0)],
            "d3rlpy_whole": [block(5.0, 4.0, 200.0)],
            "d3rlpy_update": [block(4.0, 2.0, 220.0), block(8.0, 6.0, 210.0), block(9.0, 3.0, 210.0)],
            "d3rlpy_bfloat16": [block(2.0, 2.0, 210.0)],
        }
    )
    ours = {"ours_whole": 10.0, "ours_estimated": 20.0, "ours_bfloat16": 40.0, "ours_both": 100.0}
    theirs = {"d3rlpy_whole": 2.0, "d3rlpy_update": 2.5, "d3rlpy_bfloat16": 5.0}
    assert (result["updates_per_s"], result["ratio_estimated"]) == (ours | theirs, 8.0)
    assert (result["ratio_bfloat16"], result["ratio_both"]) == (8.0, 20.0)
    assert (result["ratio"], result["ratio_with_sampling"], result["ratio_cpu_time"]) == pytest.approx((4.0, 5.0, 3.0))
    assert result["memory_mb"] == {"ours": 310.0, "d3rlpy": 220.0}


def test_a_worker_answers_requests(peers, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr("sys.stdin", io.StringIO("whole 3\nwhole 5\n"))
    peers.serve(peers.Worker({"whole": taken.append}, {"calql": "0"}, 1.5))
    answers = [json.loads(line.removeprefix("@")) for line in capsys.readouterr().out.splitlines()]
    assert taken == [3, 5]
    assert answers[0] == {"kinds": ["whole"], "versions": {"calql": "0"}, "compile_s": 1.5}
    assert all(set(answer) == {"wall_s", "cpu_s", "memory_mb"} for answer in answers[1:])


def test_the_table(peers, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    rates = {"ours_whole": 8.0, "ours_estimated": 17.0, "ours_bfloat16": 18.0, "ours_both": 60.0}
    rates |= {"d3rlpy_whole": 3.0, "d3rlpy_update": 4.0, "d3rlpy_bfloat16": 5.0}
    ratios = {"ratio": 2.0, "ratio_cpu_time": 2.1, "ratio_estimated": 4.25, "ratio_bfloat16": 3.6, "ratio_both": 12.0}
    row = {"size": "laptop", "updates_per_s": rates, "memory_mb": {"ours": 700.0, "d3rlpy": 600.0}}
    peers.show([row | ratios], 1)
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("laptop", "2.00", "2.10", "4.25", "3.60", "12.00", "700", "600", peers.cpu())
    )


@pytest.mark.parametrize("size", ["adroit", "antmaze", "laptop", "laptop-listing"])
def test_every_row_states_the_terms_of_both_sides(peers, size):
    terms = peers.terms_of(size)
    ours, theirs = terms["actions_per_state"]["ours"], terms["actions_per_state"]["d3rlpy"]
    assert (ours == theirs) == (size != "laptop-listing")  # there, d3rlpy does more, because it cannot do less
    assert terms["target_actions"]["ours"] == terms["target_actions"]["d3rlpy"]
    assert (terms["critics"], terms["batch_size"]) == (2, 256)
    assert terms["precision"]["ours"]["whole"] == terms["precision"]["d3rlpy"]["update"] == "float32"
    assert json.loads(json.dumps(terms))["critic_hidden"] == [*CalQL(**peers.SIZES[size][2]).critic_hidden]


# -- environments ------------------------------------------------------------------------------------------------------


class Counted(gymnasium.Env):
    """Three steps to the end; counts what is done to it."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-2, 2, (2,))

    def __init__(self):
        self.resets, self.actions = 0, []

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        return np.zeros(1), {}

    def step(self, action):
        self.actions.append(action)
        return np.zeros(1), 0.0, len(self.actions) % 3 == 0, False, {}


def test_steps_are_counted_over_resets(environments):
    env = Counted()
    step = environments.stepper(env, horizon=2)
    assert step(5) > 0
    assert step(4) > 0
    assert len(env.actions) == 9
    assert env.resets == 6  # steps 1 2 | 3 | 4 5 | 6 | 7 8 | 9: cut after two, or ended by the third
    assert all(env.action_space.contains(action) for action in env.actions)


def test_every_measured_task_exists(environments):
    for task in environments.RELATIVES:
        assert task.partition(",")[0] in TASKS


def test_a_camera_is_measured_at_the_size_that_is_named(environments, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        environments, "make_env", lambda task: sizes.append(task.env_options["image_size"]) or Counted()
    )
    environments.compare("visual-pick-place, 128 px", seconds=0.05)
    assert sizes == [128]


def test_our_rate_is_over_theirs(environments, monkeypatch, capsys):
    monkeypatch.setattr(environments, "make_env", lambda task: Counted())
    monkeypatch.setattr(environments, "_make", lambda package, name: Counted())
    row = environments.compare("pen-binary", seconds=0.05)
    best = row["steps_per_s"]
    assert row["ratio"]["Gymnasium-Robotics"] == pytest.approx(best["calql"] / best["Gymnasium-Robotics"])
    assert all(len(blocks) == environments.ROUNDS for blocks in row["blocks"].values())
    environments.show([{"task": "pen-binary"} | row])
    assert "| pen-binary |" in capsys.readouterr().out


# -- demonstrators -----------------------------------------------------------------------------------------------------


def test_demonstrators_are_told_by_their_successes(demonstrators, tmp_path):
    made = demonstrators.row(
        "ant", [demonstrators.Attempt(*a) for a in ((True, 10, 1.0), (True, 30, 2.0), (False, 99, 6.0))]
    )
    assert (made["attempts"], made["successes"]) == (3, 2)
    assert (made["steps_min"], made["steps_median"], made["steps_max"]) == (10, 20.0, 30)
    assert made["seconds_an_attempt"] == 3.0
    none = demonstrators.row("arm", [demonstrators.Attempt(False, 99, 1.0)])
    assert none["successes"] == 0
    path = tmp_path / "d.csv"
    demonstrators.write(path, [made])
    demonstrators.write(path, [none])
    demonstrators.write(path, [made | {"successes": 1}])
    rows = {line["demonstrator"]: line["successes"] for line in csv.DictReader(path.read_text().splitlines())}
    assert rows == {"arm": "0", "ant": "1"}


@pytest.mark.parametrize("name", ["ant-medium", "door-clone", "kitchen-complete"])
def test_an_attempt_is_one_whole_episode(demonstrators, name):
    attempt = demonstrators.DEMONSTRATORS[name](0)
    assert 1 < attempt.steps <= 1000
    assert attempt.seconds > 0
    assert demonstrators.DEMONSTRATORS[name](0)[:2] == attempt[:2]


# -- robot -------------------------------------------------------------------------------------------------------------


def test_a_port_can_be_opened_once(robot, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = robot.Robot()
    with pytest.raises(OSError, match="in use"):
        robot.Robot()
    first.reset(seed=0)
    for _ in range(3):
        first.step(np.zeros(2))
    first.close()
    assert len(np.fromfile(robot.PERIODS)) == 2
    robot.Robot().close()


def test_episodes_that_were_lost_or_doubled_are_counted(robot, tmp_path):
    args = SimpleNamespace(steps=9, demonstrations=1, rate=50.0, kills=3)
    rehearsal = robot.Rehearsal(tmp_path, args)
    np.array([0.02, 0.021, 0.03]).tofile(tmp_path / robot.PERIODS)
    for folder in (robot.EPISODES, robot.RUN):
        (tmp_path / folder).mkdir()
    for name in "abcd":
        (tmp_path / robot.EPISODES / f"{name}.npz").touch()
    (tmp_path / robot.RUN / "episodes.csv").write_text("episode,file\n0,a.npz\n1,c.npz\n2,c.npz\n3,x.npz\n")
    result = rehearsal.result()
    assert (result["episodes_lost"], result["episodes_doubled"], result["episodes_unknown"]) == (2, 1, 1)
    assert (result["episodes_collected"], result["episodes_taken"], result["in_order"]) == (4, 4, True)
    assert (result["late_steps"], result["error_ms"]["max"]) == (1, 10.0)
    assert result["kills"] == {"learner": 2, "actor": 1}


def test_nothing_is_lost_or_doubled_whoever_is_killed(robot, tmp_path):
    few = "--minutes 0.2 --kills 4 --steps 120 --offline-steps 20 --utd 1 --demonstrations 6 --rate 200"
    assert (
        robot.main([*shlex.split(few), "--folder", str(tmp_path / "work"), "--out", str(tmp_path / "robot.json")]) == 0
    )
    result = json.loads((tmp_path / "robot.json").read_text())
    assert (result["learner_exit_code"], result["episodes_lost"], result["episodes_doubled"]) == (0, 0, 0)
    assert result["episodes_taken"] > 0
    assert result["kills"] == {"learner": 2, "actor": 2}
    assert min(result["starts"].values()) >= 3
    assert result["git_commit"]


# -- gpu ---------------------------------------------------------------------------------------------------------------

SCRIPT = FOLDER / "gpu.sh"


def script(out, *arguments, **environment):
    """Run `gpu.sh`; an absolute OUT keeps it from writing anywhere else."""
    command = ["bash", SCRIPT, "--out", out / "out", "--scratch", out / "scratch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def rows_of(out):
    return [json.loads(line) for line in (out / "out" / "results.jsonl").read_text().splitlines()]


def stand_in(folder, *lines):
    """A program in the place of Python: writes a row with its part's name, then does what `lines` say."""
    path = folder / "python"
    row = """echo "{\\"part\\": \\"$2\\"}" >>"$OUT/results.jsonl\""""
    path.write_text("\n".join(["#!/bin/sh", row, *lines]) + "\n")
    path.chmod(0o755)
    return {"PYTHON": str(path), "OUT": str(folder / "out")}


def test_a_part_that_fails_does_not_stop_the_others(tmp_path):
    made = script(tmp_path, **stand_in(tmp_path, '[ "$2" != shared ] || { echo out of memory; exit 7; }'))
    parts = [row["part"] for row in rows_of(tmp_path)]
    assert set(parts) == {"info", "data", "compile", "speed", "shared", "vmap", "graphs", "peers", "mps", "train",
                          "table"}  # fmt: skip
    assert parts.index("train") > parts.index("shared")
    assert made.returncode == 1
    assert "shared: FAILED (exit code 7)" in made.stdout
    assert "out of memory" in made.stdout
    assert made.stdout.rstrip().endswith("failed: shared")


def test_a_part_is_left_out_where_too_little_time_is_left(tmp_path):
    made = script(tmp_path, "20", "--parts", "vmap train", **stand_in(tmp_path))
    assert made.returncode == 0
    assert all(f"{part}: left out, too little time is left" in made.stdout for part in ("vmap", "train"))
    assert {row["part"] for row in rows_of(tmp_path)} == {"info", "data", "table"}  # the data are there for next time


@pytest.mark.slow
def test_a_part_is_cut_off_when_its_time_is_over(tmp_path):
    made = script(tmp_path, "26", "--parts", "vmap", **stand_in(tmp_path, '[ "$2" != vmap ] || exec sleep 60'))
    assert made.returncode == 1
    assert "vmap: FAILED (exit code 124, its time was over)" in made.stdout
    assert [row["part"] for row in rows_of(tmp_path)] == ["info", "vmap", "table"]


def test_without_a_gpu_nothing_is_measured(gpu, tmp_path):
    with pytest.raises(SystemExit, match="JAX sees no GPU here"):
        gpu.info(gpu.Part(SimpleNamespace(part="info", seconds=1, rehearse=False, out=tmp_path)))
    assert not list(tmp_path.iterdir())


def test_several_seeds_in_one_program_are_the_single_runs(gpu):
    size = SIZES["laptop"]
    together = gpu.seeds_stepper("laptop", 2)[0](2)
    algorithm, data = CalQL(**size.settings), synthetic(size.spec)
    replay = make_replay(data, jax.tree.map(lambda x: x[0], data), 0)
    for seed in range(2):
        state, key = algorithm.init(jax.random.key(seed), size.spec), jax.random.key(seed)
        _, alone = train_steps(algorithm, BATCH, 0, state, replay, key, jnp.int32(0), jnp.int32(2), jnp.float32(1.0))
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][seed], value, rtol=1e-3, err_msg=name)


def test_every_size_has_its_like_in_peers(gpu, peers):
    for name, theirs in gpu.THEIR_SIZE.items():
        assert tuple(SIZES[name]) == peers.SIZES[theirs]
        assert {f"{name}-estimated", f"{name}-estimated-bfloat16"} <= set(SIZES)


def test_what_is_trained_exists(gpu):
    assert gpu.TASK in TASKS
    assert set(gpu.METHODS) <= set(METHODS)


def test_a_packed_run_holds_its_newest_whole_checkpoint(gpu, tmp_path):
    run = tmp_path / "runs" / gpu.TASK / "cal-ql" / "seed-3"
    for step, files in {10: ["state", "meta"], 20: ["state", "meta"], 30: ["state"]}.items():
        folder = run / "checkpoints" / f"step-{step:09d}"
        folder.mkdir(parents=True)
        for file in files:
            counters = {"total_grad_step": step, "env_step": 0}
            (folder / f"{file}.json").write_text(json.dumps({"counters": counters, "wall_s": 2.0}))
    (run / "config.json").write_text("{}")
    (run / "eval.csv").write_text("grad_step,score_mean\n0,0.25\n")
    gpu.pack(run, tmp_path / "run.tar.gz")
    with tarfile.open(tmp_path / "run.tar.gz") as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    there = tmp_path / "elsewhere" / gpu.TASK / "cal-ql" / "seed-3"
    assert [path.name for path in (there / "checkpoints").iterdir()] == ["step-000000020"]
    assert gpu.run_summary(there) == {"grad_steps": 20, "env_steps": 0, "wall_s": 2.0, "scores": {"0": 0.25}}


def test_a_run_without_a_checkpoint_cannot_be_packed(gpu, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        gpu.pack(tmp_path, tmp_path / "run.tar.gz")


@pytest.mark.parametrize(("mps", "pays"), [(100.0, False), (109.0, False), (111.0, True), (None, False)])
def test_mps_is_used_where_it_was_faster(gpu, mps, pays):
    rows = [{"part": "shared", "size": "antmaze", "label": "4", "updates_per_s": 100.0}]
    rows += [{"part": "mps", "size": "antmaze", "label": "4", "updates_per_s": mps}] if mps else []
    rows += [{"part": "mps", "size": "antmaze", "label": "8", "updates_per_s": 900.0}, {"part": "data"}]
    assert gpu.mps_pays(rows, 4) is pays


def test_the_daemon_of_mps_is_ended_whatever_happens(gpu, tmp_path, monkeypatch):
    control = tmp_path / "nvidia-cuda-mps-control"
    control.write_text(f'#!/bin/sh\n[ "$1" = -d ] && echo "began in $CUDA_MPS_PIPE_DIRECTORY" >>{tmp_path}/calls '
                       f"|| cat >>{tmp_path}/calls\n")  # fmt: skip
    control.chmod(0o755)
    part = SimpleNamespace(args=SimpleNamespace(scratch=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def fail():
        with gpu.mps_daemon(part) as environment:
            assert set(environment) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert (tmp_path / "calls").read_text() == f"began in {tmp_path / 'mps'}\nquit\n"


def test_the_table_of_a_gpu(gpu):
    text = gpu.table(
        [
            {"part": "info"},
            {"part": "shared", "size": "antmaze", "label": "1", "updates_per_s": 812.3},
            {"part": "shared", "size": "antmaze", "label": "16", "updates_per_s": 1234.5},
            {"part": "peers", "size": "laptop", "precision": "highest", "updates_per_s_of": {"ours": 9.0},
             "errors": {"compiled": "no compiler"}},
            {"part": "mps", "skipped": "not there"},
            {"part": "train", "method": "cql", "seed": 1, "grad_steps": 4000, "wall_s": 9.0, "scores": {"0": 0.5}},
        ]
    )  # fmt: skip
    assert "1: 812.3 | 16: 1234" in text
    assert "ours: 9 | compiled: no compiler" in text
    assert "not there" in text
    assert "4000 gradient steps in 9 s of training; score 0: 0.50" in text


@pytest.mark.slow
def test_every_part_of_the_gpu_benchmark_is_rehearsed(tmp_path):
    made = script(tmp_path, "--rehearse", "1200", PYTHON=sys.executable)
    assert made.returncode == 0, made.stdout
    rows = rows_of(tmp_path)
    assert [row["arithmetic"] for row in rows if row["part"] == "info"] == [
        {"default": "float32", "highest": "float32"}
    ]
    measured = {row["part"] for row in rows if row.get("updates_per_s", 0) > 0}
    assert measured == {"speed", "shared", "vmap", "graphs"}
    assert {row["method"]: row["grad_steps"] for row in rows if row["part"] == "train"} == {"cal-ql": 160, "cql": 160}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "log.txt",
        "results.jsonl",
        "run-cal-ql-0.tar.gz",
        "run-cql-0.tar.gz",
    ]


# -- foretelling -------------------------------------------------------------------------------------------------------


def test_a_signal_within_tasks_counts_and_a_difference_between_tasks_does_not():
    foretelling = load("foretelling")
    tasks = np.repeat(["a", "b"], 50)
    random = np.random.default_rng(0)
    noise, offset = random.normal(size=(2, 100)), np.repeat([0.0, 100.0], 50)
    assert abs(foretelling.within(tasks, noise[0] + offset, noise[1] + offset)) < 0.25  # over both tasks: 0.75
    assert foretelling.within(tasks, noise[0] + offset, noise[0] - offset) == pytest.approx(1.0)
    assert foretelling.within(tasks, noise[0], -np.exp(noise[0])) == pytest.approx(-1.0)


def test_foretelling_is_done_over_stored_runs(tmp_path, monkeypatch):
    foretelling, out = load("foretelling"), tmp_path / "found.json"
    results = FOLDER.parent / "results" / "estimates-pen"
    monkeypatch.setattr("sys.argv", ["foretelling.py", str(results), "--out", str(out)])
    foretelling.main()
    found = {row["signal"]: row for row in json.loads(out.read_text())}
    assert found["score before"]["runs"] == found["bounding rate"]["runs"] == 24
    low, high = found["score before"]["95 %"]
    assert -1 <= low <= found["score before"]["within"] <= high <= 1
    assert found["(G − Q of policy) / spread of G"]["runs"] == 0  # older than that column
