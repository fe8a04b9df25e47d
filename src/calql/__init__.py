"""calql: offline-to-online reinforcement learning with calibrated Q-learning."""

__version__ = "0.1.0"
