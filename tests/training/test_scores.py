"""Scores: measured by success or by returns, or said to be not measured, once and early; and the fix that is named."""

import dataclasses

import numpy as np
import pytest
import tiny

from calql.paper.locomotion import D4RL_RETURNS
from calql.paper.tasks import get_task
from calql.reports.report import write_report
from calql.rewards import Rewards
from calql.training.options import experiment
from calql.training.policy import evaluate
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError


class Success(tiny.Slope):
    """Tells success under a key of its own at every step."""

    key = "success"

    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {self.key: info["success"]} if self.key else {}


class IsSuccess(Success):
    key = "is_success"


class Nothing(Success):
    key = None


def told(env):
    return dataclasses.replace(tiny.TASK, id=env.__name__, env=env)


def made(task, **options):
    return experiment(task, "cal-ql", "smoke", 5, options=tiny.SETTINGS | options)


def notices(experiment, folder, data=tiny.DATA):
    """(kind of the event before, text) of every notice."""
    found = list(events(experiment, folder, data))
    pairs = [(a.kind, b.info["text"]) for a, b in zip([None, *found], found, strict=False) if b.kind == "notice" and a]
    return [pair for pair in pairs if "imported" not in pair[1]]


def test_is_success_is_success(tmp_path):
    found = [train(made(told(env)), tmp_path / env.__name__, tiny.DATA) for env in (Success, IsSuccess)]
    for summary in found:
        summary.pop("wall_s")
    assert found[0] == found[1]
    assert found[0]["score_after"] is not None


def test_a_score_that_nothing_tells_is_not_measured_and_said_once_and_early(tmp_path):
    run, folder = made(told(Nothing)), tmp_path / "run"
    ((when, text),) = notices(run, folder)
    assert when == "evaluation"
    assert "the score is not measured" in text
    rows = RunDir(folder).read_rows("eval.csv")
    assert {row["score_mean"] for row in rows} == {row["score_sem"] for row in rows} == {""}
    assert all(row["return_mean"] for row in rows)
    summary = RunDir(folder).path / "summary.json"
    assert all(f'"{name}": null' in summary.read_text() for name in ("score_before", "score_after", "regret", "dip"))
    assert evaluate(folder, episodes=2)["score_mean"] is None
    page = write_report([folder], tmp_path / "report").read_text()
    assert "not measured" in page
    with pytest.raises(InputError, match="no measured score"):
        evaluate(folder, episodes=2, step="best")
    # The fix is followed.
    assert "--set score=return score_range=LOW,HIGH" in text
    options = {"score": "return", "score_range": "-20,40"}
    scored = made(told(Nothing), **options)
    assert not notices(scored, tmp_path / "scored")
    rows = RunDir(tmp_path / "scored").read_rows("eval.csv")
    pays = tiny.PAYS
    for row in rows:  # raw returns, from the mapped ones
        steps = float(row["length_mean"])
        raw = (float(row["return_mean"]) - pays.bias * steps) / pays.scale
        assert float(row["score_mean"]) == pytest.approx((raw + 20) / 60, abs=1e-6)
    assert "score" in write_report([tmp_path / "scored"], tmp_path / "second").read_text()


def test_scores_of_returns_may_leave_0_and_1_in_a_report(tmp_path):
    train(made(tiny.TASK, score="return", score_range="0,0.001"), tmp_path / "run", tiny.DATA)
    rows = RunDir(tmp_path / "run").read_rows("eval.csv")
    assert max(float(row["score_mean"]) for row in rows) > 1
    write_report([tmp_path / "run"], tmp_path / "report")


@pytest.mark.parametrize(
    ("given", "fix"), [({}, "score_range=LOW,HIGH"), ({"score_range": "3,3"}, "smaller one first")]
)
def test_a_score_of_returns_needs_its_range(given, fix):
    with pytest.raises(InputError, match=fix):
        made(tiny.TASK, score="return", **given)


def test_a_last_reward_outside_its_range_ends_the_run_at_the_first_evaluation(tmp_path):
    task = dataclasses.replace(tiny.TASK, env=Dense, rewards=Rewards(), score="last_reward/1")
    with pytest.raises(InputError, match=r"the last reward of an episode is -1, outside \[0, 1\].*score=return"):
        train(made(task), tmp_path / "run", tiny.DATA)


class Dense(tiny.Slope):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, -1.0, *rest


# -- Gymnasium ids -----------------------------------------------------------------------------------------------------


def test_a_gymnasium_id_is_a_task():
    task = get_task("Pendulum-v1")
    assert (task.id, task.horizon, task.score, task.data) == ("Pendulum-v1", 200, "success", None)
    assert task.rewards == Rewards()
    env = task.factory()(**task.env_options)
    assert env.spec.id == "Pendulum-v1"
    cheetah = get_task("HalfCheetah-v5")
    assert (cheetah.score, cheetah.score_range) == ("return", D4RL_RETURNS["HalfCheetah"])
    assert experiment("HalfCheetah-v5", "bc", data="npz:x.npz").task.score_range == (-280.178953, 12135.0)
    for name in ("Pendulum-v99", "NoSuchThing-v1", "no_such_package:Arm-v0"):
        with pytest.raises(InputError, match="is no Gymnasium id"):
            get_task(name)
    with pytest.raises(InputError, match=r"Gymnasium id, or your own package\.module:factory"):
        get_task("pendulum")


# -- bounds of rewards -------------------------------------------------------------------------------------------------


def test_no_alarm_is_raised_on_a_range_that_the_data_leave(tmp_path):
    """Rewards of 10 where the task states [0, 1]: Q of 10 is right."""
    paid = tuple(e._replace(rewards=np.full(e.length, 10.0, np.float32)) for e in tiny.DATA.episodes)
    data = dataclasses.replace(tiny.DATA, episodes=paid)
    for rewards in (Rewards(low=0.0, high=1.0), Rewards()):
        task = dataclasses.replace(tiny.TASK, rewards=rewards)
        run = made(task, discount=0.5, critic_lr=0.05, offline_steps=60, online_steps=8)
        assert not [text for _, text in notices(run, tmp_path / str(rewards.low), data) if "diverge" in text]
        assert max(float(r["q_data_mean"]) for r in RunDir(tmp_path / str(rewards.low)).read_rows("eval.csv")) > 2.4
