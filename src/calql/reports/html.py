"""The page: one self-contained HTML file. Every function returns markup; all text is escaped here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from calql.reports.load import Run, differing, settings
from calql.reports.prose import CSS, GLOSSARY
from calql.reports.style import HERO, INK, PAPER, styles
from calql.reports.tables import ALL_TASKS, HERO_BETTER, MEASURES, Estimate, Row, best, counted, text, versus_text
from calql.reports.verdict import border, calibration, unsteady, verdict, wins

BORDERS = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashed"}


class Drawn(NamedTuple):
    """A figure of the page."""

    task: str
    """ALL_TASKS is one, too."""
    title: str
    caption: str
    svg: str
    folded: bool = False
    """Shown when it is asked for."""


def page(runs: Sequence[Run], rows: Sequence[Row], figures: Sequence[Drawn]) -> str:
    """The whole report."""
    titles = {run.task: run.record.task_title for run in runs}
    tasks = list(titles.values())
    methods = list(dict.fromkeys(run.label for run in runs))
    groups = ({ALL_TASKS: ALL_TASKS} if any(row.task == ALL_TASKS for row in rows) else {}) | titles
    sections = []
    for group, name in groups.items():
        mine = [run for run in runs if group in (ALL_TASKS, run.task)]
        heading = f'<h2 id="{slug(group)}">{escape(name)}</h2>' if len(tasks) > 1 else ""
        sections.append(_section(group, heading, mine, rows, figures))
    links = "".join(f'<a href="#{slug(group)}">{escape(name)}</a>' for group, name in groups.items())
    title = _listing(methods) if len(methods) < 5 else f"{methods[0]} and {len(methods) - 1} other methods"
    title += f" on {_listing(tasks) if len(tasks) < 4 else f'{len(tasks)} tasks'}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_facts(runs, methods))}</p>',
        f"<nav>{links}</nav>" if len(tasks) > 1 else "",
        *sections,
        "<h2>Glossary</h2><dl>",
        *(f"<dt>{escape(term)}</dt><dd>{escape(meaning)}</dd>" for term, meaning in GLOSSARY.items()),
        "</dl>",
    ]
    return document(title, "\n".join(body))


def document(title: str, body: str) -> str:
    """A self-contained HTML file with this markup as its body."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{CSS}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _section(group: str, heading: str, runs: Sequence[Run], rows: Sequence[Row], figures: Sequence[Drawn]) -> str:
    """Verdict, table, figures and details of one task, or verdict, table and figures of all tasks."""
    mine = [row for row in rows if row.task == group]
    told = [wins(rows)] if group == ALL_TASKS else [calibration(runs), border(runs), unsteady(runs)]
    why = " ".join(filter(None, told))
    parts = [
        heading,
        f'<div class="verdict"><p>{escape(verdict(mine, runs))}</p>{f"<p>{escape(why)}</p>" if why else ""}</div>',
        _method_table(mine, runs),
    ]
    for number, (_, title, caption, svg, folded) in enumerate(figure for figure in figures if figure.task == group):
        drawing = inline(svg, f"{slug(group)}-{number}-", title)
        shown = f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
        parts.append(folding(title, shown) if folded else f"<h3>{escape(title)}</h3>{shown}")
    if group != ALL_TASKS:
        parts += [folding("Every run", _seed_table(runs)), folding("Settings", _settings(runs))]
        parts += [folding("Data, versions and code", _provenance(runs)), folding("Commands", _commands(runs))]
    return "\n".join(parts)


def _facts(runs: Sequence[Run], methods: Sequence[str]) -> str:
    """One line of counts."""
    seeds = {len({run.seed for run in runs if run.label == method}) for method in methods}
    unfinished = sum(not run.done for run in runs)
    parts = [
        counted(len(methods), "method") + (f" ({_listing(methods)})" if len(methods) > 4 else ""),
        (f"{min(seeds)} to " if len(seeds) > 1 else "") + counted(max(seeds), "seed") + " each",
        counted(len(runs), "run") + (f", {unfinished} of them unfinished" if unfinished else ""),
        *(f"scale {scale}" for scale in sorted({run.record.scale for run in runs if run.record.scale})),
    ]
    return " · ".join(parts)


