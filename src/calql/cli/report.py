"""`calql report`: runs → tables, figures and one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from calql.cli.options import Paths, flat
from calql.types import InputError


def report(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional],
    plan: Paths = (),
    out: Path = Path("report"),
) -> int:
    """Compare runs: tables (CSV, Markdown, LaTeX), figures (PNG, SVG), and report.html, which opens offline.

    The raw rows of all runs are written too (runs.json, evaluations.csv), so that a report can be made again
    from itself: calql report report --out again

    Example: calql report runs --out report

    Args:
        paths: Run directories, folders that contain some, or reports. Of a folder that holds both, the run directories
            are read.
        plan: Use only the runs of these plans, made there by `calql sweep --plan`, and draw the figures that the plans
            ask for.
        out: Folder of the report.
    """
    from calql.cli.hints import next_look
    from calql.reports.report import write_report
    from calql.sweeps import read_plan

    if not paths:
        raise InputError("nothing to report; name run directories, or folders that contain some: calql report runs")
    plans = [read_plan(path) for path in flat(plan)]
    comparisons = [figure.below(folder) for folder in paths for p in plans for figure in p.figures]
    names = [path.as_posix() for p in plans for path in p.folders(Path()).values()]
    page = write_report(paths, out, comparisons, list(dict.fromkeys(names)) if plans else None)
    print(f"wrote {page} (open it in a browser), with tables and figures beside it")
    next_look(page)
    return 0
