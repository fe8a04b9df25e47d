"""Success rates of the demonstrators of the local data sets.

    python benchmarks/demonstrators.py [--names ant-medium door-planner ...] [--attempts 50] [--workers 2]

makes fresh attempts (seed 1000, which no data set uses), prints a table and writes results/demonstrators.csv, a row per
demonstrator. The planner of the hand needs 4 to 20 s per attempt; the others take a minute or two together.

* `ant-*`: the walking ant, from the evaluation's start to its goal, with the noise of the data (0.2) on its actions.
* `kitchen-*`: the scripted arm, which attempts all four subtasks of the target, noise 0.1; success: all four solved.
* `*-planner`: the planner of the shipped demonstrations. `*-clone`: the network cloned from these, without noise;
  `*-improved`: what reinforcement learning made of the clone. They collect the rest of the data, with noise.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calql.commit import git_commit
from calql.paper.demonstrators import adroit, antmaze, kitchen
from calql.paper.tasks import get_task
from calql.reports.tables import dicts_to_csv

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "make_assets"))
from make_adroit import PLANNING_STEPS, STEPS_AFTER_SUCCESS, plan  # noqa: E402 - a folder of scripts, not a package

SEED = 1000


class Attempt(NamedTuple):
    success: bool
    steps: int
    """Steps to the first success; all steps if there is none."""
    seconds: float


def ant(maze: str, index: int) -> Attempt:
    recipe = antmaze.Recipe(maze=maze, commands="narrow")
    return recorded(lambda: antmaze.demonstrate(recipe, SEED, index))


def arm(task: str, index: int) -> Attempt:
    recipe = kitchen.Recipe(tasks=get_task(task).recipe["tasks"], transitions=1)
    rng = np.random.default_rng([SEED, index])
    return recorded(lambda: kitchen.perform(recipe, recipe.tasks, rng)[0])


def network(hand: str, policy: str, index: int) -> Attempt:
    horizon = get_task(f"{hand}-binary").horizon
    recipe = adroit.Recipe(hand, horizon=horizon, demonstrations=0, policy=policy, noise=(0.0, 0.0), keep_failures=True)
    return recorded(lambda: adroit.demonstrate(recipe, SEED, index))


def planner(hand: str, index: int) -> Attempt:
    started = time.perf_counter()
    shown = plan(hand, SEED, index)
    steps = PLANNING_STEPS[hand] if shown is None else len(shown.actions) - STEPS_AFTER_SUCCESS
    return Attempt(shown is not None, steps, time.perf_counter() - started)


def recorded(demonstrate: Callable) -> Attempt:
    started = time.perf_counter()
    episode = demonstrate()
    success = bool(episode.successes.any())
    steps = int(episode.successes.argmax()) + 1 if success else episode.length
    return Attempt(success, steps, time.perf_counter() - started)


DEMONSTRATORS: dict[str, Callable[[int], Attempt]] = {
    **{f"ant-{maze}": partial(ant, maze) for maze in ("medium", "large")},
    **{f"kitchen-{kind}": partial(arm, f"kitchen-{kind}") for kind in ("complete", "mixed")},
    **{f"{hand}-planner": partial(planner, hand) for hand in ("pen", "door", "relocate")},
    **{f"{hand}-clone": partial(network, hand, "clone") for hand in ("pen", "door", "relocate")},
    **{f"{hand}-improved": partial(network, hand, "improved") for hand in ("pen", "door")},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=DEMONSTRATORS, default=list(DEMONSTRATORS))
    parser.add_argument("--attempts", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "demonstrators.csv")
    args = parser.parse_args(arguments)
    rows = []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for name in args.names:
            attempts = list(pool.map(DEMONSTRATORS[name], range(args.attempts)))
            rows.append(row(name, attempts))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
            write(args.out, rows)
    return 0


def row(name: str, attempts: list[Attempt]) -> dict[str, object]:
    """The reported numbers of a demonstrator; steps are those of successes."""
    steps = [attempt.steps for attempt in attempts if attempt.success] or [0]
    return {
        "demonstrator": name,
        "attempts": len(attempts),
        "successes": sum(attempt.success for attempt in attempts),
        "steps_min": min(steps),
        "steps_median": round(float(np.median(steps)), 1),
        "steps_max": max(steps),
        "git_commit": git_commit(),
        "seconds_an_attempt": round(float(np.mean([attempt.seconds for attempt in attempts])), 2),
    }


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write the rows so far; an older file's rows of other demonstrators stay."""
    names = {made["demonstrator"] for made in rows}
    older = csv.DictReader(path.read_text().splitlines()) if path.exists() else ()
    rows = [old for old in older if old["demonstrator"] not in names] + rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dicts_to_csv(rows))


if __name__ == "__main__":
    sys.exit(main())
