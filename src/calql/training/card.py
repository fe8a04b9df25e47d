"""The model card of an exported policy: what it is, how well it did, and how to use and make it again.

The form is that of the model cards of the Hugging Face Hub: Markdown behind YAML front matter. Every number comes from
the run directory or from the contract of the export; what a run does not hold is said to be unknown.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

import calql
from calql.files import write
from calql.training.record import Saved, read_record
from calql.training.run_dir import RunDir
from calql.types import InputError

MARK = "library_name: calql"
"""The line of the front matter by which a card of ours is known."""
UNKNOWN = "unknown"


def card_beside(policy: Path) -> Path:
    """Where the card of an exported policy is written by default: STEM.md beside it."""
    return policy.with_suffix(".md")


def refuse_taken(path: Path) -> None:
    """Raise InputError if a file is there that is no model card of ours, or if the name does not end in .md."""
    if path.suffix != ".md":
        raise InputError(f"'{path}' names no model card; end it in .md")
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace").splitlines():
        raise InputError(f"{path} exists and is no model card of calql's; name another: --card model-card.md")


def write_card(path: Path, run: RunDir, contract: Mapping[str, Any], policy: Path, licence: str = UNKNOWN) -> None:
    """Write the card of a policy that was exported from a run; an older card is replaced.

    Args:
        path: ends in .md.
        run: the run directory.
        contract: of the export, with its check.
        policy: the exported file.
        licence: identifier of the licence of the policy, as the Hub spells it, e.g. mit.

    Raises RunError if the card cannot be written. What may be replaced is decided before the export, by `refuse_taken`.
    """
    write(path, card(read_record(run), run, contract, policy.name, licence))


class Score(NamedTuple):
    """What a run measured of the exported checkpoint."""

    mean: float
    error: float | None
    """Standard error over episodes; None: not measured."""
    episodes: int
    step: int
    """Gradient step of the evaluation."""

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.error is None else f" ± {self.error:.3f}")

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of a share of successes, which does not shrink to nothing where all succeed."""
        found = stats.binomtest(round(self.mean * self.episodes), self.episodes).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


def score_at(rows: Sequence[Mapping[str, str]], step: int) -> Score | None:
    """The last evaluation that is not later than a gradient step; None if nothing was measured until then."""
    measured = [row for row in rows if row.get("score_mean") and int(row["grad_step"]) <= step]
    if not measured:
        return None
    row = measured[-1]
    error = float(row["score_sem"]) if row.get("score_sem") else None
    return Score(float(row["score_mean"]), error, int(row["episodes"]), int(row["grad_step"]))


def card(saved: Saved, run: RunDir, contract: Mapping[str, Any], policy: str, licence: str) -> str:
    """The text of the card; `policy`: name of the exported file."""
    score = score_at(run.read_rows("eval.csv"), contract["provenance"]["step"])
    title = saved.experiment.title or saved.experiment.method
    lines = [
        *front_matter(saved, contract, score, policy, licence),
        "",
        f"# {title} on {contract['task']['id']}",
        "",
        f"A deterministic policy that was trained with {title} by offline-to-online reinforcement learning "
        f"(calql {calql.__version__}), exported as `{policy}`.",
        "",
        "## Use",
        "",
        *use(contract, policy),
        "",
        "## What it takes and gives",
        "",
        *exchanged(contract),
        "",
        "## Data",
        "",
        *data(saved),
        "",
        "## Results",
        "",
        *results(saved, run, score, contract["provenance"]["step"]),
        "",
        "## Method",
        "",
        *method(saved, title),
        "",
        "## Intended use, limits, safety",
        "",
        limits(contract),
        "",
        "## How to make it again",
        "",
        *again(saved, contract, policy, licence),
    ]
    return "\n".join(lines) + "\n"


