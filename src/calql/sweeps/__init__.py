"""A plan (task × method × seed) → runs, each in its own directory; an engine only places them."""

from calql.sweeps.plan import Job, Plan, Variant, make_jobs, read_plan

__all__ = ["Job", "Plan", "Variant", "make_jobs", "read_plan"]
