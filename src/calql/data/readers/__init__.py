"""Readers of recorded experience, one file per format."""
