"""F1 from confusion counts, and its uncertainty by resampling whole people."""

import numpy as np

from trainables.data.labels import Scheme


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are true classes, columns predicted ones."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_f1(counts: np.ndarray) -> np.ndarray:
    """F1 per class (..., classes) of confusion counts (..., classes, classes); 0 for a class that nothing has and nothing got."""
    return _f1(*_hits_and_ends(counts))


def _hits_and_ends(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All that F1 takes of confusion counts (..., classes, classes), each (..., classes): the diagonal, and rows plus columns."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1) + counts.sum(axis=-2)


def _f1(hits: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.divide(2 * hits, ends, out=np.zeros(hits.shape), where=ends > 0)


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
    """Macro F1 (..., draws) of samples of whole people, drawn with replacement: photos of one person are no independent evidence.

    Args:
        counts: confusion counts per person (..., people, classes, classes); the same people are drawn for all that come before.
    Source: the person-level (cluster) bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997.
    """
    drawn = _draw_people(counts.shape[-3], rng, draws)
    hits, ends = (drawn @ part for part in _person_parts(counts))
    return _f1(hits.astype(float), ends.astype(float)).mean(axis=-1)


def f1_interval(counts: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of the macro F1 on other people, by the studentised bootstrap over people.

    How far a draw is from the score counts in units of that draw's own standard error. The percentile interval takes no heed of it: where
    a class has few people it is too short and lies too low, so that it holds the true value too seldom.

    Args:
        counts: confusion counts per person (people, classes, classes).
    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997; the standard error is that of the linearised macro F1.
    """
    hits, ends = _person_parts(counts)
    drawn = _draw_people(len(counts), rng, draws)
    score, spread = _score_and_spread(hits, ends, np.ones((1, len(counts)), np.float32))
    scores, spreads = _score_and_spread(hits, ends, drawn)
    # Where mistakes are few, a draw may miss them all: without a spread of its own it would stretch the interval without end.
    low, high = np.percentile((scores - score) / np.maximum(spreads, spread / 4 + 1e-9), [2.5, 97.5])
    return float(np.clip(score - high * spread, 0, 1)[0]), float(np.clip(score - low * spread, 0, 1)[0])


def _draw_people(people: int, rng: np.random.Generator, draws: int) -> np.ndarray:
    """How often each person is in each draw (draws, people)."""
    # float32 holds whole numbers up to 16 million, and BLAS does not multiply integers.
    return rng.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float32)


def _person_parts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits, ends = _hits_and_ends(counts)
    return hits.astype(np.float32), ends.astype(np.float32)


def _score_and_spread(hits: np.ndarray, ends: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Macro F1 and its standard error, each (draws,), of people (people, classes) who are drawn so often (draws, people)."""
    drawn_hits, drawn_ends = (drawn @ hits).astype(float), (drawn @ ends).astype(float)
    f1 = _f1(drawn_hits, drawn_ends)
    share = np.divide(1, drawn_ends, out=np.zeros_like(f1), where=drawn_ends > 0) / f1.shape[1]
    # What each person adds: the derivative of macro F1 by how often the person is there.
    added = (2 * share) @ hits.T - (f1 * share) @ ends.T
    return f1.mean(axis=1), np.sqrt((drawn * added**2).sum(axis=1))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap values, such as the differences of two answers on the same draws."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
