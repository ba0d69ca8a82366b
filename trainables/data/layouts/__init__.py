"""The ways in which images and their labels lie on disk: one file each, and `reading`, the one door to them all."""
