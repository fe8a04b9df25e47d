"""Checks whether a data set suits a task: its shapes, units and physics, and how narrow it is."""
