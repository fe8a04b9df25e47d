"""Deterministic rollouts, the paper's measures, and the statistics over seeds."""
