"""Leaks: photos and people that stand on two sides of a run's split."""
