"""The verdict in words: computed from the numbers, and no surer than they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from calql.reports.load import Run
from calql.reports.style import HERO
from calql.reports.tables import ALL_TASKS, MEASURES, Estimate, Row, text

FEW_SEEDS = 5
"""Below this a percentile bootstrap interval is noticeably too narrow."""


def verdict(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """One paragraph about the rows of one task (or of all): who won, by how much, and whether that is sure."""
    measured = [row for row in rows if row.measures["regret"]]
    key = "regret" if measured else "score_before"
    measured = measured or [row for row in rows if row.measures[key]]
    if not measured:
        return "No run has finished yet, so there is nothing to compare."
    hero = next((row for row in measured if row.method == HERO), measured[0])
    rivals = [row for row in measured if row is not hero]
    sentences = [_outcome(hero, key)]
    if rivals:
        best = (min if key == "regret" else max)(rivals, key=lambda row: row.measures[key].point)
        sentences += [_comparison(hero, best, key)]
        sentences += [_dips(hero, rivals)] if key == "regret" else []
    return " ".join([*sentences, *_hedges(measured, runs)])


def wins(rows: Sequence[Row]) -> str:
    """On how many tasks Cal-QL has the lowest regret, or "" where it or its rivals are missing."""
    lowest, entered = 0, 0
    for task in dict.fromkeys(row.task for row in rows if row.task != ALL_TASKS):
        points = [(row.measures["regret"].point, row) for row in rows if row.task == task and row.measures["regret"]]
        ours = [point for point, row in points if row.method == HERO]
        if ours and len(points) > len(ours):
            entered += 1
            lowest += min(ours) == min(point for point, _ in points)
    return f"Cal-QL has the lowest regret on {lowest} of {entered} tasks." if entered else ""


def calibration(runs: Sequence[Run]) -> str:
    """Whether calibration had anything to do on these runs, or "" where the bounding rate was not measured."""
    rates = [run.curve("offline", "bounding_rate")[1] for run in runs if run.method == HERO and run.done]
    rates = [rate.mean() for rate in rates if len(rate)]
    if not rates:
        return ""
    share = float(np.mean(rates))
    if share < 0.01:
        return (
            "Calibration hardly ever acted: during pre-training Q fell below the reference value for "
            f"{share:.1%} of the policy's actions, so on these data Cal-QL and CQL are nearly the same method."
        )
    return (
        f"Calibration was at work: during pre-training Q lay below the reference value for {share:.0%} of the policy's "
        "actions, and there Cal-QL does not push it down further."
    )


def border(runs: Sequence[Run]) -> str:
    """Mean Q and mean return of the data where fine-tuning starts (Fig. 3 in numbers), or "" where not measured."""
    ends: dict[str, list[float]] = {}
    returns = []
    for run in runs:
        q, g = (run.curve("offline", column)[1] for column in ("q_data_mean", "mc_return_mean"))
        if run.done and len(q) and len(g):
            ends.setdefault(run.label, []).append(q[-1])
            returns.append(g[-1])
    if not returns:
        return ""
    listed = ", ".join(f"{np.mean(values):.3g} ({label})" for label, values in ends.items())
    return f"After pre-training, mean Q on the data is {listed}; the mean return of the data is {np.mean(returns):.3g}."


def _outcome(row: Row, key: str) -> str:
    """What one method did, in numbers."""
    seeds = f"({row.seeds} seed{'s' if row.seeds != 1 else ''})"
    if key == "score_before":
        return f"{row.label} reached a score of {_show(row, key)} by pre-training alone {seeds}."
    before, after = (text(name, row.measures[name])[0] for name in ("score_before", "score_after"))
    change = f"{row.label} went from a score of {before} to {after} by fine-tuning"
    return f"{change}, with a regret of {_show(row, key)} {seeds}."


def _comparison(hero: Row, best: Row, key: str) -> str:
    """The hero against the best of the others."""
    name = MEASURES[key] if key == "regret" else "score"
    ours, theirs = hero.measures[key], best.measures[key]
    gap = (theirs.point - ours.point) * (1 if key == "regret" else -1)
    word = "lower" if key == "regret" else "higher"
    opening = f"The best of the others is {best.label} with a {name} of {_show(best, key)}"
    opening += "" if gap > 0 else f", no worse than {hero.label}" if gap == 0 else f", better than {hero.label}"
    if min(hero.seeds, best.seeds) < 2:
        return f"{opening}; a single seed has no interval, so the difference may be chance."
    if _overlap(ours, theirs):
        return (
            f"{opening}; the two intervals overlap, so these runs do not settle which of the two has the {word} {name}."
        )
    return f"{opening}; the two intervals do not overlap, so the difference is larger than the noise between seeds."


def _dips(hero: Row, rivals: Sequence[Row]) -> str:
    """What the start of fine-tuning cost."""
    worst = max(rivals, key=lambda row: row.measures["dip"].point)
    return (
        f"In the first fifth of fine-tuning {hero.label} fell at most {_show(hero, 'dip')} below its starting score, "
        f"{worst.label} (the deepest dip of the others) {_show(worst, 'dip')}."
    )


def _hedges(rows: Sequence[Row], runs: Sequence[Run]) -> list[str]:
    """Reasons to believe the numbers less."""
    finished = [run for run in runs if run.done]
    hedges = []
    fewest = min(row.seeds for row in rows)
    if fewest == 1:
        hedges.append("A single seed is an anecdote: run more before believing any of this.")
    elif fewest < FEW_SEEDS:
        hedges.append(
            f"With fewer than {FEW_SEEDS} seeds the intervals are too narrow: the real uncertainty is larger."
        )
    if unfinished := sum(not run.done for run in runs):
        verb = "run is" if unfinished == 1 else "runs are"
        hedges.append(
            f"{unfinished} unfinished {verb} left out of every aggregate; leaving out a failure flatters its method."
        )
    for task in dict.fromkeys(run.task for run in runs):
        here = [run for run in finished if run.task == task]
        lengths = sorted(float(steps[-1]) for run in here if len(steps := run.curve("online", "score_mean")[0]) > 1)
        if any(b > 1.02 * a for a, b in pairwise(lengths)):
            hedges.append(
                f"On {task} the runs had unequal numbers of online steps, so regrets are not quite comparable."
            )
        if len({run.config.get("data", {}).get("fingerprint") for run in here}) > 1:
            hedges.append(f"On {task} not all runs used the same data set.")
    scales = {run.config["scale"] for run in runs if "scale" in run.config}
    if scales - {"paper"}:
        hedges.append(
            f"Scale {', '.join(sorted(scales))}: compare the methods with one another, not with the paper's tables."
        )
    return hedges


def _show(row: Row, key: str) -> str:
    return " ".join(text(key, row.measures[key])).strip()


def _overlap(a: Estimate, b: Estimate) -> bool:
    return max(a.low, b.low) <= min(a.high, b.high)
