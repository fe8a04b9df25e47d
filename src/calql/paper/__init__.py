"""The experiments of the Cal-QL paper: tasks, methods, environments, demonstrators and published numbers."""