def _method_table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The main table: point above, range or interval below; in bold what is settled to be the best of its column."""
    looks = styles({run.label: run.method for run in runs})
    columns = [key for key in MEASURES if any(row.measures[key] for row in rows)]
    winners = {key: best(rows, key) for key in ("score_before", "score_after", "regret")}
    compared = any(row.versus for row in rows)
    body = []
    for row in rows:
        colour, dashes = looks[row.label]
        swatch = f'<span class="swatch" style="border-color:{colour};border-top-style:{BORDERS[dashes]}"></span>'
        notes = [row.spread, f"{row.unfinished} unfinished" if row.unfinished else ""]
        small = "".join(f"<small>{note}</small>" for note in notes if note)
        cells = [f"<td>{swatch}{escape(row.label)}</td><td>{row.seeds}{small}</td>"]
        for key in columns:
            point, ends = text(key, row.measures[key])
            bold = ' class="best"' if row is winners.get(key) else ""
            cells.append(f"<td{bold}>{escape(point)}{f'<small>{escape(ends)}</small>' if ends else ''}</td>")
        cells += [f"<td>{escape(versus_text(row.versus))}</td>"] if compared else []
        accent = ' class="hero"' if row.method == HERO else ""
        body.append(f"<tr{accent}>{''.join(cells)}</tr>")
    names = ["method", "seeds", *(MEASURES[key] for key in columns), *([HERO_BETTER] if compared else [])]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    caption = "IQM over finished seeds, lowest regret first; below it, (a to b) is the range of the seeds and [a, b] a "
    caption += "95 % interval, which takes five."
    if any(winners.values()):
        caption += " Bold: better than each of the others (permutation tests over seeds, p < 0.05)."
    errors = [value for run in runs for value in run.curve("online", "score_sem")[1]]
    if errors:
        caption += f" One evaluation by itself has a standard error of about {np.median(errors):.2f}."
    table = f'<div class="scroll"><table><tr>{head}</tr>{"".join(body)}</table></div>'
    return f'{table}<p class="soft note">{caption}</p>'


def _seed_table(runs: Sequence[Run]) -> str:
    """One row a run."""
    lines = []
    for run in runs:
        summary = run.summary
        seconds = summary["wall_s"]
        alone = {key: None if (x := summary[key]) is None else Estimate(x, x, x) for key in MEASURES}
        numbers = [text(key, value)[0] for key, value in alone.items()]
        wall = "–" if seconds is None else f"{seconds / 60:.1f}"
        lines.append([run.label, run.seed, *numbers, wall, "yes" if run.done else "no", run.name])
    return table_of(["method", "seed", *MEASURES.values(), "wall time [min]", "finished", "folder"], lines, "runs")


def _settings(runs: Sequence[Run]) -> str:
    """What differs between methods, what differs from the paper, and what is common."""
    chosen = {run.label: settings(run) for run in runs}
    names = differing(list(chosen.values()))
    out = []
    if names:
        lines = [[name, *(_value(chosen[label].get(name)) for label in chosen)] for name in names]
        out.append("<h3>Different between methods</h3>" + table_of(["setting", *chosen], lines))
    deviations: dict[tuple, dict[str, None]] = {}
    for run in runs:
        for name, pair in run.record.differs.items():
            deviations.setdefault((name, _value(pair.get("paper")), _value(pair.get("here"))), {})[run.label] = None
    lines = [[*key, "all" if len(labels) == len(chosen) else ", ".join(labels)] for key, labels in deviations.items()]
    if lines:
        out.append("<h3>Different from the paper</h3>")
        out.append(table_of(["setting", "paper", "here", "methods"], lines, "left"))
    common = next(iter(chosen.values()))
    lines = [[name, _value(value)] for name, value in common.items() if name not in names]
    return "".join([*out, "<h3>Common to all</h3>", table_of(["setting", "value"], lines, "left")])


def _provenance(runs: Sequence[Run]) -> str:
    """Provenance of the numbers: every distinct value, and if there are several, the number of runs with each."""
    facts: dict[str, list[str]] = {}
    for run in runs:
        data = {f"data {name}": (value,) for name, value in run.record.data.items()}
        for name, values in (data | run.record.about).items():
            facts.setdefault(name, []).append(", then ".join(map(_value, values)))
    lines = []
    for name, values in facts.items():
        kinds = list(dict.fromkeys(values))
        several = "; ".join(f"{kind} ({counted(values.count(kind), 'run')})" for kind in kinds)
        lines.append([name, kinds[0] if len(kinds) == 1 else several])
    return table_of(["what", "value"], lines, "left")


def _commands(runs: Sequence[Run]) -> str:
    """The recorded commands of every run."""
    lines = [str(line) for run in runs for line in run.record.commands or [f"# {run.name}: not recorded"]]
    return "<pre>" + escape("\n".join(lines)) + "</pre>"


def inline(svg: str, prefix: str, title: str) -> str:
    """An SVG for use inside the page: themed ink, no background, ids that are unique on the page."""
    svg = svg[svg.index("<svg") :]
    svg = svg.replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def folding(title: str, body: str) -> str:
    """Markup that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def table_of(head: Sequence[str], lines: Iterable[Sequence[Any]], kind: str = "") -> str:
    """A table; `kind`: its class in the style sheet."""

    def row(tag: str, cells: Sequence[Any]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row("td", line) for line in lines)
    return f'<div class="scroll"><table class="{kind}">{row("th", head)}{body}</table></div>'


def _value(value: Any) -> str:
    """A setting as text; a missing one is a dash."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def _listing(names: Sequence[str]) -> str:
    """Names joined as in a sentence: a, b and c."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def slug(name: str) -> str:
    """A name as an anchor or file name, which may have 255 bytes with its ending; other long names stay others."""
    short = re.sub(r"[^\w.+-]+", "-", name)
    return short if len(short.encode()) <= 120 else f"{short[:50]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
