"""Label shift: how often each value of an attribute occurs among photos without labels, and whether answers should follow that.

It rests on one assumption: a value looks among those photos as it does among the labelled ones, and only its share is another.
Nothing is corrected before a shift is proven, since estimated shares of photos that did not shift are noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.evaluation.calibration import bias_corrected
from analysis.evaluation.steps import Shares
from trainables.data.labels import Scheme
from trainables.metrics import Metric
from trainables.metrics.confusion import confusion
from trainables.metrics.evidence import draw_groups, evidence, group_sums, interval, resample
from trainables.metrics.labels import indicators

DRAWS = 1000  # of the bootstrap
BLOCK = 4_000_000  # numbers that are held at a time
LEVEL = 0.05  # a shift that is not there is proven this often at most
WEAKEST = 0.1  # directions in which the confusion matrix keeps less than this share of a shift tell nothing about it
STEADY, ROUNDS = 1e-8, 1000  # expectation maximisation ends when no share moves by more, or after so many rounds


@dataclass(frozen=True)
class Shift:
    """The shares of one attribute's values among photos without labels; tuples hold one entry a value."""

    attribute: str
    trained: tuple[float, ...]  # shares among the photos that the trials learned from
    predicted: tuple[float, ...]  # shares of the likeliest values, with all the mistakes in them
    bbse: tuple[float, ...]  # shares after the mistakes known from validation are taken out
    em: tuple[float, ...]  # shares under which the probabilities are likeliest, after these were calibrated
    intervals: tuple[tuple[float, float], ...]  # 95 %, of bbse
    error: float  # share of validation photos whose likeliest value is wrong
    distance: float  # the most that a value's predicted share is from the trained one
    p_value: float  # of no shift, all values together

    @property
    def proven(self) -> bool:
        """Whether there is a shift: no accident of who was photographed, and more than mistakes could make where there is none."""
        return self.p_value < LEVEL and self.distance > self.error


def estimate(
    attribute: str,
    valid: np.ndarray,
    target: np.ndarray,
    people: np.ndarray,
    trained: np.ndarray,
    evaluation: np.ndarray,
    rng: np.random.Generator,
) -> Shift:
    """The shift of one attribute.

    Whom the photos without labels show is not known, and photos of one person share their values. So these photos are worth as many
    independent ones as they would be if each person had as many photos as one in validation and all of these had the same value: the
    intervals are wider than the truth, never narrower. The trained shares count for as uncertain as those of the validation people,
    who are fewer than those who trained.

    Args:
        valid: probabilities (n, values) of validation photos.
        target: their true values (n,).
        people: whom they show (n,).
        trained: shares (values,) among the training photos.
        evaluation: probabilities (k, values) of the photos without labels, at least one.
        rng: draws the bootstrap.
    Sources: bbse of Lipton et al., Detecting and Correcting for Label Shift with Black Box Predictors, ICML 2018; em of Saerens et
    al., Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural Computation 2002, on calibrated probabilities
    (`bias_corrected`).
    """
    values = len(trained)
    answered = valid.argmax(axis=1)
    predicted = np.bincount(evaluation.argmax(axis=1), minlength=values) / len(evaluation)
    recalled = _recalled(confusion(target, answered, values))
    drawn_shares, drawn_shifts = _draw(target, answered, people, trained, predicted, len(evaluation), rng)
    bbse = _unmixed(recalled, predicted, trained)
    calibrated, asked = bias_corrected(valid, target, evaluation)
    return Shift(
        attribute=attribute,
        trained=tuple(map(float, trained)),
        predicted=tuple(predicted.tolist()),
        bbse=tuple(bbse.tolist()),
        em=tuple(_likeliest_shares(asked, calibrated.mean(axis=0)).tolist()),
        intervals=tuple(interval(draws) for draws in drawn_shares.T),
        error=float((answered != target).mean()),
        distance=float(np.abs(predicted - trained).max()),
        p_value=_p_value(bbse - trained, drawn_shifts),
    )


def estimate_all(
    scheme: Scheme,
    valid: np.ndarray,
    target: np.ndarray,
    people: np.ndarray,
    trained: Mapping[str, np.ndarray],
    evaluation: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Shift, ...]:
    """The shift of each attribute of a scheme, from joint answers.

    Args:
        valid, evaluation: probabilities (n, classes) and (k, classes).
        target: true joint classes (n,).
        trained: by attribute, shares (values,) among the training photos.
    """
    labels = scheme.split(target)
    return tuple(
        estimate(name, scheme.marginal((name,), valid), labels[:, column], people, trained[name], scheme.marginal((name,), evaluation), rng)
        for column, name in enumerate(scheme.names)
    )


def correction(scheme: Scheme, shifts: Sequence[Shift]) -> Shares:
    """The step that gives each value its estimated share, for attributes with a proven shift; for others it changes nothing.

    Attributes are corrected one by one, as if the shares of one were alike within each value of another.
    """
    return Shares(
        scheme,
        {
            shift.attribute: tuple(new / learned if learned > 0 else 1.0 for new, learned in zip(shift.bbse, shift.trained, strict=True))
            for shift in shifts
            if shift.proven
        },
    )


