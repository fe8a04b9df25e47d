"""The theorem's objects against enumeration, Monte Carlo and closed forms; its lemmas and its bound."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calql.theory import (
    LEARNERS,
    MDP,
    WORLDS,
    Data,
    Setting,
    arms,
    bellman,
    combination_lock,
    greedy,
    linear_mdp,
    maze,
    mixed,
    occupancy,
    offline_distribution,
    optimal_q,
    policy_q,
    regret_bound,
    run,
    sample,
    transfer_coefficient,
    value,
)
from calql.theory.bound import optimal_value
from calql.theory.fqi import bounded_minimum, directions, fit_q

SEEDS = st.integers(0, 10**6)


def random_mdp(seed, horizon=3, states=3, actions=2):
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(states, 0.5), size=(horizon, states, actions))
    rewards = rng.uniform(size=(horizon, states, actions)) * (rng.uniform(size=(horizon, states, actions)) < 0.7)
    return MDP(transitions, rewards, rng.dirichlet(np.ones(states)))


def random_policy(mdp, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(mdp.shape[2]), size=mdp.shape[:2])


def random_functions(mdp, low, high, seed, count=()):
    return low + (high - low) * np.random.default_rng(seed).uniform(
        size=(*np.atleast_1d(count).astype(int), *mdp.shape)
    )


def unlimited(mdp, distribution):
    """Infinitely many tuples from ν [..., H, S, A]: expectations instead of counts."""
    return Data(distribution[..., None] * mdp.transitions, distribution * mdp.rewards)


def transfer_ratio(mdp, visited, nu, f):
    """The ratio whose maximum is C_π, for functions f [..., H, S, A]; 0 if it is negative or 0/0."""
    error = bellman(mdp, f) - f
    above, below = (visited * error).sum(axis=(-3, -2, -1)), np.sqrt((nu * error**2).sum(axis=(-3, -2, -1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above > 1e-12, above / below, 0.0)


def test_it_stands_alone():
    loaded = "import sys, calql.theory; print(*{name.partition('.')[0] for name in sys.modules})"
    named = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in named
    assert not {"jax", "flax", "gymnasium", "scipy", "matplotlib"} & set(named)


# -- exact values ------------------------------------------------------------------------------------------------------


def trajectories(mdp, policy):
    """(probability, states and actions, mean rewards) of everything that can happen."""
    horizon, states, actions = mdp.shape
    for way in itertools.product(range(states), range(actions), repeat=horizon):
        s, a = way[::2], way[1::2]
        probability = mdp.start[s[0]]
        for h in range(horizon):
            probability *= policy[h, s[h], a[h]]
            if h:
                probability *= mdp.transitions[h - 1, s[h - 1], a[h - 1], s[h]]
        yield probability, list(zip(s, a, strict=True)), [mdp.rewards[h, s[h], a[h]] for h in range(horizon)]


def test_values_and_occupancies_are_those_of_all_trajectories():
    mdp = random_mdp(0)
    policy = random_policy(mdp, 1)
    mean, visited = 0.0, np.zeros(mdp.shape)
    for probability, way, rewards in trajectories(mdp, policy):
        mean += probability * sum(rewards)
        for h, cell in enumerate(way):
            visited[(h, *cell)] += probability
    assert value(mdp, policy) == pytest.approx(mean)
    np.testing.assert_allclose(occupancy(mdp, policy), visited)


def test_the_optimum_is_the_best_of_all_policies():
    mdp = random_mdp(2, horizon=2)
    horizon, states, actions = mdp.shape
    choices = np.array(list(itertools.product(range(actions), repeat=horizon * states)))
    policies = np.eye(actions)[choices].reshape(-1, horizon, states, actions)
    np.testing.assert_allclose(optimal_q(mdp), policy_q(mdp, policies).max(axis=0))
    assert optimal_value(mdp) == pytest.approx(value(mdp, policies).max())
    np.testing.assert_allclose(policy_q(mdp, greedy(optimal_q(mdp))), optimal_q(mdp))


def test_values_are_what_samples_earn():
    mdp = random_mdp(3)
    policy, rng, states = random_policy(mdp, 4), np.random.default_rng(5), None
    total = np.zeros(40_000)
    states = rng.choice(3, size=len(total), p=mdp.start)
    for h in range(mdp.shape[0]):
        actions = (rng.uniform(size=len(total)) > policy[h, states, 0]).astype(int)
        total += rng.uniform(size=len(total)) < mdp.rewards[h, states, actions]
        edges = np.cumsum(mdp.transitions[h, states, actions], axis=1)
        states = (rng.uniform(size=(len(total), 1)) >= edges).sum(axis=1).clip(max=2)
    assert total.mean() == pytest.approx(value(mdp, policy), abs=4 * total.std() / 200)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_worlds(name):
    mdp = WORLDS[name]()
    np.testing.assert_allclose(mdp.transitions.sum(axis=-1), 1)
    assert mdp.start.sum() == pytest.approx(1)
    assert (mdp.transitions >= 0).all()
    assert ((mdp.rewards >= 0) & (mdp.rewards <= 1)).all()


def test_wide_data_are_everywhere():
    mdp = maze()
    narrow, wide = (offline_distribution(mdp, mixed(mdp, 0.3), width) for width in (0.0, 1.0))
    np.testing.assert_allclose(narrow, occupancy(mdp, mixed(mdp, 0.3)))
    np.testing.assert_allclose(wide, 1 / (mdp.shape[1] * 4))


def test_the_lock_opens_to_its_code_alone():
    mdp = combination_lock()
    q = optimal_q(mdp)
    assert optimal_value(mdp) == pytest.approx(0.9)
    assert ((q[:, 0] == q[:, 0].max(axis=-1, keepdims=True)).sum(axis=-1) == 1).all()
    assert q[0, 0].min() == pytest.approx(0.7)  # seven consolations


def test_the_maze_has_walls_and_a_goal():
    mdp = maze(slip=0.0)
    states = np.flatnonzero(mdp.start)
    for action in (0, 0, 0, 1, 1, 1):  # along the upper and the right wall
        states = mdp.transitions[0, states, action].argmax(axis=-1)
    assert mdp.rewards[0, states[0], 0] == 0.5
    assert (mdp.transitions[0, states[0], :, states[0]] == 1).all()
    assert optimal_value(mdp) == pytest.approx(6 * 0.05 + 4 * 0.5)
    assert mdp.transitions[0, 0, 3, 0] == 1  # a wall above


# -- the lemmas --------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_lemma_f5_whoever_is_compared_with(seed):
    mdp = random_mdp(seed)
    f, policy = random_functions(mdp, -1, 3, seed + 1), random_policy(mdp, seed + 2)
    error = occupancy(mdp, policy) * (bellman(mdp, f) - f)
    behind = value(mdp, policy) - f[0].max(axis=-1) @ mdp.start
    assert behind <= error.sum() + 1e-9


def test_lemma_f5_needs_its_first_step():
    """Printed, the sum begins at i = 1: that is a slip."""
    mdp, f = random_mdp(0), np.zeros((3, 3, 2))
    policy = greedy(optimal_q(mdp))
    error = (occupancy(mdp, policy) * (bellman(mdp, f) - f)).sum(axis=(1, 2))
    assert error[1:].sum() < value(mdp, policy) <= error.sum() + 1e-9


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_lemma_f6_the_greedy_policy(seed):
    mdp = random_mdp(seed)
    f = random_functions(mdp, -1, 3, seed + 1)
    error = (occupancy(mdp, greedy(f)) * (f - bellman(mdp, f))).sum(axis=(1, 2))
    ahead = f[0].max(axis=-1) @ mdp.start - value(mdp, greedy(f))
    assert ahead == pytest.approx(error.sum())  # without the absolute values it is an equality
    assert ahead <= np.abs(error).sum() + 1e-9


@pytest.mark.parametrize("mdp", [linear_mdp(), combination_lock()], ids=["linear", "table"])
def test_the_model_is_bilinear(mdp):
    rng = np.random.default_rng(0)
    features = np.eye(mdp.rank).reshape(*mdp.shape[1:], -1) if mdp.features is None else mdp.features
    weights = rng.uniform(size=(mdp.shape[0], mdp.rank))
    f, g = random_functions(mdp, 0, 1, 1), np.einsum("sad,hd->hsa", features, weights)
    flat = features.reshape(-1, mdp.rank)
    backed_up = np.linalg.lstsq(flat, bellman(mdp, g).reshape(mdp.shape[0], -1).T, rcond=None)[0].T
    np.testing.assert_allclose(np.einsum("sad,hd->hsa", features, backed_up), bellman(mdp, g), atol=1e-9)
    visited = occupancy(mdp, greedy(f))
    left = (visited * (g - bellman(mdp, g))).sum(axis=(1, 2))
    np.testing.assert_allclose(left, (directions(mdp, visited) * (weights - backed_up)).sum(axis=1), atol=1e-9)
    assert np.linalg.norm(directions(mdp, visited), axis=-1).max() <= 1 + 1e-12


# -- Assumption E.1 ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_class_below_the_optimum_is_complete(seed):
    mdp = random_mdp(seed)
    q = optimal_q(mdp)
    backed_up = bellman(mdp, random_functions(mdp, 0, q, seed, 20))
    assert (backed_up <= q + 1e-12).all()
    assert (backed_up >= 0).all()
    ceilings = mdp.ceilings[:, None, None]
    assert (bellman(mdp, random_functions(mdp, 0, ceilings, seed, 20)) <= ceilings + 1e-12).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_below_the_value_of_a_policy_that_is_not_optimal_no_class_is_complete(seed):
    """T Q^π ≥ Q^π, with equality for an optimal π alone: so E.1 speaks of π* and of nobody else."""
    mdp = random_mdp(seed)
    q = policy_q(mdp, random_policy(mdp, seed))
    assert (bellman(mdp, q) >= q - 1e-12).all()
    assert (bellman(mdp, q) > q + 1e-9).any() == (np.abs(q - optimal_q(mdp)) > 1e-9).any()


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_reference_never_leads_away_from_what_is_fitted(seed):
    """Line 9: |max(f, Q^ref) − T f'| ≤ |f − T f'| wherever f' is calibrated."""
    mdp = random_mdp(seed)
    reference = policy_q(mdp, random_policy(mdp, seed))
    following = np.maximum(random_functions(mdp, 0, 3, seed + 1), reference)
    target, f = bellman(mdp, following), random_functions(mdp, 0, 3, seed + 2)
    assert (np.abs(np.maximum(f, reference) - target) <= np.abs(f - target) + 1e-12).all()


