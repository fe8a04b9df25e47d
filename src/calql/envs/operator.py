"""Waiting for the person at the machine."""

from __future__ import annotations

import gymnasium


def wait_for_enter(env: gymnasium.Env) -> None:
    """Before an episode: wait until the operator presses Enter.

    Raises RuntimeError if she types q first, or if there is no terminal; the run then stops with its work saved.
    """
    print("ready for the next episode? Enter begins it, q and Enter stop the run", flush=True)
    try:
        answer = input()
    except EOFError:
        raise RuntimeError("there is no terminal to wait for Enter at") from None
    if answer.strip().lower() == "q":
        raise RuntimeError("stopped by the operator")
