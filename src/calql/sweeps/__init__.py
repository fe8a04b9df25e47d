"""A plan (task × method × seed) → runs, each in its own directory; an engine only executes them."""

from calql.sweeps.plan import Comparison, Job, Plan, Variant, make_jobs, read_plan

__all__ = ["Comparison", "Job", "Plan", "Variant", "make_jobs", "read_plan"]
