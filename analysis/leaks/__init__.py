"""Leaks: images and groups that are in two splits of a run."""
