"""Writes the pages of docs/tasks: one task's page with measurements and figures of its data, or the text of all pages.

python tools/cards [TASK] [--out docs/tasks]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from task_card import write_card, write_pages

from calql.cli.common import build_missing
from calql.paper.tasks import get_task
from calql.types import InputError

DOCS = Path(__file__).resolve().parents[2] / "docs" / "tasks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write pages; returns 2 if a task or folder cannot be used."""
    parser = argparse.ArgumentParser("python tools/cards", description="Write the pages of docs/tasks.")
    parser.add_argument("task", nargs="?", help="measure and draw this task's data; by default only write all pages")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of the pages")
    asked = parser.parse_args(arguments)
    try:
        if asked.task is None:
            write_pages(asked.out)
            print(f"rewrote every page of {asked.out}")
        else:
            task = get_task(asked.task)
            build_missing(task.data, task)
            print(f"wrote {write_card(asked.task, asked.out)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
