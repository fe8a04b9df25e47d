"""A log and an environment of one's own on the command line, both as odd as people have them, to the end of a run."""

import contextlib
import csv
import json
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from calql.cli import main
from calql.cli.common import load_data
from calql.rewards import Rewards
from calql.tasks import Task
from calql.training.options import experiment

HERE = __name__
STEPS = 20
QUICK = ("--scale", "smoke", "--method", "bc", "--set", "offline_steps=10", "eval_every_offline=10", "eval_episodes=1")


class Line(gymnasium.Env):
    """A point on a line; success beyond 0.5."""

    observation_space = spaces.Box(-10, 10, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def look(self):
        return np.array([self.x, self.t / STEPS, 1], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-0.1, 0.1), 0
        return self.look(), {}

    def step(self, action):
        self.x, self.t = self.x + 0.1 * float(action[0]), self.t + 1
        won = self.x > 0.5
        return self.look(), float(won), won, False, {"success": won}


class Ordered(Line):
    """Its observations are an OrderedDict in another order than the space's."""

    observation_space = spaces.Dict(a=spaces.Box(-10, 10, (1,), np.float32), b=spaces.Box(-10, 10, (2,), np.float32))

    def look(self):
        return OrderedDict(b=np.array([self.x, self.t / STEPS]), a=np.ones(1))


class ChannelsFirst(Line):
    observation_space = spaces.Box(0, 255, (3, 24, 24), np.uint8)

    def look(self):
        return np.full((3, 24, 24), 50 * (self.x + 1), np.uint8)


class InPlace(Line):
    given: ClassVar[list] = []

    def step(self, action):
        action *= 0.5
        InPlace.given.append(action)
        return super().step(action)


class Port(Line):
    """There is one."""

    there = 0

    def __init__(self):
        if Port.there:
            raise OSError("port 5005 is in use")
        Port.there = 1

    def close(self):
        Port.there = 0


class Wins(Line):
    """Success as Fetch and Stable-Baselines3 tell it."""

    def step(self, action):
        observation, *_ = super().step(action)
        return observation, 1.0, False, False, {"is_success": 1.0}


class Owes(Line):
    """Its last reward is negative."""

    def step(self, action):
        observation, _, *ends, info = super().step(action)
        return observation, -1.0, *ends, info


class Pays(Line):
    """10 per step, far beyond the bounds [0, 1]/(1 − γ) of tasks that pay 0 or 1."""

    def step(self, action):
        observation, *_ = super().step(action)
        return observation, 10.0, False, False, {"success": True}


def named(env, **options):
    return lambda: Task(id="line", env=env, horizon=STEPS, **options)


ordered, images, in_place, wins = named(Ordered), named(ChannelsFirst), named(InPlace), named(Wins)
port = named(Port, scales={"smoke": {"eval_envs": 1}})
owes = named(Owes, score="last_reward/1", rewards=Rewards(low=-1.0, high=0.0))


def pays():
    return gymnasium.wrappers.TimeLimit(Pays(), STEPS)


def nothing():
    return None


def rows(n=200, seed=0):
    """Recorded rows of random play: every episode is cut after 20 steps or ends at its success."""
    rng, out = np.random.default_rng(seed), []
    while len(out) < n:
        x = rng.uniform(-0.1, 0.1)
        for t in range(STEPS):
            action, before = rng.uniform(-1, 1, 2), x
            x += 0.1 * action[0]
            out.append(([before, t / STEPS, 1.0], action, float(x > 0.5), x > 0.5, t == STEPS - 1 and x <= 0.5))
            if x > 0.5:
                break
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    return {name: np.array(column) for name, column in zip(names, zip(*out, strict=True), strict=True)}


@pytest.fixture
def calql(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    Port.there = 0

    def run(*arguments):
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


def train(calql, name, arrays, *more, quick=QUICK, out=None):
    np.savez("log.npz", **arrays)
    return calql("train", "--task", f"{HERE}:{name}", "--data", "npz:log.npz", *quick, *more, "--out", out or name)


def last(name):
    with open(f"{name}/eval.csv") as file:
        return list(csv.DictReader(file))[-1]


def test_any_mapping_is_an_observation_online_too(calql):
    arrays = rows()
    seen = arrays.pop("observations")
    arrays |= {"observations/a": seen[:, 2:], "observations/b": seen[:, :2]}
    steps = ("--set", "offline_steps=2", "eval_every_offline=2", "online_steps=20", "eval_episodes=1")
    code, _, said = train(calql, "ordered", arrays, quick=("--scale", "smoke", *steps))
    assert code == 0, said
    assert last("ordered")["env_step"] == "20"


def test_channels_first_are_a_warning_of_the_check_and_of_a_run(calql, capsys):
    arrays = rows(60)
    arrays["observations"] = np.zeros((len(arrays["rewards"]), 3, 24, 24), np.uint8)
    np.savez("log.npz", **arrays)
    load_data(experiment(images(), "bc", "smoke", data="npz:log.npz"))  # as a run does
    warning = "images 'observations' (3, 24, 24) are taken as 3 rows of 24 pixels with 24 channels"
    assert f"note {warning}" in capsys.readouterr().out
    code, out, _ = calql("data", "check", "npz:log.npz", "--task", f"{HERE}:images", "--no-clone")
    assert (code, f"warning  {warning}" in out) == (0, True)
    assert "move them last, in the data and in the environment: [H, W, C]" in out


def test_an_environment_may_change_the_action_that_it_is_given(calql):
    assert train(calql, "in_place", rows())[0] == 0
    assert InPlace.given


def test_one_port_is_opened_once_at_a_time_and_a_second_opening_names_the_option(calql):
    code, _, said = train(calql, "port", rows())
    assert code == 0, said
    assert Port.there == 0
    code, _, said = train(calql, "port", rows(), "eval_envs=2", "eval_episodes=2", out="two")
    assert code == 2
    assert "OSError: port 5005 is in use" in said
    assert "if it can be opened once only, --set eval_envs=1" in said


def test_is_success_is_the_score(calql):
    assert train(calql, "wins", rows())[0] == 0
    assert last("wins")["score_mean"] == "1.0"


def test_a_last_reward_outside_of_its_score_is_refused_at_the_first_evaluation_and_the_advice_helps(calql):
    code, _, said = train(calql, "owes", rows())
    assert (code, len(said.splitlines())) == (2, 1)
    assert "the last reward of an episode is -1, outside [0, 1] as score=last_reward/1 needs it" in said
    assert "--set score=return score_range=LOW,HIGH" in said
    code, _, said = train(calql, "owes", rows(), "score=return", "score_range=-20,0", out="scored")
    assert code == 0, said
    assert calql("report", "scored", "--out", "report")[0] == 0


def test_values_of_an_environment_that_pays_more_than_1_are_no_divergence(calql):
    arrays = rows()
    arrays["rewards"][:], arrays["terminals"][:] = 10.0, False
    arrays["timeouts"] = np.arange(1, len(arrays["rewards"]) + 1) % STEPS == 0
    settings = ("--set", "discount=0.5", "critic_lr=0.01", "offline_steps=200", "eval_every_offline=200")
    quick = ("--scale", "smoke", "--method", "cql", *settings, "online_steps=0", "eval_from=nothing")
    code, out, said = train(calql, "pays", arrays, quick=quick)
    assert code == 0, said
    assert float(last("pays")["q_data_mean"]) > 5  # beyond [0, 1] / (1 − 0.5)
    assert not [word for word in ("diverge", "target_q_clamp") if word in out + said]
    assert json.loads(Path("pays/config.json").read_text())["experiment"]["task"]["rewards"]["high"] is None


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--task", f"{HERE}:nothing"), "made a NoneType; it must return a gymnasium.Env or a calql.tasks.Task"),
        (("--task", f"{HERE}:wins", "--out", "log.npz/run"), "choose another --out"),
        (("--task", f"{HERE}:wins", "--out", "/proc/run"), "choose another --out"),
        (("--task", f"{HERE}:wins", "--out", "closed/run"), "choose another --out"),
    ],
)
def test_a_run_that_cannot_begin_is_refused_in_one_line(calql, tmp_path, arguments, cause):
    np.savez("log.npz", **rows(60))
    (tmp_path / "closed").mkdir(mode=0o555)
    denied = contextlib.nullcontext()
    if arguments[-1] == "closed/run":  # root may write anywhere
        denied = pytest.MonkeyPatch.context()
    with denied as patch:
        if patch is not None:
            patch.setattr("os.access", lambda path, mode: "closed" not in str(path))
        code, _, said = calql("train", "--data", "npz:log.npz", *QUICK, *arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert cause in said
