import csv
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_run, write_study

from calql.paper.methods import METHODS
from calql.paper.published import published
from calql.reports import tables
from calql.reports.load import Run, load_runs
from calql.reports.record import read_record
from calql.reports.stored import Rows, Stored
from calql.reports.tables import Estimate, Versus, best, method_rows, settled
from calql.reports.verdict import border, calibration, unsteady, verdict, wins


def run(method, seed, scores, task="t", done=True, label=None, title=None, offline=True):
    """A run in memory: pre-trained score = scores[0], online evaluations every 10 steps."""
    rows = [{"phase": "online", "env_step": 10.0 * i, "grad_step": 0.0, "score_mean": s} for i, s in enumerate(scores)]
    rows = [{"phase": "offline", "env_step": 0.0, "grad_step": 9.0, "score_mean": scores[0]}] * offline + rows
    rows = [
        dict.fromkeys(["score_sem", "bounding_rate", "q_data_mean", "mc_return_mean"], np.nan) | row for row in rows
    ]
    record = read_record({"task": task, "method": method, "seed": seed, "title": title or method}, "config.json")
    where = Path("run")
    stored = Stored(where, "run", {}, where / "config.json", done, Rows(where / "eval.csv", ()), None)
    return Run(record, stored, rows, None, label or record.title)


OURS = [run("cal-ql", seed, [0.4, 0.4 + 0.1 * seed, 1.0]) for seed in range(4)]
THEIRS = [run("cql", seed, [0.4, 0.1 * seed, 0.6]) for seed in range(4)]


def test_numbers_by_hand():
    ours, theirs = method_rows(OURS + THEIRS)
    assert (ours.label, ours.seeds, theirs.label) == ("cal-ql", 4, "cql")
    # Seeds' regrets are 1 − (0.4 + x + 1)/3 with x = 0.4 … 0.7; the IQM of four is the mean of the middle two.
    assert ours.measures["regret"].point == pytest.approx(1 - (0.4 + 0.55 + 1.0) / 3)
    assert theirs.measures["regret"].point == pytest.approx(1 - (0.4 + 0.15 + 0.6) / 3)
    assert ours.measures["score_before"] == pytest.approx((0.4, 0.4, 0.4, 4))
    assert ours.measures["score_after"].point == 1.0
    assert ours.measures["relative_improvement"].point == pytest.approx(1.5)
    assert ours.versus is None
    assert theirs.versus == (16, 16, None)
    low, high, _ = ours.measures["regret"][1:]
    assert (low, high) == pytest.approx((1 - (0.4 + 0.7 + 1.0) / 3, 1 - (0.4 + 0.4 + 1.0) / 3)), "the range"
    assert ours.spread == "range of 4 seeds"


def test_five_seeds_have_an_interval_and_fewer_a_range():
    five = [run("cal-ql", seed, [0.4, x, 1.0]) for seed, x in enumerate((0.0, 0.4, 0.5, 0.6, 1.0))]
    (many,), (few,) = method_rows(five), method_rows(five[:4])
    assert (many.spread, few.spread) == ("95 % interval", "range of 4 seeds")
    assert tables.text("regret", many.measures["regret"])[1].startswith("[")
    assert tables.text("regret", few.measures["regret"])[1] == "(0.33 to 0.53)"
    regrets = [r.summary["regret"] for r in five]
    assert min(regrets) <= many.measures["regret"].low
    for row in (many, few):
        low, high = row.measures["regret"][1:3]
        assert low < row.measures["regret"].point < high
    (single,) = method_rows(five[:1])
    assert single.spread == ""
    assert tables.text("regret", single.measures["regret"]) == ("0.53", "")


def test_a_dip_that_nobody_looked_for_is_empty_in_every_table():
    rows = method_rows([run(method, 0, [0.4, 0.6, 0.9]) for method in ("cal-ql", "cql")])
    assert [row.measures["dip"] for row in rows] == [None, None]
    assert tables.to_csv(rows).splitlines()[1].split(",")[14:17] == ["", "", ""]
    assert "| – |" in tables.to_markdown(rows)
    assert "first fifth" not in verdict(rows, [])


def test_probability_of_improvement_counts_pairs_of_runs():
    # Cal-QL's regrets .1 .3 against .2 .4: three of four pairs are won.
    ours = [run("cal-ql", s, [1 - r, 1 - r]) for s, r in enumerate((0.1, 0.3))]
    theirs = [run("cql", s, [1 - r, 1 - r]) for s, r in enumerate((0.2, 0.4))]
    assert method_rows(ours + theirs)[1].versus == (3, 4, None)


def test_unfinished_runs_are_counted_but_not_averaged():
    rows = method_rows([*OURS, run("cal-ql", 9, [0.0, 0.0], done=False)])
    assert (rows[0].seeds, rows[0].unfinished) == (4, 1)
    assert rows[0].measures == method_rows(OURS)[0].measures
    (row,) = method_rows([run("cal-ql", 0, [0.5, 0.6], done=False)])
    assert set(row.measures.values()) == {None}


