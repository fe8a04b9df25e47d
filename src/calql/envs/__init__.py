"""Environments: construction, wrappers, rollouts, and probes with known answers."""
