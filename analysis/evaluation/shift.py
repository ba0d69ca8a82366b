"""Prior shift: how often each value of a target occurs among images without labels, and whether answers should follow that.

It rests on one assumption: images of a value are distributed there as among the labelled ones, and only the class priors differ.
Nothing is corrected before a shift is significant, since estimated priors of images that did not shift are noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.evaluation.calibration import BiasCorrection, as_logits, bias_correction, group_pulls
from analysis.evaluation.steps import Shares
from trainables.data.targets import Scheme
from trainables.metrics import Metric
from trainables.metrics.confusion import confusion
from trainables.metrics.evidence import draw_groups, evidence, group_sums, interval, resample

DRAWS = 400  # of the bootstrap of an estimate
GAIN_DRAWS = 1000  # of the bootstrap of a correction's worth
LEVEL = 0.05  # in a data set without a shift one is found this often at most, all targets and values together
WEAKEST = 0.1  # directions in which the confusion matrix keeps less than this share of a shift tell nothing about it
STEADY, ROUNDS = 1e-8, 1000  # expectation maximisation ends when no prior moves by more, or after so many rounds
STEADY_DRAW, DRAW_ROUNDS = 1e-5, 100  # likewise of a bootstrap draw
SMALLEST = 1e-9  # of a prior on the way: from 0 no round leads away
NOISE = 1e-9  # differences and standard errors below it are rounding


@dataclass(frozen=True)
class Shift:
    """The class priors of one target among images without labels; tuples hold one entry a value."""

    attribute: str
    trained: tuple[float, ...]  # shares among the images that the trials learned from
    predicted: tuple[float, ...]  # shares of the predicted values, with all the mistakes in them
    em: tuple[float, ...]  # priors under which the calibrated probabilities are the most probable: the estimate
    em_intervals: tuple[tuple[float, float], ...]  # 95 %
    bbse: tuple[float, ...]  # a second opinion: shares after correction for the mistakes known from validation
    p_value: float  # of no shift, all values together

    @property
    def significant(self) -> bool:
        """Whether there is a shift, and not only chance in which groups the images show."""
        return self.p_value < LEVEL


def estimate(
    attribute: str,
    valid: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    trained: np.ndarray,
    evaluation: np.ndarray,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Shift:
    """The shift of one target.

    The priors are those under which the calibrated probabilities of the new images are the most probable. The intervals come from a
    bootstrap over both: validation groups, on which the calibration depends, and new images. Which groups these show is not known, so
    they are worth as many independent ones as they would be if they were grouped as validation is. The trained shares count for as
    uncertain as those of the validation groups, who are fewer than those who trained.

    The test asks whether one round of expectation maximisation leads away from the trained shares by more than chance makes it, for
    the value where it does most (in standard errors). Unlike the estimate that round is a mean over images, and has no borders.

    Args:
        valid: probabilities (n, values) of validation images.
        target: their true values (n,).
        groups: their groups (n,).
        trained: shares (values,) among the training images.
        evaluation: probabilities (k, values) of the images without labels, at least one.
        rng: draws the bootstrap.
        draws: how many.
    Sources: expectation maximisation of Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier to New a Priori
    Probabilities, Neural Computation 2002, on calibrated probabilities (`bias_correction`); the test is the score test of that
    likelihood, Rao 1948; bbse of Lipton et al., Detecting and Correcting for Label Shift with Black Box Predictors, ICML 2018.
    """
    values = len(trained)
    answered = valid.argmax(axis=1)
    predicted = np.bincount(evaluation.argmax(axis=1), minlength=values) / len(evaluation)
    known, asked = as_logits(valid), as_logits(evaluation)
    fitted = bias_correction(known, target)
    calibrated, alike = fitted(known), np.full(len(asked), 1 / len(asked))
    priors = calibrated.mean(axis=0)
    likelihoods = fitted(asked) / priors
    em = most_probable_priors(likelihoods, alike, priors)
    drawn, by_chance = _draw(fitted, known, target, groups, trained, asked, em, rng, draws)
    return Shift(
        attribute=attribute,
        trained=tuple(map(float, trained)),
        predicted=tuple(predicted.tolist()),
        em=tuple(em.tolist()),
        em_intervals=tuple(interval(found) for found in drawn.T),
        bbse=tuple(unmixed(recalled(confusion(target, answered, values)), predicted, trained).tolist()),
        p_value=_p_value(_round(likelihoods, alike, trained)[0] - trained, by_chance),
    )


def estimate_all(
    scheme: Scheme,
    valid: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    trained: Mapping[str, np.ndarray],
    evaluation: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Shift, ...]:
    """The shift of each target of a scheme, from joint answers; p-values are adjusted for how many targets there are.

    Args:
        valid, evaluation: probabilities (n, classes) and (k, classes).
        target: true joint classes (n,).
        trained: by target, shares (values,) among the training images.
    Source of the adjustment: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics, 1979.
    """
    labels = scheme.split(target)
    found = [
        estimate(name, scheme.marginal((name,), valid), labels[:, column], groups, trained[name], scheme.marginal((name,), evaluation), rng)
        for column, name in enumerate(scheme.names)
    ]
    order = np.argsort([shift.p_value for shift in found], kind="stable")
    ordered = [found[place].p_value * (len(found) - rank) for rank, place in enumerate(order)]
    adjusted = dict(zip(order.tolist(), np.minimum(np.maximum.accumulate(ordered), 1.0).tolist(), strict=True))
    return tuple(replace(shift, p_value=adjusted[place]) for place, shift in enumerate(found))


def correction(scheme: Scheme, shifts: Sequence[Shift]) -> Shares:
    """The step that gives each value its estimated prior, for targets with a significant shift; for others it changes nothing.

    Targets are corrected one by one, as if the priors of one were alike within each value of another.
    """
    return Shares(
        scheme,
        {
            shift.attribute: tuple(new / learned if learned > 0 else 1.0 for new, learned in zip(shift.em, shift.trained, strict=True))
            for shift in shifts
            if shift.significant
        },
    )


@dataclass(frozen=True)
class Worth:
    """What a correction is worth where the values have the shares that it corrects to."""

    before: float  # by the run's metric
    after: float
    interval: tuple[float, float]  # 95 %, of the gain, by the bootstrap over groups


def reweighted_gain(
    answer: np.ndarray, target: np.ndarray, groups: np.ndarray, shares: Shares, metric: Metric, rng: np.random.Generator
) -> Worth:
    """The score before and after the correction on labelled images, each of which counts for as many as have its values after the shift.

    The images that shifted have no labels, and the labelled ones did not shift: this is what can be known of the gain without either.

    Args:
        answer: probabilities (n, classes) of labelled images with about the trained shares.
        target: their true joint classes (n,).
        groups: of the images (n,).
        rng: draws the groups, the same ones for before and after.
    """
    weights = shares.class_factors()[target]
    before, after = (evidence(metric, target, one, groups, weights) for one in (answer, shares(answer)))
    drawn_before, drawn_after = resample([before, after], np.random.default_rng(int(rng.integers(2**63))), GAIN_DRAWS)
    return Worth(before.score(), after.score(), interval(metric.sign * (drawn_after - drawn_before)))


def recalled(counts: np.ndarray) -> np.ndarray:
    """How a true value's images are shared out over predicted values (..., predicted, true), from confusion counts (..., true, predicted).

    A value that no image has counts as always recognised.
    """
    images = counts.sum(axis=-1, keepdims=True)
    shares = np.where(images > 0, counts / np.maximum(images, 1), np.eye(counts.shape[-1]))
    return np.swapaxes(shares, -1, -2)


def unmixed(mistakes: np.ndarray, predicted: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """The shares (..., values) of true values that make these shares of predicted ones; as trained where nothing can be estimated."""
    # Solved for the difference from the trained shares: what a singular matrix leaves open is then no shift.
    unexplained = predicted - (mistakes @ trained)
    found = trained + np.einsum("...ij,...j->...i", np.linalg.pinv(mistakes, rcond=WEAKEST), unexplained)
    inside = np.clip(found, 0, None)
    return inside / inside.sum(axis=-1, keepdims=True)


def most_probable_priors(
    likelihoods: np.ndarray, weights: np.ndarray, start: np.ndarray, steady: float = STEADY, rounds: int = ROUNDS
) -> np.ndarray:
    """The priors (values,) that make images the most probable.

    Expectation maximisation, which never makes them less probable; two rounds foretell where it leads, which is tried too.

    Args:
        likelihoods: (n, values), of each image under each value, but for a factor of the image's own.
        weights: (n,) for how much each image counts; their sum is 1.
        start: priors (values,) to start from: where nothing separates the values, they stay as they are.
    Source: the steps of Varadhan and Roland, Simple and globally convergent methods for accelerating the convergence of any EM
    algorithm (SQUAREM), Scandinavian Journal of Statistics, 2008.
    """
    priors = start
    for _ in range(rounds):
        first, _ = _round(likelihoods, weights, priors)
        second, probable = _round(likelihoods, weights, first)
        step, bend = first - priors, second - 2 * first + priors
        if np.abs(second - first).max() < steady:
            return second / second.sum()
        far = max(1.0, float(np.linalg.norm(step) / max(np.linalg.norm(bend), NOISE)))
        ahead = np.maximum(priors + 2 * far * step + far**2 * bend, SMALLEST)
        found, more_probable = _round(likelihoods, weights, ahead / ahead.sum())
        priors = found if more_probable >= probable else second
    return priors / priors.sum()


def _round(likelihoods: np.ndarray, weights: np.ndarray, priors: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean posterior (values,) under some priors, and the mean logarithm of how probable images are under these."""
    total = np.maximum(likelihoods @ priors, np.finfo(float).tiny)
    return priors * (likelihoods.T @ (weights / total)), float(weights @ np.log(total))


