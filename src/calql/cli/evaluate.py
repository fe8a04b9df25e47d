"""`calql eval`: evaluate the policy of a finished or running run again, or record a video of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro


def evaluate(
    run_dir: Annotated[Path, tyro.conf.Positional],
    episodes: int = 100,
    seed: int = 1_000_003,
    step: str = "newest",
    as_json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")] = False,
    video: Path | None = None,
    endings: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Roll out the policy of a run, deterministically, on fresh episodes.

    Example: calql eval runs/first --episodes 100 --step pretrained

    Args:
        run_dir: A run directory.
        episodes: Number of episodes.
        seed: Seed of the resets; by default one that training never uses.
        step: Checkpoint: newest, best (by its evaluation during training), pretrained, or a gradient step.
        as_json: Print one JSON object instead of text.
        video: Also record the first of these episodes to this MP4 file (needs the [video] extra).
        endings: Also tell how the episodes ended, and how far they came; they are run one by one.
    """
    from calql.cli.common import console, note
    from calql.cli.hints import next_step
    from calql.evaluation.endings import in_words
    from calql.training import policy as library
    from calql.training.record import read_record
    from calql.training.run_dir import RunDir
    from calql.types import InputError

    if episodes < 1:
        raise InputError(f"episodes is {episodes}; it must be at least 1")
    policy = library.load_policy(run_dir, step)
    for text in read_record(RunDir(run_dir)).notes:
        note(text)
    row = library.evaluate(policy, episodes, seed, video=video, endings=endings)
    if as_json:
        print(json.dumps(row))
    else:
        score = "score not measured" if row["score_mean"] is None else f"score {row['score_mean']:.3f}"
        error = "" if row["score_sem"] is None else f" ± {row['score_sem']:.3f} (standard error, {episodes} episodes)"
        console.print(
            f"{row['task']} · {row['method']} · gradient step {row['grad_step']}\n"
            f"{score}{error}   return {row['return_mean']:.2f}   length {row['length_mean']:.1f}"
        )
        for ended in row.get("endings", ()):
            console.print(in_words(ended))
        if video is not None:
            console.print(f"video: {video}", markup=False, soft_wrap=True)
        next_step("export", run_dir, "--step", step, "--out", "policy.npz")
    return 0
