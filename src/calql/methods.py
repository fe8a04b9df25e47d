"""What a method is: an update rule for each phase, and the options that belong to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from calql.algorithms import UpdateRule


@dataclasses.dataclass(frozen=True)
class Method:
    """One row. Settings such as learning rates belong to the task and the scale, not to the method."""

    id: str
    """Stable name, used on the command line and in results."""
    title: str
    """Name in tables and figures."""
    offline: type[UpdateRule] | None
    """Update rule of pre-training; None: no offline phase, the online phase starts from random networks."""
    online: type[UpdateRule] | None
    """Update rule of fine-tuning; None: no online phase."""
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Options that belong to the method, by where they hold: "" everywhere, `antmaze` in that domain of tasks, `paper`
    at that scale, `paper/antmaze` where both are so. They override what the task's row says."""
    summary: str = ""
    """One line for listings."""

    def settings_at(self, scale: str, domain: str) -> list[tuple[str, Mapping[str, Any]]]:
        """(where they hold, the method's options there) for a task of that domain at that scale; later ones count."""
        places = dict.fromkeys(("", domain, scale, f"{scale}/{domain}"))
        return [(f" in {place}" if place else "", self.settings[place]) for place in places if place in self.settings]
