"""The text of a task's page, and of the page that lists all tasks, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from data_table import Row

from calql.envs.make import make_env
from calql.paper.methods import DEFAULT_METHOD
from calql.paper.scales import SCALES
from calql.paper.tasks import TASKS
from calql.reports.tables import pipe_table
from calql.tasks import Task
from calql.training.options import leaves, resolve


def card(task: Task, row: Row | None, notes: Path) -> str:
    """The page's text. Without a `row` it says that the data have not been measured; missing `notes` are left out."""
    parts = [
        f"# {task.id}",
        f"{task.summary[:1].upper()}{task.summary[1:]}.",
        f"![the environment]({task.id}.png)" if row else "",
        "## The task\n\n" + pipe_table(["", ""], settings(task)),
        "## The scales\n\nOptions that differ between scales or that this task sets; all others are defaults "
        "(`calql train --print-config`).\n\n" + pipe_table(["option", *SCALES], budgets(task)),
        "## The data\n\n" + (_data(task, row) if row else "They have not been measured yet."),
        "## Commands\n\n" + _commands(task),
        notes.read_text(encoding="utf-8").strip() if notes.exists() else "",
        f"---\n\n*Written by `python tools/cards {task.id}`: edit the table of tasks or `notes/`, not this page.*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def settings(task: Task) -> list[tuple[str, str]]:
    """(name, value) pairs of the task and of the environment's spaces."""
    with make_env(task) as env:
        observation, action = _space(env.observation_space), _space(env.action_space)
    pays = task.rewards
    end = "at the first success" if task.stop_at_success else "when the environment ends it"
    lines = [
        ("environment", f"`{task.env}`" + "".join(f", {k} {_value(v)}" for k, v in task.env_options.items())),
        ("observation", observation),
        ("action", f"{action} in [−1, 1]"),
        ("reward", f"{_range(task)}; learned from as {_map(task)}"),
        ("horizon", f"{task.horizon:,} steps"),
        ("an episode ends", f"{end}, or at the horizon"),
        ("score", {"success": "success at any step"}.get(task.score, task.score.replace("_", " "))),
        ("default data", f"`{task.data}`, made by `{task.builder}`"),
    ]
    if pays.failing is not None:
        paid = _number(pays.map(pays.failing))
        rule = f"if all of its steps pay {paid} (mapped), each has the return {paid}/(1 − γ)"
        lines.insert(4, ("an episode that fails", rule))
    lines += [
        ("also takes", f"`{source.pattern}`" + f", through `{source.adapt}`" * bool(source.adapt)
         + "".join(f", with {k} {_value(v)}" for k, v in source.env_options.items()))
        for source in task.sources
    ]  # fmt: skip
    return lines


def budgets(task: Task) -> list[tuple[str, ...]]:
    """(option, value at each scale) of the options that the task sets or that differ between scales."""
    made = [resolve(task, DEFAULT_METHOD, scale) for scale in SCALES]
    values = [{leaf.name: _value(leaf.value) for leaf in leaves(experiment)} for experiment, _ in made]
    rows = {name: tuple(known[name] for known in values) for name in values[0]}
    named = {name for _, set_by in made for name, who in set_by.items() if who.startswith("task ")}
    lines: dict[str, tuple[str, ...]] = {}
    for name, row in rows.items():
        if len(set(row)) > 1 or name in named:
            other = (
                name.replace("pretrain", "finetune")
                if name.startswith("pretrain")
                else name.replace("finetune", "pretrain")
            )
            alike = other == name or rows.get(other, row) == row
            lines[f"`{name.split('.')[-1] if alike else name.replace('.algorithm', '')}`"] = row
    return [(name, *row) for name, row in lines.items()]


def _data(task: Task, row: Row) -> str:
    """The measured numbers, the figure, and the recipe."""
    transitions, episodes, terminated, truncated = (
        f"{int(row[name]):,}" for name in ("transitions", "episodes", "terminated", "truncated")
    )

    def quantiles_text(name: str) -> str:
        return " · ".join(_number(row[f"{name}_{q}"]) for q in ("min", "q10", "median", "q90", "max"))

    lines = [
        ("transitions", transitions),
        ("episodes", f"{episodes}; {terminated} terminated, {truncated} cut"),
        ("episodes that succeed", f"{float(row['success']):.1%}"),
        ("mean score", f"{float(row['score']):.3f}"),
        ("length", quantiles_text("length")),
        ("raw return", quantiles_text("paid")),
        (f"return of the first step, mapped, γ {row['discount']}", quantiles_text("return")),
        ("behaviour spread", f"{float(row['behaviour_spread']):.2f} (0: deterministic, 1: uniform actions)"),
        ("action noise", f"{float(row['action_noise']):.2f} (share of the actions' variance)"),
        ("start spread", f"{float(row['start_spread']):.2f} (0: one start, 1: starts anywhere)"),
        ("effective dimension", f"{float(row['effective_dimension']):.1f}"),
        ("build time", duration(row["build_s"])),
        ("size", size(row["megabytes"])),
        ("seed, calql", f"{row['seed']}, {row['calql']}"),
        ("fingerprint", f"`{row['fingerprint'][:16]}`"),
    ]  # fmt: skip
    recipe: Mapping[str, Any] = json.loads(row["recipe"] or "{}")
    options = ", ".join(f"{name} {_value(value)}" for name, value in recipe.items())
    measured = f"Measured on `{row['reference']}`"
    if row["reference"] != task.data:
        measured += f", an earlier version; `{task.data}` has not been measured yet"
    return "\n\n".join(
        [
            f"{measured}. Quantiles: lowest · 10 % · median · 90 % · highest, over episodes.",
            pipe_table(["", ""], lines),
            f"![returns, lengths and coverage]({task.id}-data.png)",
            f"Recipe: {options}." if options else "",
        ]
    ).strip()


def _commands(task: Task) -> str:
    method = DEFAULT_METHOD
    lines = [
        f"calql data build {task.id}",
        f"calql data info {task.data} --figures figures",
        f"calql train --task {task.id} --method {method} --out runs/{task.id}",
        f"calql train --task {task.id} --method {method} --scale paper --out runs/{task.id}-paper",
    ]
    return "```sh\n" + "\n".join(lines[0 if task.builder else 1 :]) + "\n```"


# -- the index ---------------------------------------------------------------------------------------------------------


def index(rows: Mapping[str, Row]) -> str:
    """The page that lists all tasks with measurements of their data."""
    head = ["", "task", "horizon", "transitions", "episodes", "success", "length", "return", "built in", "size"]
    lines = []
    for task in TASKS.values():
        row = rows.get(task.id)
        image = f'<img src="{task.id}.png" width="120" alt="">' if row else ""
        name = f"[{task.id}]({task.id}.md)<br>{task.summary}"
        measured = [
            f"{int(row['transitions']):,}",
            f"{int(row['episodes']):,}",
            f"{float(row['success']):.0%}",
            _middle(row, "length"),
            _middle(row, "return"),
            duration(row["build_s"]),
            size(row["megabytes"]),
        ] if row else ["–"] * 7  # fmt: skip
        lines.append((image, name, f"{task.horizon:,}", *measured))
    return (
        "# Tasks\n\nLength and return: median (10 % to 90 %) over episodes, where the return is the Monte-Carlo return "
        "of the first step, on mapped rewards. [data.csv](data.csv) has these numbers and more.\n\n"
        + pipe_table(head, lines)
        + "\n\n---\n\n*Written by `python tools/cards`.*\n"
    )


def _middle(row: Row, name: str) -> str:
    low, middle, high = (_number(row[f"{name}_{q}"]) for q in ("q10", "median", "q90"))
    return f"{middle} ({low} to {high})"


# -- texts of values ---------------------------------------------------------------------------------------------------


def duration(seconds: str) -> str:
    """`95 s`, `6.7 min`; – for an empty text."""
    if not seconds:
        return "–"
    value = float(seconds)
    return f"{value:.0f} s" if value < 100 else f"{value / 60:.1f} min"


def size(megabytes: str) -> str:
    """`0.4 MB`; – for an empty text."""
    return f"{float(megabytes):,.1f} MB" if megabytes else "–"


def _map(task: Task) -> str:
    pays = task.rewards
    scale = "r" if pays.scale == 1 else f"{pays.scale:g} r"
    if not pays.bias:
        return scale
    return f"{scale} {'+' if pays.bias > 0 else '−'} {abs(pays.bias):g}"


def _range(task: Task) -> str:
    pays = task.rewards
    if pays.low is None or pays.high is None:
        return "of unknown range"
    return f"{_number(pays.low)} to {_number(pays.high)} per step"


def _number(value: float | str) -> str:
    return f"{float(value):,.4g}".replace("-", "−")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " · ".join(map(_value, value))
    if isinstance(value, int):
        return f"{value:,}"
    return _number(value) if isinstance(value, float) else str(value)


def _space(space: gymnasium.Space) -> str:
    if isinstance(space, gymnasium.spaces.Dict):
        return ", ".join(f"{name} {_space(part)}" for name, part in space.items())
    return "×".join(map(str, space.shape)) + (" pixels, uint8" if space.dtype == np.uint8 else "")
