"""`calql export`: the policy of a run as a file that acts without calql's run directory, and without JAX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro


def export(
    run_dir: Annotated[Path, tyro.conf.Positional],
    out: Path,
    step: str = "newest",
    rate: float | None = None,
    card: Path | None = None,
    license: str = "unknown",
    as_json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")] = False,
) -> int:
    """Write the policy of a run as ONNX or for NumPy, with a contract of what goes in and comes out, and a model card.

    Example: calql export runs/first --out policy.npz

    Args:
        run_dir: A run directory.
        out: policy.onnx (needs the [export] extra), or policy.npz, beside which policy.py is written, which reads it
            with NumPy alone.
        step: Checkpoint: newest, best (by its evaluation during training), pretrained, or a gradient step.
        rate: Control rate in Hz for the contract; by default the environment's metadata["render_fps"], or else that of
            the data, if one of them states it.
        card: File of the model card (Markdown as on the Hugging Face Hub); by default policy.md beside the policy. For
            a folder that is published, FOLDER/README.md.
        license: Licence of the policy for the card, as the Hub spells it: mit, apache-2.0, cc-by-4.0, …
        as_json: Print the contract as JSON instead of text.
    """
    from calql.cli.common import console, note
    from calql.cli.hints import next_step
    from calql.export.policy import form_of, load, time_per_action
    from calql.export.write import refuse_taken, write_reader
    from calql.training.card import card_beside
    from calql.training.export import export_run

    form_of(out)
    if out.suffix == ".npz":
        refuse_taken(out)
    contract, notes = export_run(run_dir, out, step, rate, card, license)
    reader = write_reader(out) if out.suffix == ".npz" else None
    for text in notes:
        note(text)
    if as_json:
        print(json.dumps(contract))
        return 0
    check, seconds = contract["check"], time_per_action(load(out))
    made = contract["provenance"]
    beside = "" if reader is None else f" (read by {reader}, NumPy alone)"
    about = card or card_beside(out)
    console.print(
        f"{out}: {contract['task']['id']} · {made['method']} · gradient step {made['step']}{beside}\n"
        f"worst error {check['worst_error']:.2g} at {check['states']} states of {check['from']}\n"
        f"{1e6 * seconds.median:.0f} µs per action on this machine (99 % within {1e6 * seconds.p99:.0f} µs)\n"
        f"model card: {about}"
    )
    next_step("act", out, "--episodes", 3, "--out", "episodes")
    return 0
