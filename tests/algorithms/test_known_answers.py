"""Every row of the method table on the probe environments, whose values and best actions are known."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, ProbeEnv, probe_dataset

from calql.algorithms import HasValues
from calql.algorithms.acting import acting
from calql.data.episodes import Episodes
from calql.data.transitions import to_transitions
from calql.paper.methods import METHODS
from calql.replay import make_replay
from calql.tasks import Task
from calql.training.learner import train_steps, with_statistics

DISCOUNT, ROWS, STEPS, BATCH = 0.8, 400, 600, 32
SETTINGS = dict(
    discount=DISCOUNT, tau=0.05, actor_lr=5e-3, critic_lr=5e-3, actor_hidden=(32,), critic_hidden=(32,),
    num_target_actions=1, num_random_actions=4, num_policy_actions=4, num_next_actions=0,
    # Nearly the best of the data's values, and a policy that follows them more than the data.
    iql_expectile=0.9, iql_temperature=20.0, awac_lambda=0.02, td3_bc_alpha=100.0, target_noise=0.02,
    odt_width=16, odt_layers=1, odt_heads=2, odt_context=3, odt_acting_context=3, odt_warmup=50, odt_dropout=0.0,
)  # fmt: skip
LEARN_VALUES = [m.id for m in METHODS.values() if issubclass(m.online or m.offline, HasValues)]
CONSERVATIVE = [m.id for m in METHODS.values() if hasattr(m.offline, "cql_alpha")]
SCORE_MATCHING = [m.id for m in METHODS.values() if hasattr(m.offline, "score_weight")]
CLONING = [m.id for m in METHODS.values() if m.offline and not issubclass(m.offline, HasValues)]
FOLLOWS_SLOPES = dict(critic_hidden=(64, 64), score_temperature=5.0)
"""The slope of a critic of few ReLUs has too few steps to follow a score."""
EACH = pytest.mark.parametrize("name", PROBES)


def rules(method, **settings):
    """The update rules of a row, in the order of its phases."""

    def make(rule):
        names = {field.name for field in dataclasses.fields(rule)}
        return rule(**{name: value for name, value in (SETTINGS | settings).items() if name in names})

    row = METHODS[method]
    own = row.settings.get("", {})
    if "num_critics" in own:  # half as many take half the time, and a subset of them is still one
        kept = ("critic_layer_norm", "actor_layer_norm", "target_subset", "actor_on_mean")
        ensemble = {name: own[name] for name in kept if name in own}
        settings = {"num_critics": own["num_critics"] // 2} | ensemble | settings
    return tuple(dict.fromkeys(make(rule) for rule in (row.offline, row.online) if rule))


@cache
def data(name, behaviour):
    task = Task(id=name, env=lambda: ProbeEnv(name), horizon=PROBES[name].length, data=None)
    count = ROWS // PROBES[name].length  # so that all probes share a rule's program
    episodes = Episodes(tuple(probe_dataset(name, count, seed=1, behaviour=behaviour)))
    transitions = to_transitions(episodes.episodes, task.rewards, DISCOUNT, sequences=True)
    return transitions, episodes.spec()


def spec_for(algorithm, name, behaviour):
    """The spec as a run has it: with statistics if the rule is one of sequences."""
    transitions, spec = data(name, behaviour)
    return with_statistics(spec, transitions) if algorithm.context else spec


@cache
def learnt(algorithms, name, behaviour):
    """The state after training on the probe's data, with one rule after the other."""
    transitions, _ = data(name, behaviour)
    replay = make_replay(transitions, jax.tree.map(lambda x: x[0], transitions), 0)
    state = algorithms[0].init(jax.random.key(0), spec_for(algorithms[0], name, behaviour))
    for i, algorithm in enumerate(algorithms):
        state, _ = train_steps(algorithm, BATCH, 0, state, replay, jax.random.key(i), 0, STEPS, jnp.float32(1.0))
    return state


def assert_values_are_right(algorithm, state, name, tolerance):
    transitions, _ = data(name, "uniform")
    s, a = transitions.observations, transitions.actions
    truth = np.broadcast_to(PROBES[name].q(s[:, 0], a[:, 0], DISCOUNT), len(s))
    for q in np.asarray(algorithm.q_values(state.critic, s, a)):
        assert np.abs(q - truth).mean() < tolerance
        assert np.abs(q - truth).max() < 4 * tolerance


def assert_actions_are(algorithm, state, name, wanted, tolerance):
    for start in PROBES[name].starts:
        policy = acting(algorithm, spec_for(algorithm, name, "expert"), state, 1)
        action = policy(jnp.full((1, 1), start), np.zeros(1, np.int32), np.zeros(1, np.float32))
        assert float(action[0, 0]) == pytest.approx(wanted(start), abs=tolerance)


@EACH
@pytest.mark.parametrize("method", LEARN_VALUES)
def test_values_and_actions_without_much_conservatism(method, name):
    algorithms = rules(method, cql_alpha=1e-3, score_weight=1e-3)
    state = learnt(algorithms, name, "uniform")
    assert_values_are_right(algorithms[-1], state, name, 0.06)
    if PROBES[name].best_action is not None:
        assert_actions_are(algorithms[-1], state, name, PROBES[name].best_action, 0.15)


@EACH
@pytest.mark.parametrize("method", CONSERVATIVE + SCORE_MATCHING + CLONING)
def test_from_an_experts_data_alone_comes_the_experts_action(method, name):
    """With the paper's conservative weight: what the data do not show is worth less. A new row is tested where it
    names a conservative or score-matching rule, or one that learns no values."""
    slower = {"actor_lr": 2e-3} if method in CLONING else {}  # a likelihood's last iterate wanders by 0.1 at 5e-3
    wider = FOLLOWS_SLOPES if method in SCORE_MATCHING else {}
    algorithm = rules(method, cql_alpha=5.0, **slower, **wider)[0]
    state = learnt((algorithm,), name, "expert")
    assert_actions_are(algorithm, state, name, PROBES[name].best_action or (lambda s: 0.0), 0.1)


@EACH
@pytest.mark.parametrize("method", CONSERVATIVE + SCORE_MATCHING)
def test_conservatism_lowers_actions_that_the_data_do_not_show(method, name):
    algorithm = rules(method, cql_alpha=5.0, **(FOLLOWS_SLOPES if method in SCORE_MATCHING else {}))[0]
    transitions, _ = data(name, "expert")
    state = learnt((algorithm,), name, "expert")
    s, a = transitions.observations, transitions.actions
    shown = algorithm.q_values(state.critic, s, a)
    for other in (-0.95, 0.95):
        assert (algorithm.q_values(state.critic, s, jnp.full_like(a, other)) < shown - 0.5).all()
