"""The command that notes a score from elsewhere beside our own."""
