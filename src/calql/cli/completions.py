"""`calql completions`: the tab key in a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def completions(
    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional],
    out: Path | None = None,
) -> int:
    """Write a script by which a shell completes commands, options and their values.

    Example: source <(calql completions bash)

    Args:
        shell: Your shell. For zsh, write it to a folder of $fpath: --out ~/.zfunc/_calql; for fish, to
            ~/.config/fish/completions/calql.fish.
        out: File to write to; by default it is printed.
    """
    import contextlib
    import io

    from calql import files
    from calql.cli import application

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        application().cli(prog="calql", args=["--tyro-write-completion", shell, "-"])
    if out is None:
        print(text.getvalue(), end="")
    else:
        files.write(out.expanduser(), text.getvalue())
        print(f"wrote {out}\nnext: {'exec zsh' if shell == 'zsh' else f'source {out}'}")
    return 0
