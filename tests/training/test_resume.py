"""A run that was stopped anywhere, by anything, and resumed equals one that never was: rows, parameters and replay."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calql.paper.methods import METHODS
from calql.training import checkpoint, loop
from calql.training.experiment import before_fine_tuning, differences
from calql.training.run_dir import RunDir
from calql.training.store import end_of_pretraining, take_over
from calql.types import InputError, RunError

LAST = 10**6
ACROSS = (9, 10, 11, 12, 13)
"""Numbers of events around the end of the offline phase."""


@cache
def undisturbed(method="cal-ql", world="states"):
    """(outcome, events) of a run from beginning to end."""
    with tempfile.TemporaryDirectory() as folder:
        made = tiny.trainer(Path(folder) / "run", method, world)
        events = [(progress.kind, progress.phase, progress.step) for progress in loop.run(made)]
        return tiny.outcome(made), events


def assert_same(made, method="cal-ql", world="states"):
    expected, actual = undisturbed(method, world)[0], tiny.outcome(made)
    assert actual["eval"] == expected["eval"]
    assert actual["train"] == expected["train"]
    assert [name for name in expected if actual[name] != expected[name]] == []


def run_in_pieces(folder, stops, method="cal-ql", world="states"):
    """Stop after so many events of each piece, then run to the end; returns the last trainer."""
    for piece, stop in enumerate([*stops, LAST]):
        made = tiny.trainer(folder, method, world)
        if piece:
            made.restore()
        for _ in islice(loop.run(made), stop):
            pass
        made.close()
    return made


def test_two_undisturbed_runs_are_equal(tmp_path):
    assert_same(run_in_pieces(tmp_path / "run", []))


def test_the_border_is_where_these_tests_think(tmp_path):
    phases = [phase for _, phase, _ in undisturbed()[1]]
    assert phases.index("online") in ACROSS[1:-1]
    assert len(phases) > 40


@pytest.mark.parametrize("stop", [1, 4, *ACROSS, 17, 25, 31, 38, 44, 46])
def test_stopped_once(tmp_path, stop):
    assert_same(run_in_pieces(tmp_path / "run", [stop]))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(stops=st.lists(st.integers(0, 25), min_size=2, max_size=4))
def test_stopped_several_times(tmp_path_factory, stops):
    assert_same(run_in_pieces(tmp_path_factory.mktemp("pieces") / "run", stops))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "cal-ql"])
@pytest.mark.parametrize("stops", [[7], [14, 9]])
def test_every_method(tmp_path, method, stops):
    """New columns at the border, no offline phase, no online phase, random steps, a memory, delayed updates, …"""
    assert_same(run_in_pieces(tmp_path / "run", stops, method), method)


@pytest.mark.parametrize("method", ["cal-ql", "td3-bc", "bc"])
def test_images(tmp_path, method):
    """An encoder, crops, and images in the replay."""
    assert_same(run_in_pieces(tmp_path / "run", [7, 9], method, "images"), method, "images")


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run_in_pieces(tmp_path / "run", [])
    assert_same(run_in_pieces(tmp_path / "run", [0]))


def test_time_on_the_clock_is_not_lost(tmp_path):
    run_in_pieces(tmp_path / "run", [20, 10])
    walls = [float(row["wall_s"]) for row in RunDir(tmp_path / "run").read_rows("eval.csv")]
    assert walls == sorted(walls)


# -- the pre-training of another run -----------------------------------------------------------------------------------


def border(folder, method):
    """The checkpoint at the end of the pre-training of a run."""
    return end_of_pretraining(RunDir(folder), tiny.made(method))


@pytest.fixture
def halfway(tmp_path):
    """A new run of CQL+SAC that has taken over what a run of CQL did before fine-tuning."""
    run_in_pieces(tmp_path / "cql", [], "cql")
    made = tiny.trainer(tmp_path / "run", "cql-sac")
    take_over(made.run_dir, RunDir(tmp_path / "cql"), border(tmp_path / "cql", "cql"))
    return made


def test_what_is_taken_over_equals_what_is_done(halfway):
    assert halfway.restore() == []
    assert next(loop.run(halfway)).phase == "online"
    list(loop.run(halfway))
    assert_same(halfway, "cql-sac")


def test_a_copy_that_was_stopped_halfway_is_done_anew(halfway):
    for path in halfway.run_dir.checkpoints.iterdir():
        shutil.rmtree(path)
    halfway.restore()
    list(loop.run(halfway))
    assert_same(halfway, "cql-sac")


def test_the_slice_of_q_disturbs_nothing_and_is_made_again_after_a_stop(tmp_path):
    made = tiny.trainer(tmp_path / "run", slice_dimension=0)
    list(loop.run(made))
    assert_same(made)
    text = (made.run_dir.path / "slice.csv").read_text()
    stopped = tiny.trainer(tmp_path / "stopped", slice_dimension=0)
    for progress in loop.run(stopped):
        if progress.kind == "notice":
            break
    assert not (stopped.run_dir.path / "slice.csv").exists()
    again = tiny.trainer(tmp_path / "stopped", slice_dimension=0)
    again.restore()
    list(loop.run(again))
    assert_same(again)
    assert (again.run_dir.path / "slice.csv").read_text() == text
    taking = tiny.trainer(tmp_path / "taking", slice_dimension=0, utd=3)
    take_over(taking.run_dir, made.run_dir, border(made.run_dir.path, "cal-ql"))
    assert (taking.run_dir.path / "slice.csv").read_text() == text


def test_the_slice_holds_q_at_the_first_state_of_the_first_evaluation(tmp_path):
    made = tiny.trainer(tmp_path / "run", slice_dimension=0)
    for _ in loop.run(made):
        if made.counters.phase == 1:
            break
    rows = made.run_dir.read_rows("slice.csv")
    first, _ = made.envs.training.reset(seed=made.streams.seed("evaluate", 0))
    actions = np.linspace(-1, 1, len(rows), dtype=np.float32)[:, None]
    q = made.schedule.phase(made.counters).algorithm.q_values(made.state.critic, first[None], actions[None])
    np.testing.assert_allclose([float(row["q"]) for row in rows], q[:, 0].mean(0), rtol=1e-5)
    returns = np.array([[float(row[name]) for name in ("return_mean", "return_deterministic")] for row in rows])
    assert (returns >= -10).all()  # r_min / (1 − γ)
    assert (returns <= 10).all()  # success at once


def test_there_is_nothing_to_take_over_before_the_border(tmp_path):
    assert border(tmp_path / "none", "cql") is None
    made = tiny.trainer(tmp_path / "run", "cql")
    list(islice(loop.run(made), ACROSS[0] - 3))
    made.save()
    assert border(tmp_path / "run", "cql") is None
    list(loop.run(made))
    assert border(tmp_path / "run", "cql").name == "step-000000014"
    assert border(run_in_pieces(tmp_path / "sac", [], "sac").run_dir.path, "sac") is None


@pytest.mark.parametrize(
    ("method", "seed", "options", "different"),
    [
        ("cql-sac", 5, {}, []),
        ("cql", 5, {"online_steps": 7, "utd": 3, "mixing": 0.1, "finetune.cql_alpha": 0.5, "eval_every_online": 3}, []),
        ("cql", 5, {"replay_capacity": 99, "one_buffer": True}, []),
        ("cql", 1, {}, ["seed"]),
        ("cal-ql", 5, {}, ["pretrain.rule", "pretrain.algorithm.reference"]),
        ("cql", 5, {"cql_alpha": 3.0}, ["pretrain.algorithm.cql_alpha"]),
        ("cql", 5, {"offline_steps": 15}, ["pretrain.offline_steps"]),
        ("cql", 5, {"batch_size": 9, "rewards.scale": 2.0}, ["task.rewards.scale", "pretrain.batch_size"]),
    ],
)
def test_whose_pretraining_is_the_same(method, seed, options, different):
    here, there = tiny.made("cql"), tiny.made(method, seed=seed, **options)
    assert sorted(differences(before_fine_tuning(here), before_fine_tuning(there))) == sorted(different)


@pytest.mark.parametrize(
    ("donor", "taking"),
    [({"one_buffer": True}, {}), ({}, {"one_buffer": True}), ({"replay_capacity": 20}, {"replay_capacity": 17})],
    ids=str,
)
def test_a_border_serves_runs_with_any_ring(tmp_path, donor, taking):
    """Where the ring stands follows from the run that takes over, not from the one that is taken over."""
    one_buffer = {"one_buffer": True} in (donor, taking)
    room = {"replay_capacity": tiny.DATA.num_transitions + 3} if one_buffer else {}
    list(loop.run(tiny.trainer(tmp_path / "donor", "cql", **room | donor)))
    whole = tiny.trainer(tmp_path / "whole", "cql", **room | taking)
    list(loop.run(whole))
    made = tiny.trainer(tmp_path / "taking", "cql", **room | taking)
    take_over(made.run_dir, RunDir(tmp_path / "donor"), border(tmp_path / "donor", "cql"))
    assert made.restore() == []
    list(loop.run(made))
    assert tiny.outcome(made) == tiny.outcome(whole)


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(path, how):
    arrays, meta = path / "replay.safetensors", path / "meta.json"
    content = bytearray(arrays.read_bytes())
    if how == "truncated file":
        arrays.write_bytes(content[:100])
    elif how == "flipped byte":
        content[len(content) // 2] ^= 4
        arrays.write_bytes(content)
    elif how == "missing file":
        arrays.unlink()
    else:
        meta.unlink()


@pytest.mark.parametrize("how", ["truncated file", "flipped byte", "missing file", "missing meta"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_with_a_complaint(tmp_path, how):
    made = tiny.trainer(tmp_path / "run")
    list(islice(loop.run(made), 31))
    newest = max(made.run_dir.checkpoints.glob("step-*"))
    damage(newest, how)
    again = tiny.trainer(tmp_path / "run")
    (complaint,) = again.restore()
    assert newest.name in complaint
    assert again.counters.total_grad_step < int(newest.name.removeprefix("step-"))
    list(loop.run(again))
    assert_same(again)


@pytest.mark.parametrize("stop", [3, 31])
def test_without_any_complete_checkpoint_the_run_starts_from_the_beginning(tmp_path, stop):
    made = tiny.trainer(tmp_path / "run")
    list(islice(loop.run(made), stop))
    found = list(made.run_dir.checkpoints.glob("step-*"))
    for path in found:
        damage(path, "missing meta")
    again = tiny.trainer(tmp_path / "run")
    complaints = again.restore()
    assert len(complaints) == len(found) + 1
    assert "from the beginning" in complaints[-1]
    list(loop.run(again))
    assert_same(again)


def test_a_checkpoint_of_another_network_is_bad_input(tmp_path):
    """Its checkpoints were made with other widths, or by a version whose networks had other names."""
    made = tiny.trainer(tmp_path / "run")
    made.save()
    wider = tiny.trainer(tmp_path / "run", actor_hidden=(7,))
    with pytest.raises(InputError, match=r"another.*actor"):
        wider.restore()
    renamed = tiny.trainer(tmp_path / "renamed")
    renamed.state = renamed.state._replace(actor={"body": renamed.state.actor})
    renamed.save()
    with pytest.raises(InputError, match=r"another.*actor.*holds nothing"):
        tiny.trainer(tmp_path / "renamed").restore()


# -- failures that are not crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 13, 27])
def test_a_failing_environment_ends_the_run_with_all_work_saved(tmp_path, step):
    """At its first step, and in the middle of episodes."""
    made, left = tiny.trainer(tmp_path / "run"), [step]

    def fail():
        left[0] -= 1
        if left[0] == 0:
            raise OSError("the robot does not answer")

    made.envs.training.unwrapped.on_step = fail  # evaluations have environments of their own
    with pytest.raises(RunError, match=r"the robot does not answer.*--resume") as caught:
        list(loop.run(made))
    assert isinstance(caught.value.__cause__, OSError)
    assert not made.run_dir.done
    again = tiny.trainer(tmp_path / "run")
    assert again.restore() == []
    assert again.counters.total_grad_step == made.counters.total_grad_step  # nothing has to be done twice
    list(loop.run(again))
    assert_same(again)


@pytest.mark.parametrize("poisoned_after", [7, 24])
def test_divergence_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path, poisoned_after):
    made = tiny.trainer(tmp_path / "run")
    run = loop.run(made)
    list(islice(run, poisoned_after))
    good, _ = checkpoint.newest(made.run_dir.checkpoints)
    made.state = made.state._replace(critic=jax.tree.map(lambda x: x * np.nan, made.state.critic))
    with pytest.raises(RunError, match=r"diverged near gradient step \d+ .*td_loss.*not finite"):
        list(run)
    assert not made.run_dir.done
    assert checkpoint.newest(made.run_dir.checkpoints) == (good, [])
    again = tiny.trainer(tmp_path / "run")
    again.restore()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(again.state) if x.dtype.kind == "f")
    list(loop.run(again))
    assert_same(again)


def test_real_divergence_is_noticed(tmp_path):
    made = tiny.trainer(tmp_path / "run", critic_lr=1e30)
    with pytest.raises(RunError, match="diverged"):
        list(loop.run(made))


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Starts tiny.py; what it compiles is cached by a first, undisturbed run, so that no kill hits the cache."""
    cache_folder = tmp_path_factory.mktemp("cache")
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(folder, *arguments):
        command = [sys.executable, tiny.__file__, str(folder), "cal-ql", *arguments]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    folder = tmp_path_factory.mktemp("child") / "run"
    with start(folder) as child:
        assert child.stdout.read().split()[-1] == "done"
    return start, folder


