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
    from calql.reporting.report import Comparison, write_report
    from calql.sweeps import read_plan

    comparisons: list[Comparison] = []
    if plan:
        folders = [(p, p.folders(folder)) for folder in run_dirs for p in map(read_plan, plan)]
        run_dirs = tuple(path for _, places in folders for path in places.values())
        for p, places in folders:
            for figure in p.figures:
                chosen = (path.resolve() for (_, _, v), path in places.items() if v.folder in figure.runs)
                comparisons.append(Comparison(figure.title, figure.draws, frozenset(chosen)))
    page = write_report(run_dirs, out, comparisons)
    print(f"wrote {page} (open it in a browser), with tables and figures beside it")
    return 0
