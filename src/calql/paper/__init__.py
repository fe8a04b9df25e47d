"""The laboratory of the Cal-QL paper: its tasks, methods, environments, demonstrators and published numbers."""
