import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calql.evaluation.metrics import chance_dip, dip, regret, relative_improvement, summarise


def test_regret_is_one_minus_the_mean_score_with_step_zero():
    assert regret([0, 10, 20, 30], [0.5, 0.25, 0.75, 1.0]) == pytest.approx(1 - 2.5 / 4)


def test_regret_resamples_a_grid_that_is_not_uniform():
    # Uniform grid of three: 0, 2, 4. The score at 2 lies half-way between those at 1 and 3.
    assert regret([0, 1, 4], [0.0, 0.6, 0.9]) == pytest.approx(1 - (0.0 + 0.7 + 0.9) / 3)
    # Evaluating the bad start more often must not make the run look worse than it was.
    assert regret([0, 1, 2, 3, 100], [0, 0, 0, 0, 1.0]) < regret([0, 25, 50, 75, 100], [0, 0, 0, 0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5000))
def test_regret_of_a_uniform_grid_is_plain(scores, interval):
    steps = np.arange(len(scores)) * interval
    assert regret(steps, scores) == pytest.approx(1 - np.mean(scores), abs=1e-9)


def test_dip_looks_at_the_first_fifth_only():
    steps = [0, 10, 20, 30, 100]
    assert dip(steps, [0.8, 0.5, 0.6, 0.1, 1.0]) == pytest.approx(0.3)
    assert dip(steps, [0.8, 0.9, 0.7, 0.1, 1.0]) == pytest.approx(0.1), "the end of the fifth belongs to it"
    assert dip(steps, [0.1, 0.2, 0.3, 0.0, 1.0]) == 0.0


@pytest.mark.parametrize("steps", [[0], [0, 50, 100], [0, 21, 100]])
def test_there_is_no_dip_where_nobody_looked(steps):
    scores = [0.8, 0.1, 1.0][: len(steps)]
    assert dip(steps, scores) is None
    summary = summarise([row("online", step, score) for step, score in zip(steps, scores, strict=True)])
    assert summary["dip"] is None


def test_relative_improvement():
    assert relative_improvement(0.4, 0.9) == pytest.approx(1.25)
    assert relative_improvement(0.5, 0.25) == pytest.approx(-0.5)
    assert relative_improvement(0.0, 0.9) is None


@pytest.mark.parametrize(
    ("steps", "scores", "cause"),
    [
        ([], [], "equally long"),
        ([0, 1], [0.5], "equally long"),
        ([5, 10], [0.5, 0.5], "start at 0"),
        ([0, 5, 5], [0.1, 0.2, 0.3], "increase"),
        ([0, 5], [0.1, float("nan")], "finite"),
    ],
)
@pytest.mark.parametrize("measure", [regret, dip])
def test_a_curve_that_is_none_is_refused(measure, steps, scores, cause):
    with pytest.raises(ValueError, match=cause):
        measure(steps, scores)


@pytest.mark.parametrize(("rate", "episodes", "evaluations"), [(0.5, 20, 9), (0.8, 20, 3), (0.3, 100, 21)])
def test_chance_dip_is_what_a_policy_that_never_changes_shows_on_average(rate, episodes, evaluations):
    """Against runs of such a policy, whose episodes succeed or fail."""
    random, steps = np.random.default_rng(0), np.arange(5 * evaluations)
    dips, chances = [], []
    for _ in range(2_000):
        scores = random.binomial(episodes, rate, len(steps)) / episodes
        dips.append(dip(steps, scores))
        chances.append(chance_dip(steps, np.sqrt(scores * (1 - scores) / (episodes - 1))))
    assert np.mean(chances) == pytest.approx(np.mean(dips), rel=0.06)


def test_chance_dip_needs_errors_and_evaluations():
    assert chance_dip([0, 1, 10], [0.1, 0.1, 0.1]) == pytest.approx(0.1 / np.sqrt(np.pi), rel=1e-2)
    assert chance_dip([0, 1, 10], [0.0, 0.0, 0.1]) == 0.0
    assert chance_dip([0, 5, 10], [0.1, 0.1, 0.1]) is None
    assert chance_dip([0, 1, 10], [0.1, float("nan"), 0.1]) is None
    with pytest.raises(ValueError, match="equally long"):
        chance_dip([0, 1, 10], [0.1])


def row(phase, env_step, score, wall=1.0):
    return {"phase": phase, "env_step": env_step, "grad_step": 0, "score_mean": score, "wall_s": wall}


def test_summary_of_a_whole_run():
    rows = [row("offline", 0, 0.1), row("offline", 0, 0.4, 5), row("online", 0, 0.4, 5)]
    rows += [row("online", 10, 0.2, 6), row("online", 20, 0.5, 7), row("online", 50, 0.8, 10)]
    grid = np.interp([0, 50 / 3, 100 / 3, 50], [0, 10, 20, 50], [0.4, 0.2, 0.5, 0.8])
    assert summarise(rows) == pytest.approx(
        {"score_before": 0.4, "score_after": 0.8, "regret": 1 - grid.mean(), "relative_improvement": 1.0, "dip": 0.2,
         "chance_dip": None, "wall_s": 10}
    )  # fmt: skip


def test_summary_of_an_offline_run_is_null_where_nothing_was_measured():
    summary = summarise([row("offline", 0, 0.1, 1), row("offline", 0, 0.3, 2)])
    assert json.loads(json.dumps(summary)) == {
        "score_before": 0.3, "score_after": None, "regret": None, "relative_improvement": None, "dip": None,
        "chance_dip": None, "wall_s": 2,
    }  # fmt: skip


def test_summary_of_an_online_run_has_no_relative_improvement():
    summary = summarise([row("online", 0, 0.2), row("online", 10, 0.6)])
    assert summary["score_before"] == 0.2
    assert summary["score_after"] == 0.6
    assert summary["regret"] == pytest.approx(0.6)
    assert summary["relative_improvement"] is None


def test_summary_of_a_run_that_stopped_at_the_border():
    summary = summarise([row("offline", 0, 0.3), row("online", 0, 0.3)])
    assert (summary["score_before"], summary["score_after"], summary["regret"]) == (0.3, None, None)
    assert set(summarise([]).values()) == {None}


def test_summary_takes_the_text_of_a_csv_and_skips_empty_cells():
    rows = [row("online", 0, 0.5), row("online", 10, ""), row("online", 20, 0.7, wall="")]
    text = [{name: str(value) for name, value in cells.items()} for cells in rows]
    assert summarise(text) == summarise(rows)
    assert summarise(text)["regret"] == pytest.approx(0.4)
