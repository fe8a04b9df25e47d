"""`calql demo`: the main job in minutes: Cal-QL against CQL on the default task, then the report."""

from __future__ import annotations

from pathlib import Path


def demo(
    out: Path = Path("runs/demo"),
    seeds: tuple[int, ...] = (0, 1, 2),
    scale: str = "laptop",
    workers: int | None = None,
) -> int:
    """Pre-train and fine-tune Cal-QL and CQL on narrow data, several seeds, and write a report. Minutes on 2 cores.

    Example: calql demo

    Args:
        out: Where runs and report go; run it again to continue.
        seeds: Seeds.
        scale: laptop, or smoke to see only that everything works.
        workers: Runs at a time; by default one a core.
    """
    from calql.cli import common
    from calql.cli.sweep import run_jobs
    from calql.paper.methods import METHODS
    from calql.paper.tasks import TASKS
    from calql.reports.report import write_report
    from calql.sweeps import Plan, Variant, make_jobs

    task = next(iter(TASKS.values()))
    hero, rival, *others = METHODS.values()
    common.console.print(
        f"{hero.title} against {rival.title} on {task.id}: {task.summary}.\n"
        f"{len(seeds)} seeds each: pre-train on the data, then fine-tune in the environment."
    )
    plan = Plan((task.id,), (Variant(hero.id), Variant(rival.id)), seeds, scale)
    run_jobs(make_jobs(plan, out), workers)
    page = write_report([out], out / "report")
    common.console.print(f"\nreport: {page}\nnext: open it, then try other methods, on the same data:")
    more = " ".join(method.id for method in (hero, *others[:5]))
    common.console.print(f"  calql sweep --tasks {task.id} --methods {more} --seeds 0 1 2 --out runs", highlight=False)
    return 0
