"""How exact a policy's actions must be: its score when every episode's actions are shifted or shaken.

python benchmarks/action_offsets.py RUN[@STEP] … [--demonstrators door/improved …] [--episodes 50] [--out FILE.csv]

An offset is one normal draw per action and episode, added at every step; noise is drawn anew at every step. Both are in
units of half the action's range, and the sum is clipped to the range. Episodes begin alike for every row.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from calql.commit import git_commit
from calql.envs.make import make_env
from calql.envs.rollout import Act, collect_episode
from calql.paper.demonstrators.adroit import shipped
from calql.paper.tasks import TASKS
from calql.tasks import Task
from calql.training.measure import outcomes
from calql.training.policy import SEED, evaluation_seeds, load_policy
from calql.types import PyTree

OFFSETS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16)
NOISES = (0.05, 0.1, 0.2)


def policies(runs: list[str], demonstrators: list[str]) -> Iterator[tuple[str, Task, Act]]:
    """Name, task and policy of each; actions in [−1, 1]."""
    for run in runs:
        path, _, step = run.partition("@")
        policy = load_policy(path, step or "newest")
        yield f"{policy.title}, {step or policy.step}", policy.task, policy.side_by_side(1)
    for demonstrator in demonstrators:
        hand, name = demonstrator.split("/")
        network = shipped(hand, name)
        yield (
            f"demonstrator, {name}",
            TASKS[f"{hand}-binary"],
            lambda observations, *_, net=network: net(observations),
        )


def shaken(act: Act, offset: np.ndarray, noise: float, random: np.random.Generator) -> Act:
    """The policy with an offset [A], and with fresh noise at every step, added to its actions."""

    def acts(observations: PyTree, steps: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        actions = act(observations, steps, rewards)
        return np.clip(actions + offset + noise * random.standard_normal(actions.shape), -1.0, 1.0).astype(np.float32)

    return acts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--demonstrators", nargs="*", default=[])
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    for name, task, act in policies(asked.runs, asked.demonstrators):
        env = make_env(task)
        actions = env.action_space.shape or ()
        for kind, deviation in [("offset", x) for x in OFFSETS] + [("noise", x) for x in NOISES]:
            random, episodes = np.random.default_rng(0), []
            for seed in evaluation_seeds(SEED, asked.episodes):
                offset = deviation * random.standard_normal(actions) if kind == "offset" else np.zeros(actions)
                noise = deviation if kind == "noise" else 0.0
                episodes.append(collect_episode(env, task, shaken(act, offset, noise, random), seed))
            score = float(np.mean([outcome.score for outcome in outcomes(task, episodes)]))
            rows.append(
                {"task": task.id, "policy": name, "kind": kind, "deviation": deviation, "score": score}
                | {"episodes": asked.episodes, "commit": git_commit()}
            )
            print(rows[-1], flush=True)
        env.close()
    if asked.out:
        with asked.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
