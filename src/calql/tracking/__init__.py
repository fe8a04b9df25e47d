"""The run directory: the only state there is."""

from calql.tracking.run_dir import EVAL_COLUMNS, RunDir

__all__ = ["EVAL_COLUMNS", "RunDir"]
