"""What the check says of Cal-QL and CQL before a run comes true in one, on small data."""

import dataclasses

import numpy as np
import pytest
import tiny

from calql.data.check.describe import check
from calql.data.episodes import Episodes
from calql.rewards import Rewards
from calql.tasks import Task
from calql.training.options import experiment
from calql.training.run import train
from calql.training.run_dir import RunDir
from calql.types import Episode

STEPS = 20
TASK = Task("slope", tiny.Slope, STEPS, rewards=Rewards(low=0.0, high=1.0))
SETTINGS = dict(
    offline_steps=600, online_steps=0, eval_every_offline=600, eval_from="nothing", batch_size=64, cql_alpha=5.0,
    actor_hidden=(32, 32), critic_hidden=(32, 32), critic_lr=3e-3, actor_lr=1e-3, discount=0.95, tau=0.02,
)  # fmt: skip


def recorded(act):
    """Twenty episodes; every second one arrives, in its last step. Positions are the same whatever is done."""
    rng, made = np.random.default_rng(0), []
    for good in (True, False) * 10:
        x = np.linspace(0.0, 1.1 if good else -0.2, STEPS + 1)
        states = np.stack([x, np.full(STEPS + 1, rng.normal())], axis=1)
        actions = np.clip([[act(good, rng)] for _ in range(STEPS)], -1.0, 1.0)
        won = (np.arange(STEPS) == STEPS - 1) & good
        made.append(Episode(states, actions, won.astype(np.float32), won, not good, won))
    return dataclasses.replace(Episodes(tuple(made), "toy"), unit_actions=True)


def values(method, data, folder):
    """(mean Q of the data's actions, mean return) after pre-training."""
    train(experiment(TASK, method, "smoke", 0, options=SETTINGS), folder / method, data)
    row = RunDir(folder / method).read_rows("eval.csv")[-1]
    return float(row["q_data_mean"]), float(row["mc_return_mean"])


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow")
    data = recorded(lambda good, rng: (0.5 if good else -0.2) + 0.05 * rng.normal())
    return data, *(values(method, data, folder) for method in ("cql", "cal-ql"))


def test_on_narrow_data_cql_pushes_q_below_the_returns_and_cal_ql_does_not(narrow):
    data, (cql, returns), (cal_ql, _) = narrow
    assert "calibration matters: the data are narrow, with good and bad episodes; CQL is likely to push Q below" in (
        check(data, TASK).expectation
    )
    assert cql < returns - 0.5
    assert cal_ql > returns - 0.1


def test_on_wide_data_it_matters_less(narrow, tmp_path):
    _, (narrow_cql, _), (narrow_cal_ql, _) = narrow
    data = recorded(lambda good, rng: rng.uniform(-1, 1))
    assert "calibration matters less than on narrow data" in check(data, TASK).expectation
    (cql, _), (cal_ql, _) = (values(method, data, tmp_path) for method in ("cql", "cal-ql"))
    assert cal_ql - cql < 0.6 * (narrow_cal_ql - narrow_cql)
