"""What a search did, from its records alone, as plain records."""
