"""Run directories in; tables, figures and one self-contained HTML page out."""

from calql.extras import needed_for

with needed_for("a report"):
    import matplotlib  # noqa: F401 (all figures need it: one message, here)