# -- Algorithm 2 -------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_with_unlimited_data_the_iterate_is_the_clipped_optimum(seed):
    mdp = random_mdp(seed)
    data = unlimited(mdp, np.full(mdp.shape, 1 / 6))
    ceiling, reference = (policy_q(mdp, random_policy(mdp, seed + i)) for i in (1, 2))
    expected, best = np.zeros(mdp.shape), np.zeros(3)
    for h in (2, 1, 0):
        for s, a in itertools.product(range(3), range(2)):
            target = mdp.rewards[h, s, a] + mdp.transitions[h, s, a] @ best
            expected[h, s, a] = max(min(target, ceiling[h, s, a]), reference[h, s, a])
        best = expected[h].max(axis=-1)
    np.testing.assert_allclose(fit_q(mdp, data, ceiling, reference), expected, atol=1e-12)
    q = optimal_q(mdp)
    np.testing.assert_allclose(fit_q(mdp, data, q, reference), q, atol=1e-12)
    np.testing.assert_allclose(fit_q(mdp, data, q), q, atol=1e-12)


def test_with_unlimited_data_linear_functions_come_to_the_optimum():
    mdp = linear_mdp()
    data = unlimited(mdp, np.full(mdp.shape, 1 / 36))
    np.testing.assert_allclose(fit_q(mdp, data, optimal_q(mdp)), optimal_q(mdp), atol=1e-5)


