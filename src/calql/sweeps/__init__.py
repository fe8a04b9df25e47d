"""A plan (task × method × seed) → runs, each in its own directory; an engine only places them."""

from calql.sweeps.plan import Job, make_plan

__all__ = ["Job", "make_plan"]