def test_what_was_not_measured_is_none():
    (row,) = method_rows([run("bc", seed, [0.5]) for seed in range(3)])
    assert row.measures["score_before"].point == 0.5
    assert row.measures["regret"] is None
    (row,) = method_rows([run("sac", seed, [0.1, 0.5], offline=False) for seed in range(3)])
    assert row.measures["score_after"].point == 0.5
    assert row.measures["relative_improvement"] is None, "nothing was pre-trained"
    (row,) = method_rows([run("cql", seed, [0.0, 0.5]) for seed in range(3)])
    assert row.measures["relative_improvement"] is None, "before is 0"
    for befores in ((0.5, 0.0, 0.2), (0.0, 0.5, 0.2)):
        (row,) = method_rows([run("cql", seed, [before, before]) for seed, before in enumerate(befores)])
        assert row.measures["relative_improvement"] is None, "before is 0 with one seed"


def test_rows_over_all_tasks_need_every_task():
    other = [run("cal-ql", seed, [0.0, 0.0, 0.0], task="u") for seed in range(4)]
    rows = method_rows(OURS + THEIRS + other)
    assert [(row.task, row.label) for row in rows] == [
        ("all tasks", "cal-ql"), ("t", "cal-ql"), ("t", "cql"), ("u", "cal-ql")
    ]  # fmt: skip
    # Each seed has a regret near .3 and one of 1; of the four seeds' means, the middle two count.
    near = sorted(r.summary["regret"] for r in OURS)
    assert rows[0].measures["regret"].point == pytest.approx((near[1] + near[2] + 2) / 4)


def test_the_three_formats_hold_the_same_numbers():
    rows = method_rows([run("cal-ql", s, [0.4, 0.5 + 0.1 * s], title="cal_ql & co") for s in range(4)] + THEIRS)
    table = list(csv.DictReader(io.StringIO(tables.to_csv(rows))))
    assert float(table[0]["regret"]) == pytest.approx(rows[0].measures["regret"].point, abs=1e-5)
    assert (table[0]["pairs"], table[1]["pairs"], table[1]["p"]) == ("", "16", "")
    assert table[0]["spread"] == "range of 4 seeds"
    point, interval = tables.text("regret", rows[0].measures["regret"])
    assert f"| {point} {interval} |" in tables.to_markdown(rows)
    assert len({line.count("|") for line in tables.to_markdown(rows).splitlines()}) == 1
    latex = tables.to_latex(rows)
    assert f"& {point} {{\\scriptsize {interval}}} &" in latex
    assert r"cal\_ql \& co" in latex
    assert r"\%" in latex
    assert len({line.replace(r"\&", "").count("&") for line in latex.splitlines() if line.endswith(r"\\")}) == 1


AVERAGE = {"cql": 0.41, "iql": 0.38, "awac": 0.82, "o3f": 0.54, "odt": 0.97, "cql-sac": 0.69, "hybrid": 0.82}
AVERAGE |= {"sac-offline": 0.86, "sac": 0.96, "cal-ql": 0.22}
"""The last line of Table 1."""


def test_the_published_numbers_have_the_published_average():
    found = {method: [p.regret for (_, m), p in published().items() if m == method] for method in AVERAGE}
    assert {method: round(np.mean(regrets), 2) for method, regrets in found.items()} == AVERAGE
    assert [len(regrets) for regrets in found.values()] == [11, 11, 11, 10, 4, 11, 11, 11, 11, 11]
    assert published()["pen-binary", "cql"] == (0.55, 0.13, 0.86)
    assert published()["antmaze-medium-play", "hybrid"] == (None, 0.25, 0.90)


def test_published_numbers_stand_beside_the_method_and_not_beside_its_variants():
    title = METHODS["cql"].title
    runs = [run("cql", 0, [0.1, 0.5], "pen-binary", title=title)]
    runs += [run("cql", 0, [0.1, 0.4], "pen-binary", label=f"{title} (utd=5)", title=title), *THEIRS]
    lines = tables.to_markdown(method_rows(runs)).splitlines()
    assert lines[0].endswith("| regret in the paper |")
    assert {line.split(" |")[1].strip("| "): line.split()[-2] for line in lines if "| pen-binary" in line} == {
        title: "0.86",
        f"{title} (utd=5)": "–",
    }
    assert "paper" not in tables.to_markdown(method_rows(THEIRS))


