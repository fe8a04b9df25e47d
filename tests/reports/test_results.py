"""The committed results: every table is what its raw rows give, and links lead somewhere."""

import re
from pathlib import Path

import pytest
from installed import FIGURES

from calql.reports import tables
from calql.reports.load import load_runs
from calql.reports.stored import run_table

RESULTS = Path(__file__).resolve().parents[2] / "results"
FOLDERS = sorted(path.parent for path in RESULTS.rglob("runs.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(RESULTS).as_posix())
def test_every_table_is_what_its_raw_rows_give(folder):
    runs = load_runs([folder])
    rows = tables.method_rows(runs)
    made = {"table.csv": tables.to_csv(rows), "table.md": tables.to_markdown(rows), "table.tex": tables.to_latex(rows)}
    made |= {"runs.csv": tables.dicts_to_csv(tables.seed_rows(runs))} | run_table([run.stored for run in runs])
    for name, text in made.items():
        if (folder / name).exists():
            assert (folder / name).read_text(encoding="utf-8") == text, f"{name}: make it again with calql report"


def test_every_table_of_runs_has_raw_rows():
    without = {path.parent for path in RESULTS.rglob("table.md")} - {*FOLDERS}
    assert {path.relative_to(RESULTS).as_posix() for path in without} == {"theory"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (RESULTS / "README.md").read_text(encoding="utf-8")):
        if FIGURES or not target.endswith(".png"):
            assert (RESULTS / target).exists(), target


def test_no_run_directory_is_committed():
    assert not list(RESULTS.rglob("eval.csv"))
