"""Pictures of what the floors below found, for the commands."""
