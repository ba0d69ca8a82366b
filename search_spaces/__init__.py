"""What may vary: YAML spaces, read and checked into a `Space` that proposes configurations."""