def test_what_has_not_been_seen_is_worth_nothing_or_the_reference():
    mdp = random_mdp(0)
    q = optimal_q(mdp)
    assert (fit_q(mdp, Data.none(mdp), q) == 0).all()
    np.testing.assert_array_equal(fit_q(mdp, Data.none(mdp), q, q / 2), q / 2)


def test_least_squares_by_hand():
    mdp = MDP(np.ones((1, 1, 2, 1)), np.full((1, 1, 2), 0.5), np.ones(1))
    data = Data(np.array([4.0, 2.0]).reshape(1, 1, 2, 1), np.array([3.0, 2.0]).reshape(1, 1, 2))
    np.testing.assert_allclose(fit_q(mdp, data, np.full((1, 1, 2), 0.9)), [[[0.75, 0.9]]])


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_bounded_minimum_cannot_be_improved(seed):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(3, 4, 4))
    gram, aim, most = roots @ roots.swapaxes(-1, -2), rng.normal(size=(3, 4)), rng.uniform(size=4)
    w = bounded_minimum(gram, aim, most, sweeps=20_000, accuracy=1e-10)
    slope = np.einsum("nde,ne->nd", gram, w) - aim
    assert ((w >= 0) & (w <= most)).all()
    assert (np.abs(slope[(w > 1e-9) & (w < most - 1e-9)]) < 1e-5).all()
    assert (slope[w <= 1e-9] > -1e-5).all()
    assert (slope[w >= most - 1e-9] < 1e-5).all()


