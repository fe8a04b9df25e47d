"""`calql eval`: measure a finished or running run's policy once more, or film it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def evaluate(
    run_dir: Annotated[Path, tyro.conf.Positional],
    episodes: int = 100,
    seed: int = 1_000_003,
    video: Path | None = None,
) -> int:
    """Roll out the newest policy of a run, deterministically, on fresh episodes.

    Example: calql eval runs/first --episodes 100

    Args:
        run_dir: A run directory.
        episodes: How many episodes.
        seed: Decides the resets; differs from every seed used in training.
        video: Also film the first episode into this MP4 file (needs the [video] extra).
    """
    import numpy as np

    from calql.cli.common import console
    from calql.envs.make import make_env
    from calql.envs.rollout import evaluate, film
    from calql.training.restore import load_policy

    policy = load_policy(run_dir)
    camera = None if video is None else make_env(policy.task, render_mode="rgb_array")  # first: it may not be possible
    seeds = [int(s >> 1) for s in np.random.SeedSequence(seed).generate_state(episodes)]
    envs = [make_env(policy.task) for _ in range(min(episodes, 10))]
    outcomes = evaluate(envs, policy.task, policy.acting(len(envs)), seeds)
    for env in envs:
        env.close()
    scores = np.array([outcome.score for outcome in outcomes])
    error = scores.std(ddof=1) / np.sqrt(episodes) if episodes > 1 else float("nan")
    console.print(
        f"{policy.task.id} · {policy.method} · gradient step {policy.step}\n"
        f"score {scores.mean():.3f} ± {error:.3f} (standard error, {episodes} episodes)   "
        f"return {np.mean([o.total_reward for o in outcomes]):.2f}   length {np.mean([o.length for o in outcomes]):.1f}"
    )
    if camera is not None:
        film(camera, policy.task, policy.acting(1), seeds[0], video)
        console.print(f"video: {video}")
    return 0