def _draw(
    fitted: BiasCorrection,
    known: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    trained: np.ndarray,
    asked: np.ndarray,
    em: np.ndarray,
    rng: np.random.Generator,
    draws: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap draws of the priors and of where one round leads from the trained shares, both (draws, values)."""
    values = len(trained)
    _, group = np.unique(groups, return_inverse=True)
    pulls, seen = group_pulls(fitted, known, target, group), group_sums(np.eye(values)[target], group)
    share = np.bincount(target, minlength=values) / len(target)
    independent = max(1, round(len(asked) / _images_per_independent(fitted(known), group)))
    # One more image, of validation: without it a few images that agree would vary in no draw and prove anything.
    both = np.concatenate([asked, known])
    chances = np.repeat([independent / len(asked), 1 / len(known)], [len(asked), len(known)]) / (independent + 1)
    weights, start = np.full(independent, 1 / independent), 0.9 * em + 0.1 * trained  # from a prior of 0 no round leads away
    drawn, by_chance = [], []
    for times in draw_groups(len(pulls), rng, draws).astype(float):
        correction = fitted.moved((times - 1) @ pulls)
        often = times[group]
        likelihoods = correction(both[rng.choice(len(both), size=independent, p=chances)]) / (often @ correction(known) / often.sum())
        drawn.append(most_probable_priors(likelihoods, weights, start, STEADY_DRAW, DRAW_ROUNDS))
        counts = times @ seen
        learned = np.clip(trained + counts / counts.sum() - share, 0, None)
        learned /= learned.sum()
        by_chance.append(_round(likelihoods, weights, learned)[0] - learned)
    return np.stack(drawn), np.stack(by_chance)


def _images_per_independent(calibrated: np.ndarray, group: np.ndarray) -> float:
    """How many images in groups tell as much of a prior as one image that belongs to no other; at least 1.

    Source: the design effect of clusters, Kish, Survey Sampling, 1965: of the value whose groups agree most.
    """
    distances = calibrated - calibrated.mean(axis=0)
    together, alone = (group_sums(distances, group) ** 2).sum(axis=0), (distances**2).sum(axis=0)
    groups = int(group.max()) + 1
    effects = np.divide(together, alone, out=np.ones(len(alone)), where=alone > NOISE)
    return max(1.0, float(effects.max()) * groups / max(groups - 1, 1))


def _p_value(shift: np.ndarray, draws: np.ndarray) -> float:
    """How often chance makes a value's share differ as much as the farthest does, in standard errors, from draws (draws, values)."""
    errors = draws.std(axis=0)

    def farthest(differences: np.ndarray) -> np.ndarray:
        return np.divide(np.abs(differences), errors, out=np.zeros(differences.shape), where=errors > NOISE).max(axis=-1)

    return float((1 + (farthest(draws - draws.mean(axis=0)) >= farthest(shift)).sum()) / (1 + len(draws)))
