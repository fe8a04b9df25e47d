"""The look of all figures, and colours and dashes of methods: the same in every figure and report."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.colors import to_hex

from calql.paper.methods import DEFAULT_METHOD, METHODS

HERO = DEFAULT_METHOD
"""The method that all others are compared with, and that is emphasised in figures."""
# Okabe and Ito's colour-blind-safe hues; the first is only for the hero, the others are reused with other dashes.
HERO_COLOUR, *COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
DASHES = ("-", "--", ":", "-.")
INK = "#22262b"
"""Colour of everything that is not data; the page replaces it by the text colour of its theme."""
PAPER = "#ffffff"
"""Background of the files; transparent on the page."""
LOOK: dict[Any, Any] = {
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.0,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "calql",
}
"""Matplotlib's settings while a figure is drawn, and while it is saved."""


def styles(methods: dict[str, str]) -> dict[str, tuple[str, str]]:
    """{label: method id} → {label: (colour, dashes)}; variants of a method share its hue and differ in the dashes.

    Set by the place in the table of methods. If all are variants of one method, they go from dark to light in the given
    order.
    """
    if len(methods) > 1 and len(set(methods.values())) == 1:
        ramp = matplotlib.colormaps["viridis"]  # perceptually uniform; without its faint end
        return {label: (to_hex(ramp(0.88 * i / (len(methods) - 1))), DASHES[0]) for i, label in enumerate(methods)}
    order = [*METHODS, *sorted(set(methods.values()) - set(METHODS))]
    looks, variants = {}, dict.fromkeys(order, 0)
    for label, method in methods.items():
        lap, place = divmod(order.index(method) - 1, len(COLOURS))
        colour, lap = (HERO_COLOUR, 0) if method == HERO else (COLOURS[place], lap)
        looks[label] = colour, DASHES[(lap + variants[method]) % len(DASHES)]
        variants[method] += 1
    return looks
