"""The contract of an update rule: ours keep it, and a user's own that shares nothing with ours is trained by it."""

import dataclasses
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, ProbeEnv, probe_dataset
from test_update import RULES

from calql.algorithms import BC, ODT, Acts, ActsInContext, HasValues, UpdateRule
from calql.algorithms.acting import acting
from calql.data.episodes import Episodes
from calql.data.transitions import to_transitions
from calql.replay import make_replay
from calql.tasks import Task
from calql.training.loop import train_steps


class LinearState(NamedTuple):
    weights: Any
    bias: Any


@dataclasses.dataclass(frozen=True)
class LinearBC:
    """Least squares of the data's actions by a linear policy, written against the protocol alone."""

    learning_rate: float = 0.1
    noise: float = 0.1
    discount: float = 0.99

    context = 0

    def init(self, key, spec):
        return LinearState(jnp.zeros((len(spec.observation), spec.action_dim)), jnp.zeros(spec.action_dim))

    def pi(self, state, observations):
        return observations @ state.weights + state.bias[None]

    def loss(self, state, batch):
        return jnp.square(self.pi(state, batch.observations) - batch.actions).mean()

    def update(self, state, batch, key):
        loss, gradient = jax.value_and_grad(self.loss)(state, batch)
        return jax.tree.map(lambda x, g: x - self.learning_rate * g, state, gradient), {"loss": loss}

    def act(self, state, observations, key=None):
        mean = self.pi(state, observations)
        noise = 0.0 if key is None else self.noise * jax.random.normal(key, mean.shape)
        return jnp.clip(mean + noise, -1.0, 1.0)


@pytest.mark.parametrize("rule", [*RULES, LinearBC])
def test_rules_keep_the_contract(rule):
    assert isinstance(rule(), UpdateRule)
    assert issubclass(rule, ActsInContext if rule().context else Acts)
    assert not issubclass(rule, Acts if rule().context else ActsInContext)


def test_what_is_no_rule_is_told_apart():
    assert not isinstance(object(), UpdateRule)
    assert not isinstance(dict(), Acts)
    assert {rule for rule in [*RULES, LinearBC] if not issubclass(rule, HasValues)} == {BC, ODT, LinearBC}
    assert ODT(odt_context=7).context == 7


def test_values_take_a_policy_of_the_current_observation():
    class SequenceValues(ODT):
        def q_values(self, critic, observations, actions):
            """What the bounding rate calls beside `act`, which this rule has not."""

    assert not isinstance(SequenceValues(), HasValues)


@pytest.mark.parametrize("rule", RULES)
def test_rules_take_arguments_by_the_names_of_the_contract(rule):
    for contract in (UpdateRule, *(part for part in (Acts, ActsInContext, HasValues) if issubclass(rule, part))):
        for name, method in inspect.getmembers(contract, inspect.isfunction):
            if not name.startswith("_"):
                wanted = [*inspect.signature(method).parameters]
                assert [*inspect.signature(getattr(rule, name)).parameters][: len(wanted)] == wanted


def test_a_rule_without_a_base_class_learns_and_acts():
    name = "both"
    task = Task(id=name, env=lambda: ProbeEnv(name), horizon=PROBES[name].length, data=None)
    episodes = Episodes(tuple(probe_dataset(name, 100, seed=1, behaviour="expert")))
    data = to_transitions(episodes.episodes, task.rewards, 0.99)
    rule, replay = LinearBC(), make_replay(data, jax.tree.map(lambda x: x[0], data), 0)
    state = rule.init(jax.random.key(0), episodes.spec())
    state, sums = train_steps(rule, 32, 0, state, replay, jax.random.key(1), 0, 200, jnp.float32(1.0))
    assert sums["loss"] < 200
    steps, rewards = np.zeros(1, np.int32), np.zeros(1, np.float32)
    for start in PROBES[name].starts:
        observations = jnp.full((1, 1), start)
        action = acting(rule, episodes.spec(), state, 1)(observations, steps, rewards)
        best = np.polynomial.Polynomial.fit(data.observations[:, 0], data.actions[:, 0], 1)(start)
        assert float(action[0, 0]) == pytest.approx(best, abs=0.05)
        explored = acting(rule, episodes.spec(), state, 1, jax.random.key(2))(observations, steps, rewards)
        assert explored[0, 0] != action[0, 0]
