"""How a method looks, the same in every figure and every report."""

from __future__ import annotations

HERO = "cal-ql"
"""The method that every other one is compared with, and that stands out in the figures."""

# Okabe and Ito's colour-blind-safe hues; relatives share a hue and differ in the dashes.
STYLES: dict[str, tuple[str, str, str]] = {
    "cal-ql": ("Cal-QL", "#D55E00", "-"),
    "cql": ("CQL", "#0072B2", "-"),
    "iql": ("IQL", "#009E73", "-"),
    "cql-sac": ("CQL+SAC", "#CC79A7", "-"),
    "awac": ("AWAC", "#E69F00", "-"),
    "o3f": ("O3F", "#56B4E9", "-"),
    "sac": ("SAC", "#808080", "-"),
    "sac-offline": ("SAC + offline data", "#808080", "--"),
    "hybrid": ("Hybrid RL", "#CC79A7", "--"),
    "odt": ("ODT", "#009E73", "--"),
    "td3-bc": ("TD3+BC", "#56B4E9", "--"),
    "rlpd": ("RLPD", "#0072B2", "--"),
    "cal-ql-utd20": ("Cal-QL, UTD 20", "#D55E00", "--"),
    "bc": ("BC", "#808080", ":"),
}
"""Method id → (name, colour, dashes)."""
DASHES = ("-", "--", ":", "-.")


def method_label(method: str) -> str:
    """The name people read; an unknown method keeps its id."""
    return STYLES.get(method, (method,))[0]


def styles(methods: dict[str, str]) -> dict[str, tuple[str, str]]:
    """{label: method id} → {label: (colour, dashes)}; variants of a method share its hue and differ in the dashes."""
    unknown = sorted({method for method in methods.values() if method not in STYLES})
    hues = list(dict.fromkeys(colour for _, colour, _ in STYLES.values()))[::-1]
    looks, used = {}, {}
    for label, method in methods.items():
        colour, dashes = STYLES[method][1:] if method in STYLES else (hues[unknown.index(method) % len(hues)], "-.")
        variant = used[method] = used.get(method, -1) + 1
        looks[label] = colour, DASHES[(DASHES.index(dashes) + variant) % len(DASHES)]
    return looks