def test_numbers_are_shown_as_people_write_them():
    assert tables.text("regret", Estimate(0.204, 0.15, 0.25, 5)) == ("0.20", "[0.15, 0.25]")
    assert tables.text("regret", Estimate(0.204, 0.15, 0.25, 4)) == ("0.20", "(0.15 to 0.25)")
    assert tables.text("relative_improvement", Estimate(1.069, 0.9, 1.2, 5)) == ("+107%", "[+90%, +120%]")
    assert tables.text("dip", Estimate(-1e-9, -1e-9, -1e-9)) == ("0.00", "")
    assert tables.text("dip", None) == ("–", "")
    assert tables.versus_text(Versus(9, 9, None)) == "9 of 9 pairs"
    assert tables.versus_text(Versus(2.5, 9, None)) == "2.5 of 9 pairs"
    assert tables.versus_text(Versus(25, 25, 2 / 252)) == "1.00, p = 0.008"
    assert tables.versus_text(Versus(20, 25, 0.15)) == "0.80, p = 0.15"
    assert tables.p_text(1e-5) == "p < 0.001"


def test_one_row_a_run(tmp_path):
    write_run(tmp_path, "cql", 0)
    write_run(tmp_path, "cql", 1, done=False)
    runs = load_runs([tmp_path])
    rows = tables.seed_rows(runs)
    assert [(row["seed"], row["finished"]) for row in rows] == [(0, True), (1, False)]
    assert rows[0]["regret"] == runs[0].summary["regret"]


def scored(method, scores, task="t"):
    """A run per score: that score after fine-tuning and at every step before."""
    return [run(method, seed, [score] * 11, task) for seed, score in enumerate(scores)]


@pytest.mark.parametrize("seeds", range(1, 5))
@pytest.mark.parametrize("names", range(1, 5))
def test_an_estimate_lies_in_the_range_of_its_seeds(seeds, names):
    rng = np.random.default_rng([seeds, names])
    for _ in range(200):
        scores = rng.choice([0.0, 0.1, 0.35, 0.6, 1.0], (seeds, names)) + 0.05 * rng.random((seeds, names))
        point, low, high, _ = tables.estimate(scores)
        assert low - 1e-9 <= point <= high + 1e-9
        pairs = np.stack([scores, scores[::-1]], axis=-1)
        if found := tables.estimate(pairs, tables._relative):
            assert found.low - 1e-9 <= found.point <= found.high + 1e-9


HIGH, LOW = [0.8, 0.82, 0.84, 0.86, 0.88, 0.9], [0.1, 0.12, 0.14, 0.16, 0.18, 0.2]
CLAIMS = re.compile(r"; [\w-]+ has the (lower|higher)|do not overlap|larger than the noise|better than|no worse")


@pytest.mark.parametrize("seeds", range(1, 7))
@pytest.mark.parametrize("ahead", [True, False])
def test_the_verdict_claims_no_difference_that_the_seeds_do_not_carry(seeds, ahead):
    ours, theirs = (HIGH, LOW) if ahead else (LOW, HIGH)
    runs = scored("cal-ql", ours[:seeds]) + scored("cql", theirs[:seeds])
    rows = method_rows(runs)
    said = verdict(rows, runs)
    if seeds < 5:
        assert not CLAIMS.search(said), said
        assert "is not settled by these runs (fewer than 5 seeds)" in said
        assert not settled(rows[0], rows[1], "regret")
        assert "p =" not in tables.to_markdown(rows)
        assert best(rows, "regret") is None
    else:
        winner = "cal-ql" if ahead else "cql"
        p = "0.008" if seeds == 5 else "0.002"
        assert f"{winner} has the lower regret (permutation test over seeds, p = {p})" in said
        assert best(rows, "regret").label == winner


def test_many_seeds_that_are_alike_settle_nothing():
    runs = scored("cal-ql", [0.3, 0.5, 0.7, 0.4, 0.6, 0.55]) + scored("cql", [0.35, 0.52, 0.66, 0.41, 0.64, 0.6])
    said = verdict(method_rows(runs), runs)
    assert "is not settled by these runs." in said
    assert not CLAIMS.search(said)


def test_a_rival_that_was_picked_as_the_best_of_many_has_to_be_so_much_surer():
    # p = 2/252 against one rival; the best of seven was picked: 14/252 > 0.05.
    runs = scored("cal-ql", LOW[:5]) + scored("cql", HIGH[:5])
    assert "cql has the lower regret" in verdict(method_rows(runs), runs)
    for i in range(6):
        runs += scored(f"other-{i}", [score - 0.5 for score in HIGH[:5]])
    assert "is not settled" in verdict(method_rows(runs), runs)
    assert "corrected for 3 methods" in verdict(method_rows(runs[:20]), runs[:20])


def test_nothing_is_best_that_is_not_better_than_each_other():
    runs = scored("cal-ql", HIGH) + scored("cql", [score - 0.01 for score in HIGH]) + scored("sac", LOW)
    assert best(method_rows(runs), "regret") is None
    assert best(method_rows(runs[:6] + runs[12:]), "regret").label == "cal-ql"


