"""The average of the policy that acts in its place: `acting_tau`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed import batch
from test_update import RULES, data_of, small

from calql.algorithms import SAC, TD3BC, CalQL, CalQLPlus
from calql.algorithms.actor_critic import ActorCritic
from calql.training import checkpoint
from calql.training.store import borrowed
from calql.types import Spec

KEY = jax.random.key(0)
TAU = 0.3


def states(rule, updates=3):
    """The states of a rule from its first on."""
    data = data_of(rule)
    spec = Spec(jax.tree.map(lambda x: np.zeros(x.shape[1:], x.dtype), data.observations), data.actions.shape[-1])
    found, update = [rule.init(KEY, spec)], jax.jit(rule.update)
    for i in range(updates):
        found.append(update(found[-1], data, jax.random.fold_in(KEY, i))[0])
    return found


@pytest.mark.parametrize("rule", [rule for rule in RULES if issubclass(rule, ActorCritic)])
def test_it_acts_and_learning_does_not_see_it(rule):
    """φ̄ ← φ̄ + τ_a (φ − φ̄) from φ̄ = φ on; all other parts of the state are those without an average."""
    plain = dataclasses.replace(small(rule), acting_tau=1.0)
    averaging = dataclasses.replace(plain, acting_tau=TAU)
    expected = None
    for one, other in zip(states(plain), states(averaging), strict=True):
        assert one.averaged_actor is None
        jax.tree.map(np.testing.assert_array_equal, one, other._replace(averaged_actor=None))
        policy = jax.tree.map(np.asarray, one.actor)
        expected = policy if expected is None else jax.tree.map(lambda m, x: m + TAU * (x - m), expected, policy)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), other.averaged_actor, expected)
        acting = one._replace(actor=jax.tree.map(jnp.asarray, other.averaged_actor))
        for key in (None, KEY):
            np.testing.assert_array_equal(
                averaging.act(other, batch().observations, key), plain.act(acting, batch().observations, key)
            )
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (expected, policy)), strict=True))


@pytest.mark.parametrize("rule", [SAC, TD3BC, CalQL, CalQLPlus])
def test_an_average_begins_as_a_copy_of_what_another_run_gives(rule):
    """A run that keeps no such average has nothing else to begin with: fresh weights would act, or give the targets."""
    averaging = dataclasses.replace(small(rule), acting_tau=TAU)
    donor = checkpoint.flatten(states(dataclasses.replace(small(SAC), acting_tau=1.0))[-1])
    state, taken, left = borrowed(states(averaging, 0)[0], donor)
    assert "actor" in taken
    assert not {"averaged_actor", "target_actor"} & {*left}
    for average in (state.averaged_actor, state.target_actor):
        if average is not None:
            jax.tree.map(np.testing.assert_array_equal, average, state.actor)