@dataclass(frozen=True)
class Worth:
    """What a correction is worth where the values have the shares that it corrects to."""

    before: float  # by the run's metric
    after: float
    interval: tuple[float, float]  # 95 %, of the gain, by the bootstrap over groups


def reweighted_gain(
    answer: np.ndarray, target: np.ndarray, people: np.ndarray, shares: Shares, metric: Metric, rng: np.random.Generator
) -> Worth:
    """The score before and after the correction on labelled photos, each of which counts for as many as have its values after the shift.

    The photos that shifted have no labels, and the labelled ones did not shift: this is what can be known of the gain without either.

    Args:
        answer: probabilities (n, classes) of labelled photos with about the trained shares.
        target: their true joint classes (n,).
        people: whom they show (n,).
        rng: draws the people, the same ones for before and after.
    """
    weights = shares.class_factors()[target]
    before, after = (evidence(metric, target, one, people, weights) for one in (answer, shares(answer)))
    drawn_before, drawn_after = resample([before, after], np.random.default_rng(int(rng.integers(2**63))), DRAWS)
    return Worth(before.score(), after.score(), interval(metric.sign * (drawn_after - drawn_before)))


def _recalled(counts: np.ndarray) -> np.ndarray:
    """How a true value's photos are shared out over predicted values (..., predicted, true), from confusion counts (..., true, predicted).

    A value that no photo has counts as always recognised.
    """
    photos = counts.sum(axis=-1, keepdims=True)
    shares = np.where(photos > 0, counts / np.maximum(photos, 1), np.eye(counts.shape[-1]))
    return np.swapaxes(shares, -1, -2)


def _unmixed(recalled: np.ndarray, predicted: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """The shares (..., values) of true values that make these shares of predicted ones; as the trained ones where nothing can be told."""
    # Solved for the difference from the trained shares: what a singular matrix leaves open is then no shift.
    unexplained = predicted - (recalled @ trained)
    found = trained + np.einsum("...ij,...j->...i", np.linalg.pinv(recalled, rcond=WEAKEST), unexplained)
    inside = np.clip(found, 0, None)
    return inside / inside.sum(axis=-1, keepdims=True)


def _draw(
    target: np.ndarray,
    answered: np.ndarray,
    people: np.ndarray,
    trained: np.ndarray,
    predicted: np.ndarray,
    photos: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap draws of the shares and of their differences from the trained ones, both (draws, values)."""
    values = len(trained)
    _, person, sizes = np.unique(people, return_inverse=True, return_counts=True)
    cells = group_sums(indicators(values * values, (target * values + answered, 1)), person)
    drawn = draw_groups(len(sizes), rng, DRAWS)
    independent = max(1, round(photos / ((sizes**2).sum() / sizes.sum())))
    # One more photo, of the trained shares: without it a few photos that agree would vary in no draw and prove anything.
    expected = (independent * predicted + _recalled(confusion(target, answered, values)) @ trained) / (independent + 1)
    predicted_draws = rng.multinomial(independent, expected, size=DRAWS) / independent
    seen = np.bincount(target, minlength=values)
    found = []
    rows = max(1, BLOCK // values**2)  # each draw has a confusion matrix of its own: some at a time
    for start in range(0, DRAWS, rows):
        counts = (drawn[start : start + rows] @ cells).astype(float).reshape(-1, values, values)
        shares = _unmixed(_recalled(counts), predicted_draws[start : start + rows], trained)
        drawn_seen = counts.sum(axis=2)
        chance = drawn_seen / drawn_seen.sum(axis=1, keepdims=True) - seen / seen.sum()
        found.append((shares, shares - (trained + chance)))
    shares, beyond_chance = (np.concatenate(draws) for draws in zip(*found, strict=True))
    return shares, beyond_chance


def _p_value(shift: np.ndarray, draws: np.ndarray) -> float:
    """How often chance makes a value's share differ as much as the farthest does, in standard errors, from draws (draws, values)."""
    errors = draws.std(axis=0)

    def farthest(differences: np.ndarray) -> np.ndarray:
        return np.divide(np.abs(differences), errors, out=np.zeros(differences.shape), where=errors > 0).max(axis=-1)

    return float((1 + (farthest(draws - draws.mean(axis=0)) >= farthest(shift)).sum()) / (1 + len(draws)))


def _likeliest_shares(probabilities: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Shares (values,) found by expectation maximisation from probabilities (k, values) that are right under the known shares."""
    shares = np.array(known, dtype=float)
    for _ in range(ROUNDS):
        ratio = np.divide(shares, known, out=np.zeros(len(shares)), where=known > 0)
        joint = probabilities * ratio
        total = joint.sum(axis=1, keepdims=True)
        updated = np.divide(joint, total, out=probabilities.astype(float), where=total > 0).mean(axis=0)
        if np.abs(updated - shares).max() < STEADY:
            return updated
        shares = updated
    return shares
