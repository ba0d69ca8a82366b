"""What is taken for what, as a page shows it."""

import numpy as np

from analysis.pages.tables import Table
from trainables.data.targets import Scheme
from trainables.metrics.confusion import most_frequent_errors

ALL = "all targets"


def taken_for(name: str, scheme: Scheme, counts: np.ndarray, most: int = 5) -> Table:
    """The most frequent errors in confusion counts (classes, classes), rows true and columns predicted; the name says of what."""
    classes, images = scheme.class_names(), counts.sum(axis=1)
    rows = [
        (f"{classes[true]} → {classes[predicted]}", f"{counts[true, predicted]:,}", f"{counts[true, predicted] / images[true]:.0%}")
        for true, predicted in most_frequent_errors(counts, most)
    ]
    return Table(f"Most frequent errors: {name}", ("true → predicted", "images", "of the true class"), tuple(rows), (1, 2))
