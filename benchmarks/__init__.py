"""Measures what the design promises, next to what the bare machine does in the same run."""
