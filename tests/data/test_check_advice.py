"""The advice of the check is true: what it says of steps, γ and τ, of cloning, and every setting that it names."""

import dataclasses
import re

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import TASK

from calql.data.check.cloning import cloning
from calql.data.check.convergence import enough, updates_to_converge
from calql.data.check.describe import check
from calql.data.episodes import Episodes
from calql.rewards import Rewards
from calql.training.options import experiment
from calql.types import Episode


class Spaces:
    """Spaces and nothing else."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    unwrapped = None


def an_episode(steps, ends):
    terminations = np.arange(steps) == (steps - 1 if ends else steps)
    return Episode(np.zeros((steps + 1, 1)), np.zeros((steps, 1)), np.zeros(steps), terminations, not ends)


# -- steps, γ and τ ----------------------------------------------------------------------------------------------------


def missed_after(updates, steps, ends, discount, rate):
    """Share of the first state's value that exact backups with a slow target have not found after so many updates.

    With an end, only the last step pays; without one, every step does, and the last state leads to itself.
    """
    pays = np.zeros(steps) if ends else np.ones(steps)
    pays[-1] = 1.0
    next_state = np.minimum(np.arange(steps) + 1, steps - 1)
    mask = np.ones(steps)
    mask[-1] = 0.0 if ends else 1.0
    target = np.zeros(steps)
    for _ in range(updates):
        target = target + rate * (pays + discount * mask * target[next_state] - target)
    value = discount ** (steps - 1) if ends else 1.0 / (1.0 - discount)
    return float(1.0 - (pays + discount * mask * target[next_state])[0] / value)


@pytest.mark.parametrize("rate", [0.005, 0.02])
@pytest.mark.parametrize(("steps", "ends", "discount"), [(25, True, 0.999), (150, True, 0.999), (40, False, 0.98)])
def test_values_have_converged_after_the_updates_that_are_named_and_not_long_before(steps, ends, discount, rate):
    needed = updates_to_converge([an_episode(steps, ends)], discount, rate)
    assert missed_after(needed, steps, ends, discount, rate) <= 0.06
    assert missed_after(needed // 2, steps, ends, discount, rate) >= 0.15


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1000), st.booleans()), min_size=1, max_size=5),
    st.integers(0, 100_000), st.sampled_from([0.9, 0.97, 0.99, 0.995, 0.999]), st.sampled_from([0.001, 0.005, 0.01]),
)  # fmt: skip
def test_every_setting_that_is_named_is_enough(shapes, updates, discount, rate):
    episodes = [an_episode(*shape) for shape in shapes]
    for way in enough(episodes, updates, discount, rate):
        name, value = re.match(r"(\w+)=([\d.]+)", way).groups()
        chosen = {"offline_steps": updates, "discount": discount, "tau": rate} | {name: float(value)}
        assert updates_to_converge(episodes, chosen["discount"], chosen["tau"]) <= chosen["offline_steps"]


def test_the_advice_about_steps_can_be_followed():
    """What the check prints is accepted as options of a run, whose check then has nothing to say about it."""
    data, options = Episodes(tuple(an_episode(30, True) for _ in range(3))), {"offline_steps": 2_000, "tau": 0.005}

    def warned(**more):
        run = experiment(TASK, "cal-ql", options=options | more)
        rule = run.pretrain.algorithm
        report = check(data, TASK, Spaces(), rule.discount, rule.tau, updates=run.pretrain.offline_steps)
        assert ("too few" in report.text()) == any("too few" in warning for warning in report.warnings)
        return [warning for warning in report.warnings if "gradient steps" in warning]

    (warning,) = warned(discount=0.99)
    ways = warning.partition("enough are: ")[2].split(", or ")
    assert [way.partition("=")[0] for way in ways] == ["offline_steps", "tau"]
    for way in ways:
        name, value = re.match(r"(\w+)=([\d.]+)", way).groups()
        assert not warned(**{"discount": 0.99, name: value})


# -- units and ranges --------------------------------------------------------------------------------------------------


def test_advice_about_observations_and_rewards_can_be_followed():
    episode = an_episode(20, False)._replace(
        observations=np.full((21, 1), 500.0), rewards=np.linspace(-3, 7, 20), actions=np.linspace(-1, 1, 20)[:, None]
    )
    data, task = Episodes((episode,)), dataclasses.replace(TASK, rewards=Rewards(low=0.0, high=1.0))
    told = " ".join(check(data, task).warnings)
    settings = re.findall(r"--set (normalise_observations=true|rewards.low=\S+ rewards.high=\S+)", told)
    assert len(settings) == 2
    run = experiment(task, "cal-ql", options=" ".join(settings).split())
    after = check(data, run.task, normalised=run.data.normalise_observations)
    assert not [w for w in after.warnings if "normalise" in w or "rewards lie" in w]


# -- cloning -----------------------------------------------------------------------------------------------------------


def demonstrations(count, policy, noise=0.0, steps=30, dims=3, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        states = rng.normal(size=(steps + 1, dims))
        actions = np.clip(policy(states[:-1]) + noise * rng.normal(size=(steps, 1)), -1, 1)
        made.append(Episode(states, actions, np.zeros(steps), np.zeros(steps, bool), True))
    return made


def simple(states):
    return 0.8 * np.tanh(states[:, :1])


def rugged(states):
    return 0.8 * np.sin(3.0 * states[:, :1]) * np.cos(2.0 * states[:, 1:2])


def test_what_is_said_of_more_episodes_comes_true():
    few, more = (cloning(demonstrations(count, rugged)) for count in (24, 96))
    assert few.helped
    assert few.text().endswith("more episodes would help")
    assert more.error < 0.85 * few.error
    plenty = cloning(demonstrations(60, simple, noise=0.2))
    assert plenty.text().endswith("would change little")
    assert plenty.error > 0.1  # the noise, which no number of episodes takes away


def test_actions_that_do_not_follow_from_observations_are_named():
    found = cloning(demonstrations(20, lambda states: 0.0 * states[:, :1], noise=0.5))
    assert 0.9 < found.error < 1.3
    assert "hardly follow" in found.text()


def test_a_perfectly_clonable_log_in_any_scale():
    data = demonstrations(20, simple)
    scaled = [e._replace(observations=1000.0 * e.observations + 300.0) for e in data]
    one, other = cloning(data), cloning(scaled)
    assert one.error < 0.02
    assert other.error == pytest.approx(one.error, abs=0.01)


def test_too_few_episodes_or_constant_actions_are_not_measured():
    assert cloning(demonstrations(7, simple)) is None
    assert cloning(demonstrations(20, lambda states: 0.0 * states[:, :1])) is None
    report = check(Episodes(tuple(demonstrations(7, simple))), TASK, clone=True)
    assert report.facts["cloning"] is None
    assert "cloning  not measured: fewer than 8 episodes" in report.text()
