"""`calql theory`: Algorithm 2 against Hy-Q on MDPs that are known exactly, with the quantities of Theorem E.5."""

from __future__ import annotations

from pathlib import Path

from calql.cli.options import Texts, flat


def theory(
    out: Path = Path("runs/theory"),
    runs: int = 20,
    rounds: int = 300,
    seed: int = 0,
    worlds: Texts = (),
) -> int:
    """Regret of Algorithm 2 and Hy-Q on small MDPs, its two terms, and the bound of Theorem E.5. Minutes on one core.

    Every learner on every world, with good, middling and poor reference policies, narrow and wide data: figures,
    table.md, table.csv, and regret.csv with every round. The same seed gives the same files.

    Example: calql theory --out runs/theory

    Args:
        out: Folder for tables and figures.
        runs: Runs of each learner in each setting.
        rounds: K, rounds per run, and offline tuples per step.
        seed: Seed.
        worlds: lock, maze, linear; by default all of them.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from calql.cli import common
    from calql.cli.hints import next_look
    from calql.reports.theory import write_theory
    from calql.tasks import nearest
    from calql.theory import LEARNERS, WORLDS, run, settings
    from calql.types import InputError

    asked = flat(worlds)
    for name in asked:
        if name not in WORLDS:
            raise nearest(name, WORLDS, "world")
    if min(runs, rounds) < 1 or seed < 0:
        raise InputError("--runs and --rounds must be at least 1, and --seed at least 0")
    chosen = [setting for setting in settings() if not asked or setting.world in asked]
    results = []
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=common.console, transient=True) as progress:
        bar = progress.add_task("", total=len(chosen) * len(LEARNERS))
        for setting in chosen:
            words = f"{setting.world}, {setting.reference} reference, {setting.width} data"
            progress.update(bar, description=words)
            for result in run(setting, runs, rounds, seed):
                results.append(result)
                progress.advance(bar)
    figures = write_theory(results, out)
    common.console.print((out / "table.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    named = [result for result in results if result.learner == LEARNERS[0]]  # the theorem covers no other
    below = sum(int((result.regret <= result.bounds).sum()) for result in named)
    common.console.print(f"{below} of {runs * len(named)} runs of Algorithm 2 stay below the bound of Eq. E.20")
    common.console.print(f"tables: table.md, table.csv, regret.csv in {out}; figures:", markup=False)
    common.console.print("\n".join(f"  {path}" for path in figures), markup=False, highlight=False)
    next_look(figures[0])
    return 0
