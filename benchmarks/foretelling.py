"""Whether what is known before the first online step foretells how far the score then falls, over stored runs.

python benchmarks/foretelling.py results [--out FILE.json]

Per signal, Spearman's rank correlation with the dip less the dip by chance, within each task, and over all tasks (ranks
within tasks, so that differences between tasks do not count), with a 95 % interval: runs are drawn again by groups of
one task and one method, as their seeds are alike. A signal that foretells dips has the same sign in every task.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from calql.reports.load import Run, load_runs

LOWEST = 0.1
"""Runs whose score before is lower have nothing to lose, and are left out."""
FEWEST = 8
"""Tasks with fewer runs are left out."""


def signals(run: Run) -> dict[str, float]:
    """What the data and the pre-trained networks tell; nan where it was not measured."""
    offline = [row for row in run.rows if row["phase"] == "offline"]
    border, returns = offline[-1], offline[-1]["mc_return_mean"]
    scores = [row["score_mean"] for row in offline[-4:] if np.isfinite(row["score_mean"])]
    return {
        "score before": border["score_mean"],
        "spread of the last four offline scores": float(np.std(scores)),
        "(G − Q of data) / |G|": (returns - border["q_data_mean"]) / abs(returns),
        "|G − Q of data| / |G|": abs(returns - border["q_data_mean"]) / abs(returns),
        "(G − Q of policy) / spread of G": (returns - border["q_policy_mean"]) / border["mc_return_std"],
        "(G − Q of policy) / (Q of policy − Q of random)": (returns - border["q_policy_mean"])
        / (border["q_policy_mean"] - border["q_random_mean"]),
        "bounding rate": border["bounding_rate"],
    }


def loss(run: Run) -> float:
    """The dip beyond chance; nan if it was not measured."""
    measured, chance = (run.summary[name] for name in ("dip", "chance_dip"))
    return float("nan") if measured is None or chance is None else measured - chance


def runs_below(folder: Path) -> Iterator[Run]:
    """Every finished run with pre-training and something to lose, once."""
    seen = set()
    for table in sorted(folder.rglob("runs.json")):
        for run in load_runs([table.parent]):
            key = run.task, run.method, run.seed, repr([sorted(row.items()) for row in run.rows])
            offline = [row for row in run.rows if row["phase"] == "offline"]
            if run.done and len(offline) > 1 and offline[-1]["score_mean"] >= LOWEST and key not in seen:
                seen.add(key)
                yield run


def within(tasks: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks within tasks, each scaled to mean 0 and spread 1."""
    parts = [(rankdata(x[tasks == task]), rankdata(y[tasks == task])) for task in np.unique(tasks)]
    parts = [(a - a.mean(), b - b.mean()) for a, b in parts if np.ptp(a) and np.ptp(b)]
    a, b = (np.concatenate([part[i] / part[i].std() for part in parts]) for i in (0, 1)) if parts else ([0.0], [0.0])
    return float(np.mean(np.multiply(a, b)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = [(run.task, run.label, signals(run), loss(run)) for run in runs_below(asked.folder)]
    random, found = np.random.default_rng(0), []
    for name in rows[0][2] if rows else ():
        known = [(t, label, s[name], y) for t, label, s, y in rows if np.isfinite([s[name], y]).all()]
        counts = defaultdict(int)
        for task, *_ in known:
            counts[task] += 1
        known = [row for row in known if counts[row[0]] >= FEWEST]
        if not known:
            found.append({"signal": name, "runs": 0})
            continue
        tasks, labels, x, y = (np.array(column) for column in zip(*known, strict=True))
        groups = [np.flatnonzero((tasks == t) & (labels == m)) for t, m in sorted({*zip(tasks, labels, strict=True)})]
        draws = []
        for _ in range(1_000):
            chosen = np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
            draws.append(within(tasks[chosen], x[chosen], y[chosen]))
        alone = {str(t): float(spearmanr(x[tasks == t], y[tasks == t])[0]) for t in np.unique(tasks)}
        interval = [float(end) for end in np.quantile(draws, [0.025, 0.975])]
        found.append({"signal": name, "runs": len(known), "within": within(tasks, x, y), "95 %": interval, **alone})
    for row in found:
        rounded = {key: value if key == "signal" else np.round(value, 2).tolist() for key, value in row.items()}
        print(json.dumps(rounded, ensure_ascii=False))
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
