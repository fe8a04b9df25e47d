"""`calql report`: run directories → tables, figures and one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def report(
    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    plan: tuple[Path, ...] = (),
    out: Path = Path("report"),
) -> int:
    """Compare runs: tables (CSV, Markdown, LaTeX), figures (PNG, SVG), and report.html, which opens offline.

    Example: calql report runs --out report

    Args:
        run_dirs: Run directories, or folders that hold some.
        plan: Take of a folder only the runs of these plans, which `calql sweep --plan` made there, and draw the
            figures that they ask for.
        out: Where to write.
    """
    from calql.reports.report import write_report
    from calql.sweeps import read_plan

    plans = [read_plan(path) for path in plan]
    comparisons = [figure.below(folder) for folder in run_dirs for p in plans for figure in p.figures]
    if plans:
        run_dirs = tuple(path for folder in run_dirs for p in plans for path in p.folders(folder).values())
    page = write_report(run_dirs, out, comparisons)
    print(f"wrote {page} (open it in a browser), with tables and figures beside it")
    return 0