def test_samples_have_the_right_frequencies():
    mdp, count = random_mdp(1), 60_000
    d = occupancy(mdp, random_policy(mdp, 2))
    data = sample(mdp, d, np.random.default_rng(0).random((3, count, 3)))
    expected = unlimited(mdp, d)
    np.testing.assert_allclose(data.counts / count, expected.counts, atol=0.01)
    np.testing.assert_allclose(data.reward_sums / count, expected.reward_sums, atol=0.01)
    assert (data.counts.sum(axis=(1, 2, 3)) == count).all()
    assert (data.counts[expected.counts == 0] == 0).all()


def test_a_run_depends_on_its_own_seed_alone():
    setting = Setting("maze", "poor", "narrow")
    few, many = (next(run(setting, runs=n, rounds=30, seed=3)).trace for n in (2, 4))
    np.testing.assert_array_equal(few.values, many.values[:2])
    assert not np.array_equal(many.values, next(run(setting, runs=4, rounds=30, seed=4)).trace.values)


def test_the_two_terms_add_up():
    for result in run(Setting("maze", "middling", "wide"), runs=2, rounds=20):
        terms = result.terms
        np.testing.assert_allclose(terms.miscalibration + terms.overestimation, terms.regret, atol=1e-9)
        assert (np.diff(terms.regret, axis=1) >= -1e-9).all()
        if result.learner.pessimistic and result.learner.calibrated:
            assert (terms.miscalibration >= -1e-9).all()  # f ≤ Q*


# -- the transfer coefficient ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_calibrated_functions_transfer_at_least_as_well(seed):
    mdp = random_mdp(seed)
    q, rng = optimal_q(mdp), np.random.default_rng(seed)
    nu = rng.dirichlet(np.ones(6), size=3).reshape(mdp.shape)
    visited = occupancy(mdp, random_policy(mdp, seed + 1))
    reference = policy_q(mdp, mixed(mdp, rng.choice([0.0, 0.5, 1.0])))
    whole, calibrated = transfer_coefficient(mdp, visited, nu), transfer_coefficient(mdp, visited, nu, reference)
    assert calibrated <= whole
    for floor, limit in ((0 * q, whole), (reference, calibrated)):
        assert (transfer_ratio(mdp, visited, nu, random_functions(mdp, floor, q, seed, 50)) <= limit + 1e-9).all()


