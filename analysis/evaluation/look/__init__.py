"""What can be said of labelled images before any model is trained: counts, pixels, and labels that look odd."""
