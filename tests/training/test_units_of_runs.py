"""Whole runs in a machine's own units: commands, what a run keeps of them, and normalised observations."""

import dataclasses
from itertools import islice

import gymnasium
import jax
import numpy as np
import pytest
import tiny
from tiny import HORIZON

from calql.data.episodes import Episodes
from calql.training import policy as policies
from calql.training import store
from calql.training.options import experiment
from calql.training.policy import evaluate, load_policy
from calql.training.run import events, train
from calql.training.run_dir import RunDir
from calql.types import InputError, map_leaves

HALF = 0.39 * np.array([1.0, -2.0, 1.0], np.float32)


class Machine(gymnasium.Env):
    """Commands in ±0.4, ±2 and [0, 1]; observes angles in degrees around 180, and a constant."""

    observation_space = gymnasium.spaces.Dict(
        angles=gymnasium.spaces.Box(0, 360, (2,), np.float64), mode=gymnasium.spaces.Box(0, 9, (1,), np.float32)
    )
    action_space = gymnasium.spaces.Box(np.float32([-0.4, -2, 0]), np.float32([0.4, 2, 1]))
    commands = []  # noqa: RUF012 (of all instances)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        return {"angles": self.np_random.uniform(90, 270, 2), "mode": np.array([7], np.float32)}

    def step(self, action):
        self.commands.append(np.array(action))
        self.t += 1
        return self.look(), 0.0, False, False, {"success": False}


TASK = dataclasses.replace(tiny.TASK, id="machine", env=Machine)
SMALL = tiny.fitting("bc", tiny.SETTINGS) | {"offline_steps": 400, "eval_every_offline": 400, "actor_lr": 0.02}


def log(count=12):
    rng = np.random.default_rng(0)

    def states():
        return {"angles": rng.uniform(90, 270, (HORIZON + 1, 2)), "mode": np.full((HORIZON + 1, 1), 7.0)}

    like = tiny.DATA.episodes[0]
    none = np.zeros(HORIZON, bool)
    return Episodes(
        tuple(
            like._replace(
                observations=states(), actions=np.tile(HALF, (HORIZON, 1)), rewards=np.zeros(HORIZON),
                terminations=none, truncated=True, successes=none,
            )
            for _ in range(count)
        )
    )  # fmt: skip


def run(folder, options=(), **how):
    train(experiment(TASK, "bc", "smoke", options={**SMALL, **dict(options)}), folder, log(), **how)
    return folder


def test_a_cloned_log_reaches_the_machine_in_its_own_unit(tmp_path, monkeypatch):
    Machine.commands.clear()
    folder = run(tmp_path / "run", {"normalise_observations": True})
    assert np.allclose(Machine.commands[-HORIZON:], HALF, atol=0.05)
    monkeypatch.setattr(policies, "make_env", lambda task: pytest.fail("the environment was opened"))
    policy = load_policy(folder)
    assert np.allclose(policy.act({"angles": [100, 200], "mode": [7]}), HALF, atol=0.05)
    assert (policy.bounds.low.tolist(), policy.bounds.high.tolist()) == ([-0.4, -2.0, 0.0], [0.4, 2.0, 1.0])


def test_a_policy_is_not_evaluated_on_a_machine_with_other_bounds(tmp_path, monkeypatch):
    folder = run(tmp_path / "run", {"offline_steps": 2})
    monkeypatch.setattr(Machine, "action_space", gymnasium.spaces.Box(-1, 1, (3,)))
    with pytest.raises(InputError, match="trained for"):
        evaluate(folder, episodes=2)


# -- normalised observations -------------------------------------------------------------------------------------------


def test_networks_see_normalised_observations_everywhere(tmp_path):
    folder = run(tmp_path / "run", {"normalise_observations": True})
    policy = load_policy(folder)
    angles = np.concatenate([e.observations["angles"][:-1] for e in log().episodes])
    assert np.allclose(policy.spec.mean["angles"], angles.mean(axis=0), rtol=1e-5)
    assert np.allclose(policy.spec.std["angles"], angles.std(axis=0), rtol=1e-5)
    assert policy.spec.std["mode"] == [1.0]  # constant
    one = {"angles": np.array([100.0, 200.0], np.float32), "mode": np.array([7.0], np.float32)}
    seen = map_leaves(lambda x, m, s: ((x - m) / s)[None], one, policy.spec.mean, policy.spec.std)
    unit = policy.algorithm.act(policy.state, seen)[0]
    assert np.allclose(policy.act(one), policy.bounds.from_unit(unit), atol=1e-6)


@pytest.mark.parametrize(("world", "stop"), [("states", 12), ("images", 4)])
def test_a_normalised_run_that_is_resumed_is_the_same(tmp_path, world, stop):
    made, data = tiny.made(world=world, normalise_observations=True), tiny.WORLDS[world][1]
    list(events(made, tmp_path / "whole", data))
    parts = events(made, tmp_path / "parts", data)
    list(islice(parts, stop))
    parts.close()
    list(events(made, tmp_path / "parts", data, resume=True))
    whole, resumed = (load_policy(tmp_path / name) for name in ("whole", "parts"))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole.state, resumed.state))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole.spec.mean, resumed.spec.mean))


def test_borrowed_networks_keep_the_statistics_that_they_were_trained_with(tmp_path):
    made = tiny.made(normalise_observations=True)
    train(made, tmp_path / "donor", tiny.DATA)
    moved = tuple(e._replace(observations=3.0 * e.observations + 5.0) for e in tiny.DATA.episodes)
    train(made, tmp_path / "next", Episodes(moved), init_from=str(tmp_path / "donor"))
    donor, after = (load_policy(tmp_path / name).spec for name in ("donor", "next"))
    assert np.array_equal(donor.mean, after.mean)
    assert np.array_equal(donor.std, after.std)
    for options, donor_of, fix in [({}, "donor", "true"), ({"normalise_observations": True}, "plain", "false")]:
        if donor_of == "plain":
            train(tiny.made(), tmp_path / "plain", tiny.DATA)
        with pytest.raises(InputError, match=f"normalise_observations={fix}"):
            train(tiny.made(**options), tmp_path / "wrong", tiny.DATA, init_from=str(tmp_path / donor_of))


def test_a_run_that_does_not_normalise_keeps_no_statistics(tmp_path):
    folder = run(tmp_path / "run", {"offline_steps": 2})
    assert store.statistics_of(next(RunDir(folder).checkpoints.glob("step-*"))) is None
    assert load_policy(folder).spec.mean is None


def test_rules_that_normalise_by_themselves_say_so():
    with pytest.raises(InputError, match="ODT normalises observations by itself; leave"):
        experiment(tiny.TASK, "odt", "smoke", options={"normalise_observations": True})
