import numpy as np
import pytest
from scipy import stats

from calql.evaluation.aggregate import (
    FEWEST_RUNS,
    bootstrap_interval,
    expanded_tail,
    iqm,
    performance_profile,
    permutation_p,
    probability_of_improvement,
)

RNG = np.random.default_rng(7)
X, Y = RNG.random((6, 3)), RNG.random((5, 3)).round(1)
TAUS = np.linspace(0, 1, 11)


def mean(scores):
    return scores.mean(axis=(0, 1))


def test_iqm_is_the_mean_of_the_middle_half():
    scores = np.array([[0.0, 0.1], [0.2, 0.4], [0.5, 0.6], [0.7, 9.0]])
    assert iqm(scores) == pytest.approx((0.2 + 0.4 + 0.5 + 0.6) / 4)
    assert iqm(np.array([[0.1], [0.2], [0.9]])) == pytest.approx(0.4), "fewer than four: the mean"


def test_statistics_keep_trailing_axes():
    stacked = np.stack([X, 2 * X], axis=-1)
    np.testing.assert_allclose(iqm(stacked), [iqm(X), iqm(2 * X)])
    np.testing.assert_allclose(
        probability_of_improvement(stacked, np.stack([Y, Y], axis=-1)),
        [probability_of_improvement(X, Y), probability_of_improvement(2 * X, Y)],
    )
    assert performance_profile(stacked, TAUS).shape == (11, 2)


def test_probability_of_improvement_counts_ties_half():
    x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [2.0], [0.0], [5.0]])
    # 1: beats 0; 2: beats 0, ties twice; 3: beats 2, 2, 0.
    assert probability_of_improvement(x, y) == pytest.approx((1 + 2 + 3) / 12)
    assert probability_of_improvement(x, x) == 0.5


def test_performance_profile():
    np.testing.assert_allclose(
        performance_profile(np.array([[0.1, 0.5], [0.5, 0.9]]), [0.0, 0.1, 0.5, 0.9]), [1, 0.75, 0.25, 0]
    )


# -- the test of a difference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (5, 5), (5, 8), (9, 9)])
def test_the_p_value_is_that_of_mann_and_whitney(ours, theirs):
    rng = np.random.default_rng(ours)
    for shift in (0.0, 0.5, 3.0):
        x, y = rng.normal(shift, 1, (ours, 1)), rng.normal(0, 1, (theirs, 1))
        exact = stats.mannwhitneyu(x[:, 0], y[:, 0], method="exact").pvalue
        assert permutation_p(x, y) == pytest.approx(exact, abs=0.01 if ours == 9 else 1e-9)


def test_no_three_seeds_settle_anything_and_five_can():
    assert permutation_p(np.zeros((3, 1)), np.ones((3, 1))) == pytest.approx(2 / 20)
    assert permutation_p(np.zeros((5, 1)), np.ones((5, 1))) == pytest.approx(2 / 252)
    assert permutation_p(np.ones((5, 1)), np.ones((5, 1))) == 1.0


@pytest.mark.parametrize(("runs", "tasks", "digits"), [(5, 1, 9), (6, 1, 1), (5, 3, 2), (10, 1, 1)])
def test_alike_methods_seldom_look_different(runs, tasks, digits):
    rng = np.random.default_rng(0)
    ps = [permutation_p(*rng.random((2, runs, tasks)).round(digits), max_assignments=500) for _ in range(600)]
    assert np.mean(np.array(ps) <= 0.05) <= 0.065


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_bootstrap_is_reproducible_and_depends_on_its_seed():
    first = bootstrap_interval(X, iqm, reps=200, seed=3)
    np.testing.assert_array_equal(first, bootstrap_interval(X, iqm, reps=200, seed=3))
    assert (first != bootstrap_interval(X, iqm, reps=200, seed=4)).any()


def test_bootstrap_stays_within_each_task():
    # Tasks on scales 0 and 100 without noise: resampling within tasks cannot move the mean at all.
    np.testing.assert_allclose(bootstrap_interval(np.array([[0.0, 100.0]] * 5), mean, reps=100), [50, 50])


def test_bootstrap_draws_each_task_by_itself():
    # Runs are good on one task where they are bad on the other: the same draws for both would always give one half.
    low, high = bootstrap_interval(np.array([[0.0, 1.0], [1.0, 0.0]] * 3), mean, reps=500)
    assert low < 0.5 < high


