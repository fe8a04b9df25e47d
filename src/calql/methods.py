"""THE table of methods: update rule × phases × data mix. A method id appears here and nowhere else."""

from __future__ import annotations

import dataclasses

from calql.algorithms import BC, CQL, SAC, CalQL
from calql.replay.buffer import UNION
from calql.tasks import nearest


@dataclasses.dataclass(frozen=True)
class Method:
    """One row. Settings such as learning rates belong to the task and the scale, not to the method."""

    id: str
    """Stable name, used on the command line and in results."""
    title: str
    """Name in tables and figures."""
    offline: type[SAC] | None
    """Update rule of pre-training; None: no offline phase, the online phase starts from random networks."""
    online: type[SAC] | None
    """Update rule of fine-tuning; None: no online phase."""
    mixing: float | None = None
    """Offline share of an online batch: in [0, 1], or −1 for the union of both; None: the task's value."""
    summary: str = ""
    """One line for listings."""


METHODS: dict[str, Method] = {
    method.id: method
    for method in [
        Method("cal-ql", "Cal-QL", CalQL, CalQL, summary="calibrated Q-learning (Eq. 5.1)"),
        Method("cql", "CQL", CQL, CQL, summary="conservative Q-learning, before and after (Eq. 3.1)"),
        Method("cql-sac", "CQL+SAC", CQL, SAC, summary="CQL pre-training, then SAC on both data"),
        Method("hybrid", "Hybrid RL", None, SAC, summary="SAC from scratch, fixed share of offline data"),
        Method("sac-offline", "SAC + offline data", None, SAC, UNION, "SAC from scratch on the union of both data"),
        Method("sac", "SAC", None, SAC, 0.0, "SAC from scratch on its own experience"),
        Method("bc", "BC", BC, None, summary="behaviour cloning; no fine-tuning"),
    ]
}


def get_method(name: str) -> Method:
    """The row of that id. Raises InputError, with the nearest names, where there is none."""
    if name not in METHODS:
        raise nearest(name, METHODS, "method")
    return METHODS[name]
