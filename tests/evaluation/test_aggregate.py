import numpy as np
import pytest

from calql.evaluation.aggregate import iqm, performance_profile, probability_of_improvement, stratified_bootstrap_ci

RNG = np.random.default_rng(7)
X, Y = RNG.random((6, 3)), RNG.random((5, 3)).round(1)
TAUS = np.linspace(0, 1, 11)


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


def test_bootstrap_is_reproducible_and_depends_on_its_seed():
    first = stratified_bootstrap_ci(X, iqm, reps=200, seed=3)
    np.testing.assert_array_equal(first, stratified_bootstrap_ci(X, iqm, reps=200, seed=3))
    assert (first != stratified_bootstrap_ci(X, iqm, reps=200, seed=4)).any()


def test_bootstrap_stays_within_each_task():
    # Tasks on scales 0 and 100 without noise: resampling within tasks cannot move the mean at all.
    scores = np.array([[0.0, 100.0]] * 4)
    np.testing.assert_allclose(stratified_bootstrap_ci(scores, lambda x: x.mean(axis=(0, 1)), reps=100), [50, 50])


def test_bootstrap_draws_each_task_by_itself():
    # Run 0 is good where run 1 is bad: drawing the same runs for both tasks would always give one half.
    low, high = stratified_bootstrap_ci([[0.0, 1.0], [1.0, 0.0]], lambda x: x.mean(axis=(0, 1)), reps=500)
    assert low < 0.5 < high


def test_bootstrap_of_two_runs_by_hand():
    # The mean of two draws from {0, 1} is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
    mean = lambda x: x.mean(axis=(0, 1))  # noqa: E731
    np.testing.assert_allclose(stratified_bootstrap_ci([[0.0], [1.0]], mean, confidence=0.6), [0, 1])
    np.testing.assert_allclose(stratified_bootstrap_ci([[0.0], [1.0]], mean, confidence=0.4), [0.5, 0.5])


def test_bootstrap_keeps_a_curve_with_its_run():
    low, high = stratified_bootstrap_ci(np.stack([X, X + 1], axis=-1), iqm, reps=500)
    assert low.shape == high.shape == (2,)
    np.testing.assert_allclose([low[1], high[1]], [low[0] + 1, high[0] + 1])


def test_bootstrap_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="leading axes only"):
        stratified_bootstrap_ci(X, np.mean)
    for bad in (np.array([[0.1, np.nan]]), np.zeros((0, 2)), np.zeros(3)):
        with pytest.raises(ValueError, match="filled matrix"):
            stratified_bootstrap_ci(bad)


def test_against_rliable():
    pytest.importorskip("rliable")
    from rliable import library, metrics

    assert iqm(X) == pytest.approx(metrics.aggregate_iqm(X))
    assert probability_of_improvement(X, Y) == pytest.approx(metrics.probability_of_improvement(X, Y))
    np.testing.assert_allclose(performance_profile(X, TAUS), library.score_distributions(X, TAUS))


def test_intervals_against_rliable():
    pytest.importorskip("rliable")
    from rliable import library, metrics

    np.random.seed(0)  # noqa: NPY002 - rliable draws from the global generator
    _, theirs = library.get_interval_estimates({"x": X}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000)
    np.testing.assert_allclose(stratified_bootstrap_ci(X, iqm, reps=4000), theirs["x"][:, 0], atol=0.01)
    _, theirs = library.get_interval_estimates(
        {"p": [X, Y]}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=1000
    )
    ours = stratified_bootstrap_ci((X, Y), probability_of_improvement, reps=4000)
    np.testing.assert_allclose(ours, theirs["p"][:, 0], atol=0.02)
