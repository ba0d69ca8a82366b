"""The one metric and its direction: scheduler, searcher, best epoch and analysis all take it from here."""

import numpy as np

from trainables.data.labels import Scheme

METRIC = "macro_f1"
MODE = "max"


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are true classes, columns predicted ones."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """F1 per class (..., classes) of confusion counts (..., classes, classes); 0 for a class that nothing has and nothing got."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(float)
    ends = counts.sum(axis=-1) + counts.sum(axis=-2)
    return np.divide(2 * hits, ends, out=np.zeros_like(hits), where=ends > 0)


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 over ALL classes: one that is absent from the truth counts as 0, as in the contest."""
    return class_f1(counts).mean(axis=-1)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of photos on the diagonal."""
    return np.trace(counts, axis1=-2, axis2=-1) / np.maximum(counts.sum(axis=(-2, -1)), 1)


def attribute_f1(scheme: Scheme, truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Macro F1 of each attribute by itself, from joint classes (n,)."""
    true_labels, predicted_labels = scheme.split(truth), scheme.split(predicted)
    return {
        attribute.name: float(macro_f1(confusion(true_labels[:, column], predicted_labels[:, column], len(attribute.values))))
        for column, attribute in enumerate(scheme.attributes)
    }


def person_counts(truth: np.ndarray, predicted: np.ndarray, people: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts per person (people, classes, classes), from classes (n,) and any person ids (n,)."""
    _, person = np.unique(people, return_inverse=True)
    cells = classes * classes
    counts = np.bincount(person * cells + truth * classes + predicted, minlength=(person.max() + 1) * cells)
    return counts.reshape(-1, classes, classes)


def bootstrap_f1(counts: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> np.ndarray:
    """Macro F1 (draws,) of samples of whole people, drawn with replacement: photos of one person are no independent evidence.

    Args:
        counts: confusion counts per person (people, classes, classes).
    Source: the person-level (cluster) bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997.
    """
    people, classes, _ = counts.shape
    drawn = rng.multinomial(people, np.full(people, 1 / people), size=draws)
    return macro_f1((drawn @ counts.reshape(people, -1)).reshape(draws, classes, classes))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
