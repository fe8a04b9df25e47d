"""`calql bench`: how fast the learner is, and how close that is to the peak of this machine."""

from __future__ import annotations

import math
from json import dumps
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from calql.cli.hints import next_step
from calql.cli.options import Texts, flat
from calql.types import InputError


def bench(
    configs: Texts = (),
    seconds: float = 5.0,
    methods: Texts = (),
    task: str | None = None,
    json: Path | None = None,
) -> int:
    """Update steps per second of the compiled learner, and their share of this machine's matrix-multiply peak.

    Times are the best of several blocks, which alternate with the multiplications; compile time is separate. For
    one core: taskset -c 0 calql bench.

    Example: calql bench --configs laptop --seconds 10 --json bench.json

    Args:
        configs: Sizes to measure, by default all of them: adroit and antmaze (official settings), laptop (small
            networks); NAME-estimated: with an estimated conservative term (cql_every_nth_state=2,
            cql_gradient_actions=2); NAME-estimated-bfloat16: with this and
            critic_precision=bfloat16.
        seconds: Time spent on the gradient steps of each size or method.
        methods: Measure methods instead of sizes: method ids, or `all`, at `laptop` scale, relative to the first one.
        task: Task for --methods; if its observations have images, the encoder's share of the time is measured too.
        json: Also write the rows, with the machine and the versions of packages, to this file.
    """
    from calql.machine import machine
    from calql.tasks import nearest
    from calql.training.speed import SIZES

    sizes = flat(configs) or tuple(SIZES)
    for name in sizes:
        if name not in SIZES:
            raise nearest(name, SIZES, "configuration")
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds}; it must be a finite number greater than 0")
    if task and not methods:
        raise InputError("--task needs --methods; name some methods, or write --methods all")
    console, here = Console(), machine()
    measured = (
        _methods(flat(methods), seconds, task, console, here) if methods else _sizes(sizes, seconds, console, here)
    )
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(dumps({"machine": here} | measured, indent=2) + "\n")
    next_step("train", "--dry-run") if methods else next_step("bench", "--methods", "all")
    return 0


def _sizes(configs: tuple[str, ...], seconds: float, console: Console, here: dict[str, Any]) -> dict[str, Any]:
    from calql.training.speed import BATCH, ROUNDS, SIZES, measure_parts, measure_size

    rows = []
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(configs) * (ROUNDS + 1))
        for name in configs:
            progress.update(bar, description=f"{name}: compiling")
            for measured in measure_size(SIZES[name], seconds):
                progress.update(bar, description=f"{name}: measuring", advance=1)
                if measured:
                    progress.update(bar, description=f"{name}: measuring its parts")
                    parts_ms = measure_parts(SIZES[name], seconds, 1e3 / measured["updates_per_s"])
                    rows.append({"configuration": name} | measured | {"parts_ms": parts_ms})
    table = Table(
        Column("", no_wrap=True),
        "updates/s",
        "GFLOP/update",
        "GFLOP/s",
        "peak",
        "share of peak",
        "compile time",
        "memory",
    )
    for row in rows:
        on_device = row["device_memory_mb"]
        table.add_row(
            row["configuration"],
            f"{row['updates_per_s']:.4g}",
            f"{row['gflop_per_update']:.3g}",
            f"{row['gflop_per_s']:.4g}",
            f"{row['peak_gflop_per_s']:.4g}",
            f"{row['share_of_peak']:.0%}",
            f"{row['compile_s']:.1f} s",
            f"{row['memory_mb']:.0f} MB" + ("" if on_device is None else f" + {on_device:.0f} MB on the device"),
        )
    console.print(table)
    parts = Table(Column("ms per update", no_wrap=True), *rows[0]["parts_ms"])
    for row in rows:
        parts.add_row(row["configuration"], *(f"{max(part, 0.0):.3g}" for part in row["parts_ms"].values()))
    console.print(parts)
    console.print(
        f"{here['device']}, {here['threads']} threads, {here['cpu']}; batch {BATCH}; the peak is that of float32 "
        "matrix multiplications; memory is the maximum of the process so far",
        highlight=False,
    )
    if here["device"] == "cpu" and (held := min(row["cpu_held"] for row in rows)) < 0.9:
        console.print(
            f"[yellow]note[/yellow] other programs use the CPU: this one had {held:.0%} of its threads' time; "
            "the shares are rough; measure again later"
        )
    return {"batch_size": BATCH, "rows": rows}


def _methods(
    methods: tuple[str, ...], seconds: float, task: str | None, console: Console, here: dict[str, Any]
) -> dict[str, Any]:
    from calql.paper.methods import METHODS
    from calql.training.speed import measure_methods

    with console.status("compiling, then measuring alternately"):
        rows = measure_methods(tuple(METHODS) if "all" in methods else methods, seconds, task)
    heads = ["update rule", "updates/s", f"relative to {rows[0]['method']}", "updates per step", "compile time"]
    table = Table(Column("", no_wrap=True), *heads, *(["encoder"] if "encoder_share" in rows[0] else []))
    for row in rows:
        if "refused" in row:
            table.add_row(row["method"], "–")
            continue
        cells = f"{row['updates_per_s']:.4g}", f"{row['relative']:.2f}", f"{row['updates_per_step']:g}"
        share = [f"{row['encoder_share']:.0%}"] if "encoder_share" in row else []
        table.add_row(row["method"], row["rule"], *cells, f"{row['compile_s']:.1f} s", *share)
    console.print(table)
    for row in rows:
        if "refused" in row:
            console.print(f"{row['method']}: {row['refused']}")
    console.print(f"{here['device']}, {here['threads']} threads, {here['cpu']}; fine-tuning, `laptop` scale, float32")
    return {"task": task, "rows": rows}
