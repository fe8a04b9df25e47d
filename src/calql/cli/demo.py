"""`calql demo`: Cal-QL against CQL on a door within minutes, then the report."""

from __future__ import annotations

from pathlib import Path

from calql.cli.options import Numbers, flat


def demo(
    out: Path = Path("runs/demo"),
    seeds: Numbers = (),
    scale: str = "laptop",
    workers: int | None = None,
) -> int:
    """Pre-train Cal-QL and CQL to open a door, fine-tune them, several seeds, and write a report. Minutes on 2 cores.

    Example: calql demo

    Args:
        out: Folder for runs and report; run the command again to continue.
        seeds: Seeds; by default 0, 1 and 2.
        scale: laptop, or smoke for a quick check, on the default task, that everything works.
        workers: Number of parallel runs; by default one per core, or one on a machine with a GPU.
    """
    from calql.extras import refuse_missing

    refuse_missing("the demo", "paper,report", "mujoco", "minari", "h5py", "matplotlib")
    from calql.cli import common
    from calql.cli.hints import next_look, or_step
    from calql.cli.sweep import run_jobs
    from calql.paper.methods import DEFAULT_METHOD, METHODS, RIVAL
    from calql.paper.tasks import DEFAULT_TASK, DEMO_OPTIONS, DEMO_TASK, TASKS
    from calql.reports.report import write_report
    from calql.sweeps import Plan, Variant, make_jobs
    from calql.sweeps.local import Local

    quick = scale == "smoke"  # the door's data alone take longer
    task, hero, rival = TASKS[DEFAULT_TASK if quick else DEMO_TASK], METHODS[DEFAULT_METHOD], METHODS[RIVAL]
    chosen = flat(seeds) or (0, 1, 2)
    common.console.print(
        f"{hero.title} against {rival.title} on {task.id}: {task.summary}.\n"
        f"Seeds {', '.join(map(str, chosen))}: pre-train on the data, then fine-tune in the environment."
    )
    options = DEMO_OPTIONS if scale == "laptop" else ()
    plan = Plan((task.id,), (Variant(hero.id), Variant(rival.id)), chosen, scale, options=options)
    run_jobs(make_jobs(plan, out), Local(workers))
    page = write_report([out / task.id], out / "report")
    common.console.print(f"\nreport: {page}; other methods on the same data:", soft_wrap=True)
    next_look(page)
    others = [method for method in METHODS if method not in (hero.id, rival.id)]
    settings = ("--set", *options) if options else ()
    sweep = ("sweep", "--tasks", task.id, "--methods", hero.id, *others[:5], "--seeds", 0, 1, 2, *settings)
    or_step(*sweep, "--out", "runs")
    return 0
