"""Answers of an ensemble for photos without labels."""
