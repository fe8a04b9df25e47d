"""Updates what the documentation repeats: line numbers of links, tables of methods and options, help, rows of results.

python docs/keep.py [--check]      rewrite what has changed, or fail if something has
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
LINK = re.compile(r"\[`(?:[\w.]*\.)?(\w+)`\]\(([^)#]+\.py)#L(\d+)\)")
"""[`Class.name`](../src/…/file.py#L12)"""
BLOCK = re.compile(r"(<!-- (methods|options|commands|names): .*? -->\n).*?(<!-- end -->)", re.DOTALL)
"""<!-- options: anything -->"""
ROWS = re.compile(r"(<!-- rows of (\S+): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
"""<!-- rows of ../results/…/table.md: Cal-QL -->, or all -->"""
SHARES = {-1.0: "union", 0.0: "none", 0.5: "½", 0.25: "¼", 0.2: "⅕"}


def line_of(name: str, source: Path) -> int:
    """The first line that defines the function, class or field. Raises ValueError if there is none."""
    defined = re.compile(rf"\s*(?:def |class )?{name}\s*[(:=\[]")
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        if defined.match(line):
            return number
    raise ValueError(f"{source} defines no '{name}'")


def table_of_methods() -> str:
    """Method × domain of tasks: update rules, updates per step, and the offline share of a batch, at `paper` scale."""
    from calql.paper.methods import METHODS
    from calql.paper.tasks import TASKS
    from calql.training.options import experiment

    first = {task.domain: task.id for task in reversed(TASKS.values())}
    domains = list(dict.fromkeys(task.domain for task in TASKS.values()))
    head = ["method", "pre-training", "fine-tuning", "updates per step", *(f"data in {domain}" for domain in domains)]
    lines = [head, ["---"] * len(head)]
    for name, method in METHODS.items():
        phases = [experiment(first[domain], name, "paper").finetune for domain in domains]
        rules = ["–" if rule is None else rule.__name__ for rule in (method.offline, method.online)]
        each = phases[0] and phases[0].updates_per_episode
        updates = "–" if phases[0] is None else f"{each} per episode" if each else str(phases[0].utd)
        shares = ["–" if phase is None else SHARES.get(phase.mixing, f"{phase.mixing:g}") for phase in phases]
        lines.append([f"[`{name}`](docs/methods/{name}.md)", *rules, updates, *shares])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def block(name: str) -> str:
    """What stands between `<!-- name: … -->` and `<!-- end -->`."""
    import reference  # beside this file

    writers = {
        "methods": table_of_methods,
        "options": reference.options,
        "commands": reference.commands,
        "names": reference.names,
    }
    return writers[name]()


def rows_of(table: Path, wanted: str) -> str:
    """The head of a Markdown table with the rows that have the cell, or "the cell (option=value)"; or `all` rows."""
    head, rule, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    cell = re.compile(rf"\| {re.escape(wanted)}(?: \([^|]*=[^|]*\))? \|")
    chosen = [row for row in rows if wanted == "all" or cell.search(row)]
    if not chosen:
        raise ValueError(f"{table} has no row of '{wanted}'")
    return "".join([head, rule, *chosen])


def updated(page: Path) -> str:
    """The page as it should be."""

    def with_line(found: re.Match) -> str:
        name, target, old = found.groups()
        return found[0].replace(f"#L{old})", f"#L{line_of(name, page.parent / target)})")

    text = LINK.sub(with_line, page.read_text(encoding="utf-8"))
    text = ROWS.sub(lambda found: found[1] + rows_of(page.parent / found[2], found[3]) + found[4], text)
    return BLOCK.sub(lambda found: found[1] + block(found[2]) + found[3], text)


def main() -> int:
    """Rewrite the pages, or check them."""
    pages = [DOCS.parent / "README.md", DOCS.parent / "results" / "README.md", *sorted(DOCS.rglob("*.md"))]
    texts = {page: updated(page) for page in pages}
    wrong = [page for page, text in texts.items() if text != page.read_text(encoding="utf-8")]
    for page in wrong:
        print(f"{page}: {'out of date; run python docs/keep.py' if '--check' in sys.argv else 'updated'}")
        if "--check" not in sys.argv:
            page.write_text(texts[page], encoding="utf-8")
    return int(bool(wrong) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