def test_the_verdict_names_the_reasons_for_doubt():
    assert "single seed" in verdict(method_rows([OURS[0], THEIRS[0]]), [OURS[0], THEIRS[0]])
    stopped = [*OURS, *THEIRS, run("cql", 9, [0.1, 0.1], done=False)]
    assert "1 unfinished run is left out" in verdict(method_rows(stopped), stopped)
    longer = [*OURS, *(run("cql", s, [0.4] * 9) for s in range(4))]
    assert "unequal numbers of online steps" in verdict(method_rows(longer), longer)
    assert "unequal" not in verdict(method_rows(OURS + THEIRS), OURS + THEIRS)
    assert "No run has finished" in verdict(method_rows(stopped[-1:]), stopped[-1:])
    offline = [run("cal-ql", s, [0.6]) for s in range(5)] + [run("bc", s, [0.3]) for s in range(5)]
    assert "pre-training alone" in verdict(method_rows(offline), offline)


def test_wins_count_single_tasks():
    lost = [run("cal-ql", 0, [0.1, 0.1], task="u"), run("cql", 0, [0.9, 0.9], task="u")]
    assert "lowest on 1 of 2 tasks; against each of the other methods that is settled on none" in wins(
        method_rows(OURS + THEIRS + lost)
    )
    won = scored("cal-ql", HIGH, "u") + scored("cql", LOW, "u")
    assert "lowest on 2 of 2 tasks; against each of the other methods that is settled on 1 of them" in wins(
        method_rows(OURS + THEIRS + won)
    )
    assert wins(method_rows(THEIRS)) == ""
    assert wins(method_rows(OURS)) == "", "no rivals, nothing won"


def test_calibration_that_never_acted_is_called_so(tmp_path):
    runs = load_runs(write_study(tmp_path, ["cal-ql"], range(2)))
    last = np.mean([run.curve("offline", "bounding_rate")[1][-1] for run in runs])
    assert f"Cal-QL's Q lay below the reference value for {last:.0%} of the policy's actions" in calibration(runs)
    assert "at work" not in calibration(runs), "an untrained critic has a bounding rate, too"
    for cells in (cells for one in runs for cells in one.rows):
        cells["bounding_rate"] = 0.001
    assert "hardly ever acted" in calibration(runs)
    assert calibration(OURS) == ""


def test_mean_q_at_the_border_in_numbers(tmp_path):
    runs = load_runs(write_study(tmp_path, ["cal-ql", "sac"], range(2)))
    q = np.mean([run.curve("offline", "q_data_mean")[1][-1] for run in runs if run.method == "cal-ql"])
    assert border(runs) == (
        f"After pre-training, mean Q on the data is {q:.3g} (Cal-QL); the mean return of the data is -4.5."
    )
    assert border([run for run in runs if run.method == "sac"]) == ""


def jumping(scores, settings, error=0.05):
    """A run whose evaluations have that standard error."""
    one = run("cal-ql", 0, scores)
    for row in one.rows:
        row["score_sem"] = error
    return dataclasses.replace(one, record=dataclasses.replace(one.record, settings=settings))


@pytest.mark.parametrize(
    ("scores", "settings", "told"),
    [
        ([0.9, 0.1] * 5, {"pretrain.algorithm.tau": 0.01}, True),
        ([0.9, 0.1] * 5, {"tau": 0.01}, True),  # format 1, which did not know it
        ([0.9, 0.1] * 5, {"finetune.algorithm.tau": 0.01, "finetune.algorithm.acting_tau": 1.0}, True),
        ([0.9, 0.1] * 5, {"finetune.algorithm.tau": 0.01, "finetune.algorithm.acting_tau": 0.001}, False),
        ([0.9, 0.1] * 5, {"odt_width": 64}, False),  # it cannot
        ([0.1 * i for i in range(10)], {"tau": 0.01}, False),  # a steady rise
        ([0.55, 0.5] * 5, {"tau": 0.01}, False),  # no more than by chance
        ([0.9, 0.1] * 3, {"tau": 0.01}, False),  # too few
    ],
)
def test_scores_that_jump_by_more_than_chance_are_told(scores, settings, told):
    said = unsteady([jumping(scores, settings)])
    assert ("acting_tau=0.001" in said) == told
    if told:
        differences = np.diff(scores)
        assert f"cal-ql {differences.std(ddof=1):.2f} (by chance {0.05 * np.sqrt(2):.2f})" in said


def test_jumps_need_errors_and_a_finished_run():
    scores, settings = [0.9, 0.1] * 5, {"tau": 0.01}
    assert unsteady([jumping(scores, settings, np.nan)]) == ""
    stopped = run("cal-ql", 0, scores, done=False).stored
    assert unsteady([dataclasses.replace(jumping(scores, settings), stored=stopped)]) == ""
