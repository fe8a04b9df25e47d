"""`calql completions`: the tab key in a shell."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from calql import files

if TYPE_CHECKING:
    from tyro.extras import SubcommandApp


def completions_of(app: SubcommandApp) -> Callable[..., int]:
    """The command for the commands of this app."""

    def completions(
        shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional],
        out: Path | None = None,
    ) -> int:
        """Write a script by which a shell completes commands, options and their values.

        Example: source <(calql completions bash)

        Args:
            shell: Your shell. For bash, ~/.local/share/bash-completion/completions/calql is read by every new shell;
                for zsh, _calql in a folder of $fpath; for fish, ~/.config/fish/completions/calql.fish.
            out: File to write to; by default it is printed.
        """
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            app.cli(prog="calql", args=["--tyro-write-completion", shell, "-"])
        if out is None:
            print(text.getvalue(), end="")
        else:
            files.write(out.expanduser(), text.getvalue())
            print(f"wrote {out}; every new {shell} that reads it completes calql's commands")
        return 0

    return completions
