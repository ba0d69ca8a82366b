"""Pages: what those of the commands share."""
