"""Policies outside calql: as ONNX, or as an .npz file for NumPy, with a contract of what goes in and comes out.

`calql.export.load` and `calql.export.actor` need neither JAX nor the run; only writing an export does.
"""

from calql.export.policy import ExportedPolicy, load, time_per_action

__all__ = ["ExportedPolicy", "load", "time_per_action"]
