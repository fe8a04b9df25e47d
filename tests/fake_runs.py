"""Synthetic run directories that obey the contract, shaped like the paper's: made up, for tests of what reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from calql.paper.methods import METHODS

# method → (score before, depth of the dip, final score, speed), mean Q on the data before fine-tuning, bounding rate
SHAPES = {
    "cal-ql": ((0.42, 0.02, 0.95, 5.0), -4.6, 0.22),
    "cql": ((0.40, 0.30, 0.85, 3.0), -9.5, 0.55),
    "cql-sac": ((0.40, 0.38, 0.55, 2.0), -9.5, 0.55),
    "iql": ((0.45, 0.03, 0.68, 2.0), -5.0, 0.10),
    "bc": ((0.30, 0.00, 0.30, 1.0), None, None),
    "sac": ((0.00, 0.00, 0.10, 1.0), 0.5, 0.02),
    "sac-offline": ((0.02, 0.00, 0.35, 1.5), 1.0, 0.03),
    "rlpd": ((0.01, 0.00, 0.80, 3.5), 0.0, 0.05),
}
ONLINE_ONLY, OFFLINE_ONLY = {"sac", "sac-offline", "rlpd"}, {"bc"}
COLUMNS = ["phase", "env_step", "grad_step", "wall_s", "score_mean", "score_sem", "return_mean", "length_mean"]
COLUMNS += ["episodes", "q_data_mean", "mc_return_mean", "bounding_rate"]


def write_run(root: Path, method: str, seed: int, task: str = "toy-maze", *, done: bool = True, points: int = 26,
              offline_steps: int = 20_000, env_steps: int = 10_000, settings: dict | None = None,
              form: int = 1, changes: dict | None = None) -> Path:  # fmt: skip
    """One run directory under `root`; deterministic in (method, seed, task).

    `settings` are those of format 1, `changes` paths in the experiment of format 2, "pretrain.algorithm.cql_alpha".
    """
    rng = np.random.default_rng([seed, *f"{method}{task}".encode()])
    (before, depth, after, speed), q_before, rate = SHAPES[method]
    before = np.clip(before + rng.normal(0, 0.05) * (before > 0), 0, 1)
    q_before = None if q_before is None else q_before + rng.normal(0, 0.3)
    mc, rows = -4.5, []

    def row(phase, env_step, score, q, bounding):
        score = np.clip(score + rng.normal(0, 0.03), 0, 1)
        grad = offline_steps * (len(rows)) // 10 if phase == "offline" else offline_steps + env_step
        measured = ["", "", ""] if q is None else [f"{q:.4f}", f"{mc:.4f}", f"{bounding:.4f}"]
        cells = [phase, env_step, grad, f"{0.01 * grad:.1f}", f"{score:.4f}", "0.0400", "1.0", "40", 20, *measured]
        rows.append(dict(zip(COLUMNS, cells, strict=True)))

    if method not in ONLINE_ONLY:
        for t in np.linspace(0, 1, 11):
            grown = 1 - np.exp(-4 * t)
            row(
                "offline",
                0,
                before * grown,
                None if q_before is None else q_before * grown,
                (rate or 0) * (1 - 0.5 * t),
            )
    if method not in OFFLINE_ONLY:
        handover = dict(rows[-1]) if rows else None
        for t in np.linspace(0, 1, points if done else points // 3):
            score = before + (after - before) * (1 - np.exp(-speed * t)) - depth * (t / 0.1) * np.exp(1 - t / 0.1)
            q = 2.5 + (q_before - 2.5) * np.exp(-25 * t) + 0.4 * t + rng.normal(0, 0.08)
            row("online", round(t * env_steps * (1 if done else 0.3)), score, q, rate * 0.5 * np.exp(-3 * t))
        if handover:
            first = rows[11]
            first |= {name: handover[name] for name in COLUMNS[3:]}
    run_dir = Path(root) / f"{task}-{method}-{seed}"
    run_dir.mkdir(parents=True)
    with (run_dir / "eval.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    budgets = [("offline", offline_steps, 0, 1.0), ("online", env_steps, env_steps, 0.5)]
    names = ("name", "gradient_steps", "env_steps", "mixing")
    phases = [dict(zip(names, budget, strict=True)) | {"algorithm": method, "utd": 1} for budget in budgets]
    phases = phases[method in ONLINE_ONLY : 1 if method in OFFLINE_ONLY else 2]
    config = {
        "format": 1, "task": task, "method": method, "seed": seed, "scale": "laptop",
        "data": {"reference": f"local:{task}", "fingerprint": "5f2d9c0a", "episodes": 400, "transitions": 16_000},
        "settings": {"seed": seed, "discount": 0.96, "tau": 0.01, "batch_size": 256, "hidden": [128, 128]}
        | ({"cql_alpha": 5.0} if "ql" in method else {}) | (settings or {}),
        "phases": phases,
        "differs_from_paper": {"hidden": {"paper": [256, 256], "here": [128, 128]},
                               "gradient_steps": {"paper": 1_000_000, "here": offline_steps}},
        "command": f"calql train --task {task} --method {method} --seed {seed} --out runs/{method}-{seed}",
        "git_commit": "0123abc", "packages": {"jax": "0.10.0", "numpy": "2.4.6"},
        "python": "3.11.9", "platform": "Linux",
    }  # fmt: skip
    if form == 2:
        config = format_2(config, changes or {})
    (run_dir / "config.json").write_text(json.dumps(config, indent=1))
    if done:
        (run_dir / "DONE").touch()
    return run_dir


def format_2(config: dict, changes: dict) -> dict:
    """The same run as an experiment: a tree of settings, and a line per start."""
    method, own = config["method"], config["settings"]
    rule = {"discount": own["discount"], "tau": own["tau"], "batch_size": own["batch_size"]}
    rule |= {"cql_alpha": own["cql_alpha"]} if "cql_alpha" in own else {}
    experiment = {
        "task": {"id": config["task"], "horizon": 51, "rewards": {"scale": 11.0, "bias": -1.0}},
        "method": method, "title": METHODS[method].title, "scale": "laptop", "seed": config["seed"],
        "data": {"uri": config["data"]["reference"], "fraction": 1.0},
        "pretrain": {"rule": "Rule", "algorithm": dict(rule), "offline_steps": 20_000},
        "finetune": {"rule": "Rule", "algorithm": dict(rule), "online_steps": 10_000, "utd": 1},
        "measurement": {"eval_episodes": 20},
    }  # fmt: skip
    if method in ONLINE_ONLY:
        experiment["pretrain"] = None
    if method in OFFLINE_ONLY:
        experiment["finetune"] = None
    for path, value in changes.items():
        *above, name = path.split(".")
        tree = experiment
        for part in above:
            tree = tree[part]
        tree[name] = value
    start = {name: config[name] for name in ("command", "git_commit", "packages")} | {"device": "cpu"}
    facts = {name: value for name, value in config["data"].items() if name != "reference"}
    differs = {"pretrain.offline_steps": {"paper": 1_000_000, "here": 20_000}}
    return {"format": 2, "experiment": experiment, "data": facts, "differs_from_paper": differs, "starts": [start]}


def write_study(root: Path, methods=("cal-ql", "cql", "sac"), seeds=range(4), tasks=("toy-maze",)) -> list[Path]:
    """Every method × seed × task."""
    return [write_run(root, method, seed, task) for task in tasks for method in methods for seed in seeds]
