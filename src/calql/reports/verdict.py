"""The verdict in words, computed from the numbers and as certain as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from calql.evaluation.aggregate import FEWEST_RUNS
from calql.evaluation.metrics import jumps
from calql.reports.load import Run
from calql.reports.style import HERO
from calql.reports.tables import ALL_TASKS, Row, counted, p_text, settled, spread_text, text

FAR = 2.0
"""Jumps of the score so many times as large as by chance are told."""


def verdict(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """One paragraph about the rows of one task (or of all), in the order of `method_rows`: which method won, by how
    much, and if it is settled."""
    measured = [row for row in rows if row.measures["regret"]]
    key = "regret" if measured else "score_before"
    measured = measured or [row for row in rows if row.measures[key]]
    if not measured:
        if any(run.done for run in runs):
            return (
                "The score is not measured: the environment told no success. Choose a score of returns, or let every "
                "step tell success. What is shown below of values does not depend on it."
            )
        return "No run has finished yet, so there is nothing to compare."
    hero = next((row for row in measured if row.method == HERO), measured[0])
    rivals = [row for row in measured if row is not hero]
    sentences = [_outcome(hero, key)]
    if rivals:
        sentences += [_comparison(hero, rivals, key)]
        sentences += [_dips(hero, rivals)] if key == "regret" else []
    return " ".join(filter(None, [*sentences, *_hedges(measured, runs)]))


def wins(rows: Sequence[Row]) -> str:
    """On how many tasks Cal-QL has the lowest regret, and on how many that is settled, or "" if it or its rivals are
    missing."""
    lowest = sure = entered = 0
    for task in dict.fromkeys(row.task for row in rows if row.task != ALL_TASKS):
        here = [row for row in rows if row.task == task and row.measures["regret"]]  # lowest first
        ours = [row for row in here if row.method == HERO]
        others = [row for row in here if row.method != HERO]
        if ours and others:
            entered += 1
            lowest += ours[0].point("regret") <= others[0].point("regret")
            sure += here[0] is ours[0] and all(settled(ours[0], other, "regret") for other in others)
    if not entered:
        return ""
    return (
        f"Cal-QL's regret is the lowest on {lowest} of {entered} tasks; against each of the other methods that is "
        f"settled on {sure or 'none'} of them (permutation test over at least {FEWEST_RUNS} seeds, p < 0.05)."
    )


def calibration(runs: Sequence[Run]) -> str:
    """How much calibration acted in these runs, or "" if the bounding rate was not measured."""
    rates = [run.curve("offline", "bounding_rate")[1] for run in runs if run.method == HERO and run.done]
    rates = [rate for rate in rates if len(rate)]
    if not rates:
        return ""
    share = float(np.mean([rate.mean() for rate in rates]))
    if share < 0.01:
        return (
            "Calibration hardly ever acted: during pre-training Q fell below the reference value for "
            f"{share:.1%} of the policy's actions, so that here Cal-QL and CQL were nearly the same method."
        )
    last = float(np.mean([rate[-1] for rate in rates]))
    return (
        f"At the end of pre-training, Cal-QL's Q lay below the reference value for {last:.0%} of the policy's actions "
        f"({share:.0%} on average over pre-training): there, Q is not pushed down further. For a critic that "
        "is still far from convergence the rate has no meaning."
    )


def border(runs: Sequence[Run]) -> str:
    """Mean Q and mean return of the data when fine-tuning starts (Fig. 3 in numbers), or "" if not measured."""
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


def unsteady(runs: Sequence[Run]) -> str:
    """Which methods' scores jump from one evaluation to the next by more than the noise of evaluations, or ""; of those
    which can act by an average of the policy, as all with target networks, and do not."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        settings = {path.rpartition(".")[2]: value for path, value in run.record.settings.items()}
        if not run.done or "tau" not in settings or settings.get("acting_tau", 1) != 1:
            continue
        if moved := jumps(*(run.curve("online", column)[1].tolist() for column in ("score_mean", "score_sem"))):
            found.setdefault(run.label, []).append(moved)
    listed = []
    for label, pairs in found.items():
        jump, chance = np.sqrt(np.square(pairs).mean(axis=0))
        if jump > FAR * chance:
            listed.append(f"{label} {jump:.2f} (by chance {chance:.2f})")
    if not listed:
        return ""
    return (
        f"From one evaluation to the next, scores jump by {', '.join(listed)}: good policies are found, lost and found "
        "again. --set acting_tau=0.001 lets an average over about 1,000 updates act; 0.01, over 100, follows sooner."
    )


