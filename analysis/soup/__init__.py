"""The command that makes soups of the trials of a run."""
