"""`calql theory`: the same files from the same seed, with what was measured in them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from calql.cli import main
from calql.reports.theory import arms_figure, curve_rows, table_row
from calql.theory import LEARNERS, REFERENCES, WIDTHS, Setting, run


def theory(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["theory", *map(str, arguments)])
    return stop.value.code


def test_the_command_writes_the_same_again(tmp_path, capsys):
    small = ("--runs", 2, "--rounds", 5, "--worlds", "lock")
    assert theory("--out", tmp_path / "one", *small) == 0
    said = capsys.readouterr().out
    assert theory("--out", tmp_path / "two", *small) == 0
    assert theory("--out", tmp_path / "three", *small, "--seed", 1) == 0
    for name in ("table.csv", "table.md", "regret.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "regret.csv").read_bytes() != (tmp_path / "three" / "regret.csv").read_bytes()
    assert {path.name for path in (tmp_path / "one").glob("*.png")} == {"regret-lock.png", "terms-lock.png", "arms.png"}
    assert "12 of 12 runs of Algorithm 2 stay below the bound" in said
    with (tmp_path / "one" / "regret.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(REFERENCES) * len(WIDTHS) * len(LEARNERS) * 5


def test_wrong_input_is_named(capsys):
    assert theory("--worlds", "lok") == 2
    assert "lock" in capsys.readouterr().err
    assert theory("--rounds", 0) == 2
    assert "--rounds" in capsys.readouterr().err


@pytest.fixture(scope="module")
def results():
    return list(run(Setting("linear", "middling", "wide"), runs=3, rounds=6))


def test_rows_say_what_was_measured(results):
    for result in results:
        row, curve = table_row(result), list(curve_rows(result))
        assert float(row["regret"]) == pytest.approx(np.median(result.terms.regret[:, -1]), rel=1e-5)
        assert float(row["rounds_above"]) + float(row["rounds_below"]) == pytest.approx(6)
        assert [float(line["regret"]) for line in curve] == pytest.approx(
            np.median(result.terms.regret, axis=0), rel=1e-5
        )
        assert float(curve[-1]["regret_low"]) == pytest.approx(float(row["regret_low"]))


def test_arms_cross_where_the_reference_costs_more_than_coverage(results):
    axes = arms_figure(results).axes[0]
    covered, worth, crossing = (line.get_xydata() for line in axes.lines)
    before = covered[:, 0] < crossing[0, 0]
    assert (worth[before, 1] <= covered[before, 1]).all()
    assert worth[-1, 1] > covered[-1, 1]
