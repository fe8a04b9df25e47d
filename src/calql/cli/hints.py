"""The last lines of every command: what to type next, each command alone on its line."""

from __future__ import annotations

import shlex
import sys

from calql.machine import from_here, program

typed: list[str] = []
"""The arguments of this command, as `main` was given them."""


def without(option: str) -> list[str]:
    """This command again, but for an option without values."""
    return [word for word in typed if word != option]


def next_step(*arguments: object, head: str = "next: ") -> None:
    """Print the `calql` command that follows, as it must be typed in this shell."""
    print(head + shlex.join([*program(), *map(str, arguments)]), flush=True)


def or_step(*arguments: object) -> None:
    """Print another command that may follow, below `next_step`."""
    next_step(*arguments, head="or:   ")


def next_look(page: object) -> None:
    """Print the command that opens a page or an image, whatever the system."""
    print("next: " + shlex.join([from_here(sys.executable), "-m", "webbrowser", str(page)]), flush=True)
