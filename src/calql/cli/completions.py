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


ZSH = """\
if [[ $funcstack[1] == _calql ]]; then
  _tyro_calql "$@"
else
  compdef _tyro_calql calql
fi
"""
"""The end of zsh's script: found in $fpath, it completes; sourced, it says who completes."""


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
                for zsh, _calql in a folder of $fpath; for fish, ~/.config/fish/completions/calql.fish. In a shell that
                runs: source <(calql completions zsh), after compinit, or calql completions fish | source.
            out: File to write to; by default it is printed.
        """
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            app.cli(prog="calql", args=["--tyro-write-completion", shell, "-"])
        script = text.getvalue()
        if shell == "zsh":
            script = script.rstrip().removesuffix('_tyro_calql "$@"') + ZSH
        if out is None:
            print(script, end="")
        else:
            files.write(out.expanduser(), script)
            print(f"wrote {out}; every new {shell} that reads it completes calql's commands")
        return 0

    return completions
