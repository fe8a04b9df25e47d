"""A user's own environment may be a machine: one of it, nothing untrained moves it, limits and operator in a run."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import tiny

from calql.cli import main
from calql.data.readers.npz import save_npz
from calql.paper.tasks import get_task
from calql.training.duration import measure
from calql.training.experiment import decode, encode
from calql.training.options import changed, experiment
from calql.training.policy import evaluate
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import RunError

SETTINGS = {name: value for name, value in tiny.SETTINGS.items() if name != "eval_episodes"} | {"eval_episodes": 2}


class Machine(tiny.Slope):
    """There is one, and it remembers what moved it."""

    there, most, opened, resets, moves = 0, 0, 0, 0, []

    def __init__(self, render_mode=None):
        Machine.opened += 1
        Machine.there += 1
        Machine.most = max(Machine.most, Machine.there)

    def reset(self, **options):
        Machine.resets += 1
        return super().reset(**options)

    def step(self, action):
        Machine.moves.append(float(action[0]))
        return super().step(action)

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def close(self):
        Machine.there -= 1


def bare(render_mode=None):
    """A factory as of a user."""
    return gymnasium.wrappers.TimeLimit(Machine(), tiny.HORIZON)


@pytest.fixture(autouse=True)
def new():
    Machine.there = Machine.most = Machine.opened = Machine.resets = 0
    Machine.moves.clear()


def made(method="cal-ql", **options):
    return experiment(f"{__name__}:bare", method, "smoke", 5, options=SETTINGS | options)


def test_a_bare_environment_is_opened_once_and_nothing_untrained_moves_it(tmp_path):
    run, moved = made(), {}
    for event in events(run, tmp_path / "run", tiny.DATA):
        moved.setdefault((event.kind, event.phase, event.step), len(Machine.moves))
        assert "not measured" not in event.info.get("text", "")
    assert moved["evaluation", "offline", 0] == moved["update", "offline", 4] == 0
    assert moved["evaluation", "offline", 5] > 0
    assert (Machine.most, Machine.there) == (1, 0)
    first, *others = RunDir(tmp_path / "run").read_rows("eval.csv")
    assert [first[name] for name in ("score_mean", "return_mean", "length_mean", "episodes")] == ["", "", "", "0"]
    assert first["mc_return_mean"]
    assert {row["episodes"] for row in others} == {"2"}
    evaluate(tmp_path / "run", 3)
    assert (Machine.most, Machine.there) == (1, 0)


def test_a_film_needs_no_second_machine_and_no_further_episode(tmp_path):
    train(made(online_steps=0, eval_from="nothing"), tmp_path / "run", tiny.DATA)
    assert Machine.moves == []
    Machine.opened = Machine.resets = 0
    plain = evaluate(tmp_path / "run", 3)
    assert (Machine.opened, Machine.resets) == (1, 3)
    assert evaluate(tmp_path / "run", 3, video=tmp_path / "film.mp4") == plain
    assert (Machine.opened, Machine.resets) == (2, 6)
    assert (Machine.most, Machine.there) == (1, 0)
    assert (tmp_path / "film.mp4").stat().st_size > 500


@pytest.mark.parametrize(
    ("command", "openings"),
    [
        (("data", "check"), 2),  # to learn its time limit, and to compare its spaces with the data
        (("train", "--dry-run"), 2),
        (("train", "--set", "eval_from=nothing", "online_steps=0"), 2),
        (("train",), 3),  # and to move it
    ],
)
def test_how_often_a_command_opens_a_bare_machine_and_never_two_at_a_time(tmp_path, monkeypatch, command, openings):
    monkeypatch.chdir(tmp_path)
    save_npz(tiny.DATA, tmp_path / "log.npz")
    options = [f"{k}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in SETTINGS.items()]
    where = ("npz:log.npz",) if command[0] == "data" else ("--data", "npz:log.npz", "--out", "run")
    first, *rest = command
    settings = () if first == "data" else ("--scale", "smoke", "--set", *options)
    with pytest.raises(SystemExit) as stop:
        main([first, *(("check",) if first == "data" else ()), *where, "--task", f"{__name__}:bare", *settings]
             + (rest if first == "train" else ["--no-clone"]))  # fmt: skip
    assert not stop.value.code
    assert (Machine.opened, Machine.most, Machine.there) == (openings, 1, 0)


def test_what_was_trained_elsewhere_may_be_evaluated_first(tmp_path):
    train(made(online_steps=0), tmp_path / "donor", tiny.DATA)
    train(made(), tmp_path / "run", tiny.DATA, init_from=str(tmp_path / "donor"))
    assert RunDir(tmp_path / "run").read_rows("eval.csv")[0]["episodes"] == "2"


@pytest.mark.parametrize("method", ["cal-ql", "rlpd"])
def test_a_dry_run_moves_no_machine(method):
    run = made(method) if method == "cal-ql" else experiment(f"{__name__}:bare", method, "smoke")
    measure(run, tiny.DATA)
    assert Machine.moves == []
    measure(changed(run, {"eval_untrained": True}), tiny.DATA)
    assert Machine.moves


def test_the_defaults_of_a_machine_are_options_and_no_other_task_s():
    task = get_task(f"{__name__}:bare")
    for scale in ("smoke", "laptop", "desk", "paper"):
        m = experiment(task, "cal-ql", scale).measurement
        assert (m.eval_envs, m.eval_untrained) == (1, False)
    assert made(eval_envs=3, eval_untrained=True).measurement.eval_untrained
    assert experiment(tiny.TASK, "cal-ql", "smoke").measurement.eval_untrained


def test_limits_are_options_that_survive_a_file_and_hold_in_a_run(tmp_path):
    task = dataclasses.replace(tiny.TASK, env=Machine)
    options = tiny.SETTINGS | {"limits.low": "-0.5", "limits.change": "0.125", "limits.rest": 0.0, "eval_envs": 1}
    run = experiment(task, "cal-ql", "smoke", 5, options=options)
    assert (run.task.limits.low, run.task.limits.change, run.task.limits.rest) == ((-0.5,), (0.125,), 0.0)
    assert decode(encode(run)).task.limits == run.task.limits
    shares = [e.info["interventions"] for e in events(run, tmp_path / "run", tiny.DATA) if e.kind == "episode"]
    assert set(shares) == {None}
    assert Machine.moves
    assert min(Machine.moves) >= -0.5
    assert max(abs(np.array(Machine.moves))) > 0.125  # it does move
    assert encode(experiment(task, "cal-ql", "smoke"))["task"]["limits"] == dict.fromkeys(
        ("low", "high", "change", "rest")
    )


class Taken(tiny.Slope):
    """A person acts in the first half of every episode."""

    def reset(self, **options):
        self.count = 0
        return super().reset(**options)

    def step(self, action):
        self.count += 1
        *found, info = super().step(np.ones(1) if self.count <= 4 else action)
        return *found, info | ({"intervene_action": np.ones(1)} if self.count <= 4 else {})


def test_a_run_learns_from_what_a_person_did_and_tells_the_share(tmp_path):
    task = dataclasses.replace(tiny.TASK, env=Taken)
    training = tiny.Training(
        experiment(task, "cal-ql", "smoke", 5, options=tiny.SETTINGS), tiny.DATA, RunDir(tmp_path / "run")
    )
    training.run_dir.create({})
    shares = [(e.info["length"], e.info["interventions"]) for e in tiny.loop.run(training) if e.kind == "episode"]
    training.close()
    assert shares
    assert all(share == pytest.approx(min(4, length) / length) for length, share in shares)
    stored = np.asarray(training.replay.storage.actions).ravel()
    assert (stored == 1.0).sum() >= min(4, shares[-1][0])


COUNT = [0]


def stops_at_third(env):
    COUNT[0] += 1
    if COUNT[0] == 3:
        raise RuntimeError("stopped by the operator")


def test_a_failing_hook_is_a_failing_environment_whose_run_goes_on_later(tmp_path):
    COUNT[0] = 0
    run = made(**{"before_episode": f"{__name__}:stops_at_third"})
    with pytest.raises(RunError, match=r"the environment failed in .* \(RuntimeError: stopped by the operator\)"):
        train(run, tmp_path / "run", tiny.DATA)
    train(run, tmp_path / "run", tiny.DATA, resume=True)
    assert RunDir(tmp_path / "run").done
    assert COUNT[0] > 5