def front_matter(
    saved: Saved, contract: Mapping[str, Any], score: Score | None, policy: str, licence: str
) -> Iterator[str]:
    """YAML; strings are in the form of JSON, which YAML contains."""
    task, method = contract["task"]["id"], saved.experiment.method
    tags = ["reinforcement-learning", "offline-to-online", "offline-reinforcement-learning", "calql", method, task]
    yield "---"
    yield f"license: {json.dumps(licence)}"
    yield MARK
    yield "pipeline_tag: reinforcement-learning"
    yield f"tags: {json.dumps(list(dict.fromkeys(tags)))}"
    if score is not None:
        yield "model-index:"
        yield f"  - name: {json.dumps(policy)}"
        yield "    results:"
        yield "      - task: {type: reinforcement-learning, name: reinforcement-learning}"
        yield f"        dataset: {{type: {json.dumps(task)}, name: {json.dumps(task)}}}"
        yield "        metrics:"
        name = json.dumps(f"score ({saved.experiment.task.score}), mean of {score.episodes} episodes of one seed")
        value = json.dumps(str(score).replace("±", "+/-"))
        yield f"          - {{type: mean_score, name: {name}, value: {value}, verified: false}}"
    yield "---"


def use(contract: Mapping[str, Any], policy: str) -> Iterator[str]:
    """How to load the policy and act."""
    observation = literal(contract["observations"]["arrays"])
    yield "```python"
    yield "import numpy as np"
    yield "import calql.export"
    yield ""
    yield f"policy = calql.export.load({json.dumps(policy)})  # the contract is policy.contract"
    yield f"observation = {observation}  # as the environment gives it"
    yield f"action = policy.act(observation)  # {contract['actions']['shape']} float32 in the environment's own unit"
    yield "```"
    yield ""
    if policy.endswith(".npz"):
        reader = Path(policy).with_suffix(".py")
        yield f"Without calql: `from {reader.stem} import NumpyPolicy`; `{reader}`, which `calql export` writes beside"
        yield "the policy, needs NumPy alone."
    yield f"To collect episodes at a fixed rate: `calql act {policy} --out episodes`."


def literal(arrays: Sequence[Mapping[str, Any]]) -> str:
    """Python for an observation of zeros."""
    tree: dict[str, Any] = {}
    for array in arrays:
        zeros = f"np.zeros({tuple(array['shape'])}, np.{array['dtype']})"
        if not array["path"]:
            return zeros
        branch = tree
        for key in array["path"][:-1]:
            branch = branch.setdefault(key, {})
        branch[array["path"][-1]] = zeros

    def text(value: Any) -> str:
        if isinstance(value, str):
            return value
        return "{" + ", ".join(f"{json.dumps(key)}: {text(inner)}" for key, inner in value.items()) + "}"

    return text(tree)


def exchanged(contract: Mapping[str, Any]) -> Iterator[str]:
    """Observations, actions, rate."""
    yield "| | |"
    yield "|---|---|"
    unit = contract["observations"]["unit"].partition(":")[0]
    for array in contract["observations"]["arrays"]:
        yield f"| `{array['name']}` | {array['dtype']} {array['shape']}, {unit} |"
    actions = contract["actions"]
    names = f", {', '.join(actions['names'])}" if actions["names"] else ""
    yield f"| action | {actions['dtype']} {actions['shape']}{names}, from {actions['low']} to {actions['high']} |"
    rate = contract["rate_hz"]
    yield f"| rate | {UNKNOWN if rate is None else f'{rate:g} Hz'} |"
    yield f"| horizon | {contract['task']['horizon']} steps |"


def data(saved: Saved) -> Iterator[str]:
    """The data set and its fingerprint."""
    about, uri = saved.raw["data"], saved.experiment.data.uri
    if uri is None:
        yield "No recorded data."
        return
    size = [f"{about[name]:,} {name}" for name in ("episodes", "transitions") if name in about]
    yield f"`{uri}`" + (f": {', '.join(size)}" if size else "") + f"; fingerprint `{saved.fingerprint or UNKNOWN}`."


