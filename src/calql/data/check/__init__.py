"""Is a data set fit for a task: its shapes, its unit, its physics, and how narrow it is."""