def killed(start, folder, *moment, events=0, delay=0.0):
    """Start, and kill at the moment, or `delay` seconds after so many lines of output."""
    with start(folder, *moment) as child:
        for count, line in enumerate(child.stdout):
            if (moment and line.strip() == "still") or (not moment and count == events):
                break
        else:
            raise AssertionError(f"{moment} was never reached")
        try:
            child.wait(delay or 1e-3)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.returncode


def finished(folder):
    """The outcome of the run in that folder, from its files."""
    made = tiny.trainer(folder)
    assert made.restore() == []
    return tiny.outcome(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments",
    [
        ["write:1", "update:6", "rename:2"],  # before the first checkpoint is there; offline; at the border
        ["step:40", "write:8", "update:3"],  # while collecting; the replay of a checkpoint; online
    ],
    ids=" ".join,
)
def test_killed_in_the_middle_of(tmp_path, program, moments):
    start, reference = program
    for moment in moments:
        assert killed(start, tmp_path / "run", moment) == -9
        assert not (tmp_path / "run" / "DONE").exists()
    with start(tmp_path / "run") as child:
        assert child.stdout.read().split()[-1] == "done"
    assert finished(tmp_path / "run") == finished(reference)


@pytest.mark.slow
def test_killed_at_random(tmp_path, program):
    start, reference = program
    rng, kills = random.Random(0), 0
    while not (tmp_path / "run" / "DONE").exists() and kills < 3:
        killed(start, tmp_path / "run", events=rng.randrange(1, 22), delay=rng.uniform(0, 0.02))
        kills += 1
    with start(tmp_path / "run") as child:
        assert child.stdout.read().split()[-1] == "done"
    assert kills > 2
    assert finished(tmp_path / "run") == finished(reference)


def test_a_process_of_its_own_takes_the_same_path(program):
    _, reference = program
    assert finished(reference) == undisturbed()[0]