def results(saved: Saved, run: RunDir, score: Score | None, step: int) -> Iterator[str]:
    """What the run measured, up to the gradient step of the export."""
    task, measured = saved.experiment.task, saved.experiment.measurement
    if score is None:
        yield "The run did not measure a score."
        return
    when = "" if score.step == step else f" at gradient step {score.step}, the last evaluation before this checkpoint"
    told = "standard error over episodes"
    if task.score == "success":
        low, high = score.interval()
        told += f"; Wilson's 95 % interval of the success rate: {low:.2f} to {high:.2f}"
    kind = "deterministic" if measured.eval_from == "env" else "online"
    yield f"Score (`{task.score}`){when}: **{score}** ({told}), from {score.episodes} {kind} episodes during the run."
    yield f"This is one seed ({saved.experiment.seed}); it does not tell how much seeds differ."
    summary = run.path / "summary.json"
    found = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    rows = [(name, found.get(key)) for name, key in SUMMARY]
    if any(value is not None for _, value in rows):
        yield ""
        yield "| of the whole run | |"
        yield "|---|---|"
        for name, value in rows:
            if value is not None:
                yield f"| {name} | {value:.3f} |"


SUMMARY = (
    ("score before fine-tuning", "score_before"),
    ("score after fine-tuning", "score_after"),
    ("regret (1 − mean score during fine-tuning)", "regret"),
    ("dip (largest loss in the first fifth of fine-tuning)", "dip"),
    ("the dip that a policy which never changes would show by chance", "chance_dip"),
)


def method(saved: Saved, title: str) -> Iterator[str]:
    """The method, and its settings that differ from the paper's."""
    phases = ", then ".join(
        f"{type(phase.algorithm).__name__} ({name})"
        for name, phase in (("pre-training", saved.experiment.pretrain), ("fine-tuning", saved.experiment.finetune))
        if phase is not None
    )
    yield f"{title} (`{saved.experiment.method}`): {phases}."
    differs = saved.raw.get("differs_from_paper")
    if differs is None:
        yield "The run does not record how its settings differ from the paper's."
        return
    if not differs:
        yield "All settings are those of the paper's experiments (`--scale paper`)."
        return
    yield "Settings that differ from `--scale paper`:"
    yield ""
    yield "| option | here | paper |"
    yield "|---|---|---|"
    for name, values in differs.items():
        yield f"| `{name}` | {shown(values['here'])} | {shown(values['paper'])} |"


def shown(value: Any) -> str:
    """A setting in a cell of a table."""
    text = json.dumps(value) if not isinstance(value, float) or math.isfinite(value) else str(value)
    return f"`{text}`".replace("|", "\\|")


LIMITS = """\
* For research on {task}, and for comparisons.
  It was trained and evaluated in that environment alone; nothing is known of others, or of a real machine.
* It acts from the current observation, without exploration and without a measure of its own uncertainty. Observations
  unlike those of its data and its training give actions of no known quality.
* Actions are within the bounds above. {further}
* It is no safety system: on a machine, use limits in hardware, supervision and an emergency stop.
* The file acts as the trained policy does, but for {error:.2g} at the worst of {states} states of {source}."""


def limits(contract: Mapping[str, Any]) -> str:
    """What the policy is for, and what it is not."""
    task, check = contract["task"], contract["check"]
    held = {name: value for name, value in contract["actions"]["limits"].items() if value is not None}
    further = f"Further limits (`{json.dumps(held)}`) are held by `calql act`, not by the file."
    return LIMITS.format(
        task=f"`{task['id']}`" + (f" (`{task['env']}`)" if task["env"] else ""),
        further=further if held else "The contract states no further limits (as of their change).",
        error=check["worst_error"],
        states=check["states"],
        source=check["from"],
    )


def again(saved: Saved, contract: Mapping[str, Any], policy: str, licence: str) -> Iterator[str]:
    """The commands, commit and versions."""
    made = contract["provenance"]
    starts = saved.raw.get("starts", [saved.raw])
    for start in starts:
        yield f"    {start.get('command', UNKNOWN)}"
    stated = [] if licence == UNKNOWN else ["--license", licence]
    export = ["calql", "export", made["run"], "--step", str(made["step"]), "--out", policy, *stated]
    yield f"    {shlex.join(export)}"
    yield ""
    last = starts[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last.get("packages", {}).items())
    yield f"Commit `{made['git_commit'] or UNKNOWN}`; seed {made['seed']}; gradient step {made['step']} (checkpoint"
    yield f"`{made['checkpoint_sha256']}`); on {last.get('cpu') or UNKNOWN}, {last.get('device', UNKNOWN)}; Python"
    yield f"{last.get('python', UNKNOWN)}; {versions or 'versions ' + UNKNOWN}."
