"""Evaluation: what an answer is worth on groups that no part of it was fitted on, and how sure one may be of that."""
