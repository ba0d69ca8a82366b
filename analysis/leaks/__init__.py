"""Leaks: images and groups that stand on two sides of a run's split."""
