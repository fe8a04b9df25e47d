"""The estimated conservative term: its mean over all draws is the exact one, to rounding, for values and gradients."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixed import SMALL, batch, state_of

from calql.algorithms import CQL, VARIANTS, CalQL
from calql.algorithms.steps import systematic_draws
from calql.training.options import experiment
from calql.types import InputError

KEY = jax.random.key(7)
SIZE = 4
RULES = {
    "cql": CQL(**SMALL, cql_temperature=0.5),
    "listing": CalQL(**SMALL, **VARIANTS["listing"]),
    "lagrange": CalQL(**SMALL, cql_target_gap=0.8),
    "no importance": CQL(**SMALL, importance_sampling=False),
    "clip": CalQL(**SMALL, cql_clip=(0.0, 3.0)),
    "fitted": CalQL(**SMALL, reference="fitted"),
    "three critics": CalQL(**SMALL, num_critics=3),
}


@cache
def program(rule):
    """Loss, metrics and the critics' gradient on given draws, compiled once per rule."""

    def loss(critic, state, data, draws):
        return rule.critic_loss(critic, state, data, KEY, draws)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@cache
def draws_of(rule):
    return jax.jit(rule.critic_draws)(state_of(rule), batch(SIZE), KEY)


@cache
def exact(rule):
    return evaluated(rule, state_of(rule), batch(SIZE), draws_of(rule))


def evaluated(rule, state, data, draws):
    return program(rule)(state.critic, state, data, draws)


def mean(results, weights=None):
    return jax.tree.map(lambda *x: np.average(np.stack(x), axis=0, weights=weights), *results)


def assert_equal(estimate, exact):
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(exact))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5 * scale), estimate, exact)


def breakpoints(rule, state, data, draws, count):
    """Where a draw changes as all states' uniforms go from 0 to 1 together."""

    @jax.jit
    def shares(critic, sampled, log_density):
        reference = rule.reference_values(state, data)
        q_data, q_ood = rule.q_data_and(critic, data, sampled)
        return jax.grad(lambda q: rule.conservative_gap(q, log_density, q_data, reference).sum())(q_ood).mean(axis=0)

    ends = np.cumsum(np.asarray(shares(state.critic, *draws[1:3]), np.float64), axis=1)
    inner = (count * ends / np.where(ends[:, -1:] > 0, ends[:, -1:], 1.0)) % 1.0
    return np.unique(np.concatenate([[0.0, 1.0], inner.ravel()]))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", RULES)
def test_the_mean_over_all_draws_of_actions_is_the_exact_gradient(name, count):
    rule, data = RULES[name], batch(SIZE)
    state, draws = state_of(rule), draws_of(rule)
    few = dataclasses.replace(rule, cql_gradient_actions=count)
    ends = breakpoints(rule, state, data, draws, count)
    middles = (ends[1:] + ends[:-1]) / 2
    results = [evaluated(few, state, data, (*draws[:3], jnp.full(SIZE, u, jnp.float32))) for u in middles]
    assert_equal(mean(results, np.diff(ends)), exact(rule))
    for values, _ in results:  # the values are exact with every draw
        assert_equal(values, exact(rule)[0])


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", RULES)
def test_the_mean_over_all_subsets_of_states_is_exact(name, n):
    rule, data = RULES[name], batch(SIZE)
    state, draws = state_of(rule), draws_of(rule)
    part = dataclasses.replace(rule, cql_every_nth_state=n)
    results = []
    for first in range(n):
        rolled, (target, *rest) = jax.tree.map(lambda x: jnp.roll(x, -first, axis=0), (data, draws))  # noqa: B023
        results.append(evaluated(part, state, rolled, (target, *(x[::n] for x in rest))))
    assert_equal(mean(results), exact(rule))


def test_the_first_measured_state_is_random(fixed_noise):
    """One state of four is measured, on the same actions whatever the key: four values of its gap."""
    rule = CQL(**SMALL, cql_every_nth_state=4, num_policy_actions=0, num_next_actions=0, num_target_actions=1)
    state, data = state_of(rule), batch(SIZE)
    one = jax.jit(lambda key: rule.critic_gradient(state, data, key)[0][1]["cql_gap"])
    assert len({f"{one(jax.random.key(i)):.4f}" for i in range(30)}) == 4


def test_chunks_change_no_estimate():
    """Draws are made for the whole batch, before it is cut."""
    rule = CalQL(**SMALL, cql_every_nth_state=2, cql_gradient_actions=1)
    state, data = state_of(rule), batch(16)
    one, two = (dataclasses.replace(rule, critic_chunk=limit) for limit in (1, 1000))
    assert_equal(*(jax.jit(rule.critic_gradient)(state, data, KEY) for rule in (one, two)))


def test_a_batch_that_cannot_be_divided_is_refused():
    rule = CalQL(**SMALL, cql_every_nth_state=3)
    with pytest.raises(InputError, match="cql_every_nth_state=3"):
        rule.update(state_of(rule), batch(4), KEY)


def test_a_run_with_such_a_batch_is_refused_before_it_begins():
    options = {"cql_every_nth_state": 3, "finetune.batch_size": 64, "pretrain.batch_size": 63}
    with pytest.raises(InputError, match="batch_size 64 is no multiple of 3 \\(cql_every_nth_state\\)"):
        experiment("pointmaze-medium-narrow", "cal-ql", options=options)
    options["finetune.batch_size"] = 66
    assert experiment("pointmaze-medium-narrow", "cal-ql", options=options).finetune.batch_size == 66


# -- systematic draws --------------------------------------------------------------------------------------------------


def test_systematic_draws_hit_every_share_within_one_of_its_expectation():
    shares = jnp.asarray([[0.1, 0.0, 0.6, 0.3], [2.0, 1.0, 0.0, 1.0]])
    for u in np.linspace(0.0, 0.999, 13):
        chosen, scale = systematic_draws(shares, jnp.full(2, u), 5)
        for row in range(2):
            expected = 5 * shares[row] / shares[row].sum()
            counts = np.bincount(np.asarray(chosen[row]), minlength=4)
            assert (np.abs(counts - expected) < 1).all()
            np.testing.assert_allclose(scale[row] * shares[row][chosen[row]], shares[row].sum() / 5, rtol=1e-6)


def test_what_has_no_share_is_never_drawn_and_a_row_of_nothing_counts_nothing():
    shares = jnp.asarray([[0.0, 0.0, 1.0, 0.0, 0.0], [0.0] * 5])
    for u in (0.0, 0.5, np.nextafter(1.0, 0.0, dtype=np.float32)):
        chosen, scale = systematic_draws(shares, jnp.full(2, u), 3)
        assert (chosen[0] == 2).all()
        assert (scale[1] == 0).all()
