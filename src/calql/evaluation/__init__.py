"""Metrics of the paper, comparison of Q-values with rollouts, and statistics over seeds."""