def test_bootstrap_keeps_a_curve_with_its_run():
    low, high = bootstrap_interval(np.stack([X, X + 1], axis=-1), iqm, reps=500)
    assert low.shape == high.shape == (2,)
    np.testing.assert_allclose([low[1], high[1]], [low[0] + 1, high[0] + 1])


def test_bootstrap_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="leading axes only"):
        bootstrap_interval(X, np.mean)
    for bad in (np.array([[0.1, np.nan]]), np.zeros((0, 2)), np.zeros(3)):
        with pytest.raises(ValueError, match="non-empty matrix"):
            bootstrap_interval(bad)
    with pytest.raises(ValueError, match="too few for an interval"):
        bootstrap_interval(np.zeros((FEWEST_RUNS - 1, 3)))


def test_bootstrap_ends_where_students_interval_does():
    # Of the mean of many normal runs the expanded interval and Student's are the same.
    x = np.random.default_rng(0).normal(size=(12, 1))
    half = stats.t.ppf(0.975, 11) * x.std(ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(bootstrap_interval(x, mean), [x.mean() - half, x.mean() + half], rtol=0.06)


DRAWS = {
    "normal": lambda rng, size: rng.normal(0.5, 0.1, size),
    "uniform": lambda rng, size: rng.random(size),
    "skewed": lambda rng, size: rng.exponential(size=size),
    "near the ceiling": lambda rng, size: rng.beta(8, 1.5, size),
    "near both ends": lambda rng, size: rng.beta(0.5, 0.5, size),
    "one run in four fails": lambda rng, size: rng.normal(np.where(rng.random(size) < 0.25, 0.3, 0.9), 0.05),
}
"""What seeds do: rng, size → scores."""


def coverage(draw, interval, runs, tasks=1, repetitions=1500, reps=2000):
    """Share of repetitions whose interval of the IQM holds the IQM of the distribution.

    Repetitions are one trailing axis, as the points of a curve are, and share their draws of runs.
    """
    rng = np.random.default_rng(runs)
    truth = iqm(draw(rng, (1_000_000, 1)))
    held = 0
    for part in range(repetitions // 50):  # a new seed for each, so that shared draws average out
        low, high = interval(draw(rng, (runs, tasks, 50)), reps, part)
        held += ((low <= truth) & (truth <= high)).sum()
    return held / repetitions


def shown(scores, reps, seed):
    return bootstrap_interval(scores, iqm, reps, seed=seed)


def plain_percentile(scores, reps, seed):
    """The interval of rliable."""
    runs, tasks = scores.shape[:2]
    picks = np.random.default_rng(seed).integers(runs, size=(runs, tasks, reps))
    replicates = iqm(np.moveaxis(scores[picks, np.arange(tasks)[:, None]], 2, -1))
    return np.quantile(replicates, [0.025, 0.975], axis=-1)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("runs", [5, 8, 10])
def test_intervals_hold_the_truth_as_often_as_they_say(name, runs):
    assert 0.915 <= coverage(DRAWS[name], shown, runs) <= 0.99


@pytest.mark.parametrize("name", ["normal", "skewed"])
def test_intervals_over_several_tasks_hold_the_truth(name):
    assert 0.915 <= coverage(DRAWS[name], shown, 5, tasks=3) <= 0.99


def test_a_percentile_interval_of_three_runs_does_not():
    assert coverage(DRAWS["normal"], plain_percentile, 3) < 0.8
    assert coverage(DRAWS["normal"], plain_percentile, 5) < 0.915


# -- against rliable ---------------------------------------------------------------------------------------------------


def test_against_rliable():
    pytest.importorskip("rliable")
    from rliable import library, metrics

    assert iqm(X) == pytest.approx(metrics.aggregate_iqm(X))
    assert probability_of_improvement(X, Y) == pytest.approx(metrics.probability_of_improvement(X, Y))
    np.testing.assert_allclose(performance_profile(X, TAUS), library.score_distributions(X, TAUS))


def test_intervals_that_are_not_expanded_are_those_of_rliable():
    pytest.importorskip("rliable")
    from rliable import library, metrics

    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator
    _, theirs = library.get_interval_estimates({"x": X}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000)
    runs, tasks = X.shape
    less = 2 * stats.t.cdf(stats.norm.ppf(0.025) * np.sqrt((runs - 1) / runs), tasks * (runs - 1))
    assert expanded_tail(runs, tasks, less / 2) == pytest.approx(0.025)
    np.testing.assert_allclose(bootstrap_interval(X, iqm, 4000, 1 - less), theirs["x"][:, 0], atol=0.01)
