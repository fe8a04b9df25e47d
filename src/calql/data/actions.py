"""Recorded actions → [−1, 1], the unit inside calql: which unit a recording has, and the conversion.

The rule, for `action_unit=auto`:

1. A recording that states its action space (Minari) is converted by that space, if it equals the environment's, or if
   one of the two is ±1: then one of the two was recorded, or is run, in unit actions. Two other spaces are refused.
2. A recording that states none has the environment's unit, if all its actions lie within the environment's bounds.
   It is refused if they do not (beyond rounding), or if they look like unit actions although the bounds are wider.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from calql.data.episodes import Episodes
from calql.types import InputError
from calql.units import ActionBounds, ActionUnit

ROUNDING = 1e-3
"""Actions may lie outside the bounds by this share of them, as in recordings in half precision."""
FEW, NEAR = 0.2, 5.0
"""Entries outside may be clipped if they are at most this share, and at most this many times the largest bound."""
FULL = 0.98
"""If the largest action of every component is this to 1, the actions may be unit actions."""


def in_unit(episodes: Episodes, own: ActionBounds, stated: ActionUnit = "auto") -> Episodes:
    """The episodes with actions in [−1, 1], and `bounds` the environment's `own`; a note tells what was converted.

    Nothing is clipped. Data whose `unit_actions` is set, and data with another number of action components, are
    returned as they are. Raises InputError, naming the fix, if the actions cannot be in the unit that is `stated`.
    """
    if episodes.unit_actions or episodes.episodes[0].actions.shape[1] != own.size:
        return episodes
    by = _unit_of(episodes, own, stated)
    changed = episodes.episodes
    notes = episodes.notes
    if not by.is_unit:
        changed = tuple(e._replace(actions=by.to_unit(e.actions)) for e in changed)
        what = "the environment's unit" if by == own else "the unit of the recording"
        otherwise = " (--set action_unit=unit if they are in [−1, 1] already)" if episodes.bounds is None else ""
        notes = (*notes, f"actions are in {what}, {by}, and were mapped to [−1, 1]{otherwise}")
    elif not own.is_unit:
        notes = (*notes, f"actions are in [−1, 1], where −1 and 1 stand for the environment's bounds {own}")
    return dataclasses.replace(episodes, episodes=changed, notes=notes, bounds=own, unit_actions=True)


def _unit_of(episodes: Episodes, own: ActionBounds, stated: ActionUnit) -> ActionBounds:
    """The bounds that the recording's actions are to be converted by."""
    unit, recorded, where = ActionBounds.unit(own.size), episodes.bounds, episodes.uri
    if stated != "auto":
        return own if stated == "env" else unit
    by = own if recorded is None else recorded
    if by != own and not (by.is_unit or own.is_unit):
        raise InputError(
            f"{where}: its actions were recorded in {by}, the environment takes {own}; use the environment that it was "
            "recorded in, or state the unit: --set action_unit=env, or action_unit=unit for actions in [−1, 1]"
        )
    actions = np.concatenate([e.actions for e in episodes.episodes])
    largest, beyond = abs(actions).max(axis=0), by.beyond(actions)
    if beyond.max() > ROUNDING:
        share, found = float((beyond > ROUNDING).mean()), ActionBounds(actions.min(axis=0), actions.max(axis=0))
        whose, fix = "environment" if by == own else "recording", _fix(by, own, largest, share, beyond)
        raise InputError(
            f"{where}: {share:.1%} of the action entries lie outside the bounds {by} of the {whose} (they lie in "
            f"{found}); {fix}"
        )
    wider = np.maximum(-own.low, own.high) > 1.0 + ROUNDING
    if recorded is None and wider.all() and ((largest >= FULL) & (largest <= 1.0 + ROUNDING)).all():
        raise InputError(
            f"{where}: the largest action of every component is 1, and the environment takes {own}: the unit cannot be "
            "told; state it: --set action_unit=unit if −1 and 1 stand for these bounds, else action_unit=env"
        )
    return by


def _fix(by: ActionBounds, own: ActionBounds, largest: np.ndarray, share: float, beyond: np.ndarray) -> str:
    """What to do about actions outside the bounds that they should be in."""
    if not by.is_unit and (largest <= 1.0 + ROUNDING).all():
        return "if −1 and 1 stand for these bounds: --set action_unit=unit"
    if share <= FEW and beyond.max() <= NEAR - 1.0 and (by == own or by.is_unit):
        name = "env" if by == own else "unit"
        return f"if the environment clips such commands, clip them here, too: --set action_unit={name}"
    return (
        "convert the log, or let the environment take the log's unit, gymnasium.wrappers.RescaleAction(env, low, high) "
        "with the limits of the machine in that unit, and add --set action_unit=env"
    )
