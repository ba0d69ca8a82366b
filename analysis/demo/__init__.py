"""A page and an address that answer for images, by an ensemble."""
