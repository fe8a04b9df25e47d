"""Environments: construction, wrappers and rollouts."""
