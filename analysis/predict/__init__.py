"""Answers of an ensemble for images without labels."""
