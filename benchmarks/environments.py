"""Environment steps per second in calql and in packages with similar environments, measured alternately on one core.

    python benchmarks/environments.py [--tasks antmaze-medium-play door-binary ...] [--seconds 20]

steps each task's environment as the learner uses it, and its nearest relatives from `gymnasium.make`, with the
same random actions, resets included; prints a table and writes every block to results/environments.json.

OGBench's ant is the same ant, and its cube is another arm with another task, observed by a camera like ours;
Gymnasium-Robotics' ant has other physics, its kitchen also observes velocities, and its hands have dense rewards. Needs
the development environment (OGBench), a MuJoCo with which FrankaKitchen-v1 runs (< 3.12), and MUJOCO_GL=egl if there
is no display.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from calql.envs.make import make_env
from calql.machine import machine, provenance
from calql.paper.tasks import TASKS
from calql.training.options import experiment

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 8
RELATIVES = {
    "antmaze-medium-play": {"OGBench": "antmaze-medium-v0", "Gymnasium-Robotics": "AntMaze_Medium-v5"},
    "antmaze-large-play": {"OGBench": "antmaze-large-v0", "Gymnasium-Robotics": "AntMaze_Large-v5"},
    "kitchen-partial": {"Gymnasium-Robotics": "FrankaKitchen-v1"},
    "pen-binary": {"Gymnasium-Robotics": "AdroitHandPen-v1"},
    "door-binary": {"Gymnasium-Robotics": "AdroitHandDoor-v1"},
    "relocate-binary": {"Gymnasium-Robotics": "AdroitHandRelocate-v1"},
    "visual-pick-place, 48 px": {},
    "visual-pick-place, 64 px": {"OGBench": "visual-cube-single-v0"},
    "visual-pick-place, 128 px": {},
}
"""task → {package: environment}. The other antmazes and kitchens differ from these only in their data."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = ["pointmaze-medium-narrow", *RELATIVES]
    parser.add_argument("--tasks", nargs="+", choices=sorted({*TASKS, *tasks}), metavar="TASK", default=tasks)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds per task, over all blocks")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "environments.json")
    args = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    rows = []
    for task in args.tasks:
        print(f"{task}: measuring for about {args.seconds:.0f} s", file=sys.stderr)
        rows.append({"task": task} | compare(task, args.seconds))
    show(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    about = provenance() | {"cpu": machine()["cpu"], "ogbench": metadata.version("ogbench")}
    args.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")
    return 0


def compare(task: str, seconds: float) -> dict[str, Any]:
    """Steps per second of the task and of its relatives, from alternating blocks."""
    name, _, pixels = task.removesuffix(" px").partition(", ")
    row = experiment(name, "bc", options={"env.image_size": int(pixels)} if pixels else {}).task
    sides = {"calql": stepper(make_env(row), row.horizon)}
    for package, name in RELATIVES.get(task, {}).items():
        sides[package] = stepper(_make(package, name), row.horizon)
    share = seconds / ROUNDS / len(sides)
    blocks: dict[str, list[float]] = {name: [] for name in sides}
    counts = {name: max(10, round(share * step(50))) for name, step in sides.items()}
    for _ in range(ROUNDS):
        for name, step in sides.items():
            blocks[name].append(step(counts[name]))
    best = {name: max(rates) for name, rates in blocks.items()}
    ratio = {name: best["calql"] / rate for name, rate in best.items() if name != "calql"}
    return {"steps_per_s": best, "ratio": ratio, "blocks": blocks}


def stepper(env: gymnasium.Env, horizon: int) -> Callable[[int], float]:
    """`step(count)` takes `count` steps with random actions and returns steps per second."""
    rng = np.random.default_rng(0)
    low, high, left = env.action_space.low, env.action_space.high, 0

    def step(count: int) -> float:
        nonlocal left
        actions = rng.uniform(low, high, (count, *low.shape)).astype(env.action_space.dtype)
        started = time.perf_counter()
        for action in actions:
            if left == 0:
                env.reset(seed=0)
                left = horizon
            _, _, terminated, truncated, _ = env.step(action)
            left = 0 if terminated or truncated else left - 1
        return count / (time.perf_counter() - started)

    return step


def show(rows: list[dict[str, Any]]) -> None:
    """The table, as Markdown."""
    print("| task | calql, steps/s | others, steps/s | ratio |\n|---|---|---|---|")
    for row in rows:
        rates, ratio = row["steps_per_s"], row["ratio"]
        others = ", ".join(f"{name} {rates[name]:,.0f}" for name in ratio) or "-"
        print(f"| {row['task']} | {rates['calql']:,.0f} | {others} | {', '.join(f'{r:.1f}' for r in ratio.values())} |")


def _make(package: str, name: str) -> gymnasium.Env:
    if package == "OGBench":
        import ogbench  # noqa: F401 (registers its environments)
    else:
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make(name)


if __name__ == "__main__":
    sys.exit(main())
