"""Learning from images: one encoder, the critics', and the answers of the probes whose states are drawn."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, ProbeEnv, probe_dataset

from calql.algorithms import BC, ODT, SAC, Acts, HasValues
from calql.data.episodes import Episodes
from calql.data.transitions import to_transitions
from calql.paper.methods import METHODS
from calql.replay import make_replay
from calql.tasks import Task
from calql.training.learner import train_steps
from calql.types import InputError

DISCOUNT, STEPS = 0.8, 500
SETTINGS = dict(
    discount=DISCOUNT, tau=0.05, actor_lr=3e-3, critic_lr=3e-3, actor_hidden=(24,), critic_hidden=(24,),
    num_target_actions=1, num_random_actions=4, num_policy_actions=4, num_next_actions=0, cql_alpha=1e-3,
    iql_expectile=0.9, score_weight=1e-2, iql_temperature=20.0, awac_lambda=0.02, td3_bc_alpha=100.0, target_noise=0.02,
)  # fmt: skip
RULES = {rule for m in METHODS.values() for rule in (m.offline, m.online) if rule and issubclass(rule, Acts)}
RULES = sorted(RULES, key=lambda rule: rule.__name__)


def small(rule, **options):
    names = {field.name for field in dataclasses.fields(rule)}
    return rule(**{name: value for name, value in (SETTINGS | options).items() if name in names})


def draw(states):
    """[N, 1] → [N, 12, 12, 3]: a bright block on a grey ground, whose column is the state."""
    image = np.full((len(states), 12, 12, 3), 60, np.uint8)
    for one, column in zip(image, np.round(3 * states[:, 0]).astype(int) + 5, strict=True):
        one[4:7, column : column + 2] = 250
    return {"image": image}


@cache
def data(name):
    task = Task(id=name, env=lambda: ProbeEnv(name), horizon=PROBES[name].length, data=None)
    recorded = probe_dataset(name, 300 // PROBES[name].length, seed=1)  # as many rows: all probes share a program
    episodes = Episodes(tuple(e._replace(observations=draw(e.observations)) for e in recorded))
    states = np.concatenate([e.observations[:-1, 0] for e in recorded])
    return to_transitions(episodes.episodes, task.rewards, DISCOUNT), episodes.spec(), states


def learnt(algorithm, name, steps=STEPS):
    transitions, spec, _ = data(name)
    replay = make_replay(transitions, jax.tree.map(lambda x: x[0], transitions), 0)
    return train_steps(
        algorithm, 32, 1, algorithm.init(jax.random.key(0), spec), replay, jax.random.key(1), 0, steps, 1.0
    )[0]


@pytest.mark.parametrize(("rule", "name"), [(r, "both") for r in RULES if r is not BC] + [(SAC, "discount")])
def test_values_are_those_of_what_is_drawn(rule, name):
    algorithm = small(rule)
    state = learnt(algorithm, name)
    transitions, _, states = data(name)
    truth = np.broadcast_to(PROBES[name].q(states, transitions.actions[:, 0], DISCOUNT), len(states))
    for q in np.asarray(algorithm.q_values(state.critic, transitions.observations, transitions.actions)):
        assert np.abs(q - truth).mean() < 0.1


@pytest.mark.parametrize("rule", RULES)
def test_the_policy_looks_through_the_critics_encoder(rule):
    algorithm = small(rule)
    start = algorithm.init(jax.random.key(0), data("both")[1])
    state = learnt(algorithm, "both", steps=1)

    def moved(part):
        pairs = zip(jax.tree.leaves(part(start)), jax.tree.leaves(part(state)), strict=True)
        return any((a != b).any() for a, b in pairs)

    assert moved(lambda s: s.actor["encoder"])
    if isinstance(algorithm, HasValues):
        assert moved(lambda s: s.critic["encoder"])
        jax.tree.map(np.testing.assert_array_equal, state.actor["encoder"], state.critic["encoder"])
        # Its own loss does not reach there: Adam has seen zeros alone.
        assert not any(leaf.any() for leaf in jax.tree.leaves(state.actor_optimizer[0].mu["encoder"]))


def test_a_subset_of_critics_keeps_the_encoder():
    algorithm = small(SAC, num_critics=5, target_subset=2)
    _, spec, _ = data("both")
    state = algorithm.init(jax.random.key(0), spec)
    chosen = algorithm.target_members(state, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, chosen["encoder"], state.target_critic["encoder"])
    observation = jax.tree.map(lambda x: jnp.asarray(x)[None], spec.observation)
    assert algorithm.q_values(chosen, observation, jnp.zeros((1, 1))).shape == (2, 1)


def test_sequences_of_images_are_refused():
    with pytest.raises(InputError, match="images"):
        ODT().init(jax.random.key(0), data("both")[1])
