"""What a run is doing now, in one line: its newest losses, and what its newest online episodes brought."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.progress import Progress
from rich.text import Text

from calql.training.loop import Event

RECENT = 20
"""Online episodes that the line averages over."""
SHOWN = ("critic_loss", "actor_loss", "q_data")
"""Training metrics in the line, where the update rule has them."""


class Live:
    """The line, which follows the events of a run."""

    def __init__(self) -> None:
        self._episodes: deque[Mapping[str, Any]] = deque(maxlen=RECENT)
        self._metrics: dict[str, float] = {}

    def saw(self, event: Event) -> None:
        """Take account of an event."""
        if event.kind == "episode":
            self._episodes.append(event.info)
        elif event.kind == "update":
            names = [name for name in SHOWN if name in event.info]
            names = names or [name for name in event.info if name.endswith("loss")][:1]  # a rule of the user's own
            self._metrics = {name: event.info[name] for name in names}

    def __str__(self) -> str:
        parts = []
        if self._episodes:
            parts.append(f"return {np.mean([episode['return'] for episode in self._episodes]):.3g}")
            told = [episode["success"] for episode in self._episodes if episode["success"] is not None]
            parts[0] += f", success {np.mean(told):.0%}" if told else ""
            parts[0] += f" (last {len(self._episodes)})"
        return "   ".join([*parts, *(f"{name} {value:.3g}" for name, value in self._metrics.items())])


class Bars(Progress):
    """Progress bars with a line of text below."""

    below = ""

    def get_renderables(self) -> Any:
        """The bars, and the line, cut at the width of the terminal."""
        parts: list[RenderableType] = [self.make_tasks_table(self.tasks)]
        return [*parts, Text(self.below, style="dim", no_wrap=True, overflow="ellipsis")] if self.below else parts