def with_errors(mdp, errors):
    """The f with T f − f = errors."""
    f, following = np.zeros(mdp.shape), np.zeros(mdp.shape[1])
    for h in reversed(range(mdp.shape[0])):
        f[h] = mdp.rewards[h] + mdp.transitions[h] @ following - errors[h]
        following = f[h].max(axis=-1)
    return f


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_the_coefficient_is_attained(seed):
    mdp = random_mdp(seed)
    q, rng = optimal_q(mdp), np.random.default_rng(seed)
    nu = rng.dirichlet(np.ones(6), size=3).reshape(mdp.shape)
    visited = occupancy(mdp, greedy(q))
    reference = policy_q(mdp, mixed(mdp, 0.3))
    for floor in (0 * q, reference):
        free = q - floor > 1e-12
        f = with_errors(mdp, 1e-9 * np.where(free, visited / nu, 0))
        assert (f >= floor - 1e-12).all()
        assert (f <= q + 1e-12).all()
        error = bellman(mdp, f) - f
        ratio = (visited * error).sum() / max(np.sqrt((nu * error**2).sum()), 1e-300)
        assert ratio == pytest.approx(transfer_coefficient(mdp, visited, nu, floor), rel=1e-3)


def test_where_the_data_do_not_go_there_is_no_transfer():
    mdp = combination_lock()
    best, worst = (occupancy(mdp, greedy(sign * optimal_q(mdp))) for sign in (1, -1))
    assert transfer_coefficient(mdp, best, worst) == np.inf
    assert transfer_coefficient(mdp, best, best) == pytest.approx(np.sqrt(8))
    assert transfer_coefficient(mdp, best, best, optimal_q(mdp)) == 0


def test_with_features_no_linear_error_has_a_larger_ratio():
    mdp = linear_mdp()
    visited, nu = (occupancy(mdp, random_policy(mdp, seed)) for seed in (0, 1))
    limit = transfer_coefficient(mdp, visited, nu)
    weights = np.random.default_rng(0).normal(size=(500, mdp.shape[0], mdp.rank))
    errors = np.einsum("sad,nhd->nhsa", mdp.features, weights)
    ratios = (visited * errors).sum(axis=(1, 2, 3)) / np.sqrt((nu * errors**2).sum(axis=(1, 2, 3)))
    assert 0.3 * limit < ratios.max() <= limit
    only = np.zeros(mdp.shape)
    only[:, 0, 0] = 1
    assert transfer_coefficient(mdp, visited, only) == np.inf


# -- the bound ---------------------------------------------------------------------------------------------------------


def test_the_bound_by_hand():
    mdp = MDP(np.ones((2, 1, 2, 1)), np.full((2, 1, 2), 0.5), np.ones(1))  # H = 2, V_max = 2, d = 2
    bound = regret_bound(mdp, transfer=3.0, gap=0.25, above=4, rounds=10, ranks=(2, 1), tuples=(10, 1), delta=0.1)
    size = 2 * np.log(21) + 2 * np.log(11)
    above, below = 32 * np.sqrt(np.log(2 * 2 * 4 / 0.1) + size), 32 * np.sqrt(np.log(2 * 2 * 6 / 0.1) + size)
    by_hand = 6 * 0.25 + 3 * 4 * np.sqrt(2 / 10) * above
    by_hand += (above + 2 * np.sqrt(2)) * 2 * np.sqrt(2 * 2 * 4 * np.log(1 + 4 / 2))
    by_hand += (below + 2 * np.sqrt(2)) * 2 * np.sqrt(2 * 1 * 6 * np.log(1 + 6 / 1))
    assert bound == pytest.approx(by_hand)
    covered, referred = arms(mdp, transfer=3.0, gap=0.25, rounds=10, ranks=(2, 1), delta=0.1)
    assert covered == pytest.approx(3 * 2 * np.sqrt(2 * 10 * (size + np.log(10))))
    assert referred == pytest.approx(10 * 0.25 + 2 * np.sqrt(10 * (size + np.log(10))))


@pytest.mark.parametrize("world", WORLDS)
def test_the_regret_stays_below_the_bound(world):
    result = next(run(Setting(world, "poor", "wide"), runs=10, rounds=40))
    assert result.learner == LEARNERS[0]
    assert np.mean(result.regret <= result.bounds) >= 0.95
