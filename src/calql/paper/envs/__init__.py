"""The environments of the paper's tasks."""
