"""Runs → tables, figures, report.html and the raw rows behind them, in one folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from calql.reports import figures, tables
from calql.reports.html import Drawn, page, slug
from calql.reports.load import Run, labelled, load_runs
from calql.reports.stored import run_table
from calql.sweeps import Comparison
from calql.tasks import nearest
from calql.types import InputError

Drawing = tuple[str, Callable[[Sequence[Run]], Figure | None], str, str]
"""(file name, drawing function, title, caption); in the caption, {lines} and {spread} explain how seeds are shown."""
LINES = "Thick: IQM over finished seeds; thin: single seeds (dotted: unfinished)"
ONE_SCALE = "Methods that learn from rewards on another scale, or with another discount, are left out."
DRAWINGS: list[Drawing] = [
    (
        "overview",
        figures.overview_figure,
        "Before and after",
        "Dots: IQM over finished seeds{spread}. Where the paper has the task, ◇ is its regret, on its own budget.",
    ),
    ("score", figures.score_figure, "Learning curves", "Score of the deterministic policy. {lines}."),
    (
        "q",
        figures.q_figure,
        "Mean Q against the return of the data",
        "A Q that starts fine-tuning far from the scale of the returns is corrected there first, and the policy pays "
        f"for it. {ONE_SCALE} {{lines}}.",
    ),
    (
        "slice",
        figures.slice_figure,
        "Q over actions at one state",
        "The first state of an evaluation episode, right after pre-training. Lines: mean Q of the critics; dots: mean "
        "return of ten episodes that begin with that action and go on with actions sampled from the method's policy "
        "(band: two standard errors); rings: the return where its deterministic policy goes on. Below both, a critic "
        f"underestimates its policy. {ONE_SCALE}",
    ),
    (
        "bounding",
        figures.bounding_figure,
        "Bounding rate",
        "Share of the policy's actions with Q below the reference value. At 0, calibration does nothing. {lines}.",
    ),
]
PROFILE: Drawing = (
    "profile",
    figures.profile_figure,
    "Performance profile",
    "Of all runs, the share that does better than a threshold: higher is better, everywhere on the axis.",
)
TRAINING: Drawing = (
    "training",
    figures.training_figure,
    "Training metrics",
    "Means over intervals of gradient steps (train.csv); dashed: the end of pre-training. {lines}.",
)
"""Of each method on each task, folded."""


def write_report(
    paths: Iterable[Path | str],
    out: Path | str,
    comparisons: Sequence[Comparison] = (),
    only: Collection[str] | None = None,
) -> Path:
    """Read every run in or below `paths`, or those named `only`; write the report into `out`; return its page's path.

    `comparisons` replace the curves of all runs, on the tasks of their runs. Besides the page:
    table.{csv,md,tex}, runs.csv, figures/<task>-<name>.{png,svg}, training metrics among them unless there are
    comparisons, and the run table (see `calql.reports.stored`), from
    which the report can be made again. Raises InputError for runs that cannot be used, for unknown drawings, and for
    an `out` that cannot be written.
    """
    known = [name for name, *_ in DRAWINGS]
    for name in (name for comparison in comparisons for name in comparison.draws):
        if name not in known:
            raise nearest(name, known, "drawing")
    runs = load_runs(paths, only)
    rows = tables.method_rows(runs)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = list(_draw(runs, comparisons, out / "figures"))
        files = {
            "table.csv": tables.to_csv(rows),
            "table.md": tables.to_markdown(rows),
            "table.tex": tables.to_latex(rows),
            "runs.csv": tables.dicts_to_csv(tables.seed_rows(runs)),
            "report.html": page(runs, rows, drawn),
            **run_table([run.stored for run in runs]),
        }
        for name, content in files.items():
            (out / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    return out / "report.html"


def _draw(runs: Sequence[Run], comparisons: Sequence[Comparison], folder: Path) -> Iterator[Drawn]:
    """Draw and save every figure that has data."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    plan = [(tables.ALL_TASKS, runs, PROFILE)] if len(tasks) > 1 else []
    for task in tasks:
        mine = [run for run in runs if run.task == task]
        chosen = list(_compared(mine, comparisons))
        plan += [(task, mine, drawing) for drawing in (DRAWINGS[:1] if chosen else DRAWINGS)]
        plan += [(task, *one) for one in chosen] or [(task, *one) for one in _by_method(mine)]
    for task, group, (name, draw, title, caption) in plan:
        figure = draw(group)
        if figure is not None:
            svg = figures.save(figure, folder / slug(f"{task}-{name}"))
            note = figures.spread_note(group)
            lines = LINES + (f"; band: {note}" if note else "")
            said = caption.format(lines=lines, spread=f"; bars: {note}" if note else "")
            yield Drawn(task, title, said, svg, folded=draw is figures.training_figure)


def _by_method(runs: Sequence[Run]) -> Iterator[tuple[list[Run], Drawing]]:
    """The training metrics of every method."""
    name, draw, title, caption = TRAINING
    for label in dict.fromkeys(run.label for run in runs):
        group = [run for run in runs if run.label == label]
        yield group, (f"{name}-{label}", draw, f"{title}: {label}", caption)


def _compared(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Iterator[tuple[list[Run], Drawing]]:
    """The drawings of every comparison with some of these runs, under unique names."""
    for comparison in comparisons:
        places = {path.resolve() for path in comparison.run_dirs}
        group = labelled([run for run in runs if run.stored.path.resolve() in places])
        for name, draw, title, caption in DRAWINGS:
            if group and name in comparison.draws:
                yield group, (f"{comparison.title}-{name}", draw, f"{comparison.title}: {title}", caption)