def _outcome(row: Row, key: str) -> str:
    """The results of one method, in numbers."""
    seeds = f"({counted(row.seeds, 'seed')})"
    if key == "score_before":
        return f"{row.label} reached a score of {_show(row, key)} by pre-training alone {seeds}."
    before, after = (text(name, row.measures[name])[0] for name in ("score_before", "score_after"))
    change = f"{row.label} went from a score of {before} to {after} by fine-tuning"
    return f"{change}, with a regret of {_show(row, key)} {seeds}."


def _comparison(hero: Row, rivals: Sequence[Row], key: str) -> str:
    """The hero against the best of the others, and whether the difference is settled."""
    best = rivals[0]  # rows are in that order
    name, word = ("regret", "lower") if key == "regret" else ("score", "higher")
    opening = f"The best of the others is {best.label} with a {name} of {_show(best, key)}"
    gap = (best.point(key) - hero.point(key)) * (1 if key == "regret" else -1)
    # If a rival is ahead, it was selected as the best of several.
    choices = 1 if gap >= 0 else len(rivals)
    p = settled(hero, best, key, choices)
    if p is None:
        few = any(x is None or len(x) < FEWEST_RUNS for x in (hero.samples[key], best.samples[key]))
        why = f" (fewer than {FEWEST_RUNS} seeds)" if few else ""
        return f"{opening}; which of the two has the {word} {name} is not settled by these runs{why}."
    ahead = hero if gap > 0 else best
    corrected = f", corrected for {choices} methods" if choices > 1 else ""
    return f"{opening}; {ahead.label} has the {word} {name} (permutation test over seeds, {p_text(p)}{corrected})."


def _dips(hero: Row, rivals: Sequence[Row]) -> str:
    """The loss of score at the start of fine-tuning, or "" if it was not measured."""
    rivals = [row for row in rivals if row.measures["dip"]]
    if not hero.measures["dip"] or not rivals:
        return ""
    worst = max(rivals, key=lambda row: row.point("dip"))
    return (
        f"In the first fifth of fine-tuning {hero.label} fell by {_show(hero, 'dip')} from its starting score at its "
        f"lowest, {worst.label} (of the others the one that fell furthest) by {_show(worst, 'dip')}."
    ) + _by_chance(hero, worst)


def _by_chance(*rows: Row) -> str:
    """What of the dips of rows the noise of evaluations explains, or "" if it is not known."""
    if not all(row.measures["chance_dip"] for row in rows):
        return ""
    chances = [f"{row.point('chance_dip'):.2f}" for row in rows]
    values = chances[0] if len({*chances}) == 1 else " and ".join(chances)
    return f" Policies that never change would show {values} on average, from the noise of their evaluations alone."


def _hedges(rows: Sequence[Row], runs: Sequence[Run]) -> Iterator[str]:
    """Caveats about the numbers."""
    fewest = min(row.seeds for row in rows)
    if fewest == 1:
        yield "A single seed is an anecdote: run more before believing any of this."
    elif fewest < FEWEST_RUNS:
        yield f"In brackets: the {spread_text(fewest)}; it is not a confidence interval, another seed may fall outside."
    if unfinished := sum(not run.done for run in runs):
        verb = "run is" if unfinished == 1 else "runs are"
        yield f"{unfinished} unfinished {verb} left out of every aggregate; leaving out failures flatters a method."
    for task, title in {run.task: run.record.task_title for run in runs}.items():
        here = [run for run in runs if run.done and run.task == task]
        lengths = sorted(float(steps[-1]) for run in here if len(steps := run.curve("online", "score_mean")[0]) > 1)
        if any(b > 1.02 * a for a, b in pairwise(lengths)):
            yield f"On {title} the runs had unequal numbers of online steps, so regrets are not fully comparable."
        if len({run.record.data.get("fingerprint") for run in here}) > 1:
            yield f"On {title} not all runs used the same data set."
    scales = {run.record.scale for run in runs if run.record.scale is not None}
    if scales - {"paper"}:
        named = ", ".join(sorted(scales))
        yield f"Scale {named}: compare the methods with one another, not with the paper's tables."


def _show(row: Row, key: str) -> str:
    return " ".join(text(key, row.measures[key])).strip()
