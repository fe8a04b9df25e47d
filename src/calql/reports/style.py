"""Colours and dashes of methods, the same in every figure and report: set by the place in the table of methods."""

from __future__ import annotations

import matplotlib
from matplotlib.colors import to_hex

from calql.paper.methods import DEFAULT_METHOD, METHODS

HERO = DEFAULT_METHOD
"""The method that all others are compared with, and that is emphasised in figures."""
# Okabe and Ito's colour-blind-safe hues; the first is only for the hero, the others are reused with other dashes.
HERO_COLOUR, *COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
DASHES = ("-", "--", ":", "-.")


def method_label(method: str) -> str:
    """Display name of a method; a method that is not in the table keeps its id."""
    return METHODS[method].title if method in METHODS else method


def shades(count: int) -> list[str]:
    """Perceptually uniform colours from dark to light (Matplotlib's viridis without its faint end)."""
    ramp = matplotlib.colormaps["viridis"]
    return [to_hex(ramp(0.88 * i / max(count - 1, 1))) for i in range(count)]


def styles(methods: dict[str, str]) -> dict[str, tuple[str, str]]:
    """{label: method id} → {label: (colour, dashes)}; variants of a method share its hue and differ in the dashes.

    If all are variants of one method, they go from dark to light in the given order.
    """
    if len(methods) > 1 and len(set(methods.values())) == 1:
        return {label: (colour, DASHES[0]) for label, colour in zip(methods, shades(len(methods)), strict=True)}
    order = [*METHODS, *sorted(set(methods.values()) - set(METHODS))]
    looks, variants = {}, dict.fromkeys(order, 0)
    for label, method in methods.items():
        lap, place = divmod(order.index(method) - 1, len(COLOURS))
        colour, lap = (HERO_COLOUR, 0) if method == HERO else (COLOURS[place], lap)
        looks[label] = colour, DASHES[(lap + variants[method]) % len(DASHES)]
        variants[method] += 1
    return looks
