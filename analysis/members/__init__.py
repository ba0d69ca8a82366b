"""Members: what may vote. Trials that can predict, ways to let them answer together, and the choice among these."""
