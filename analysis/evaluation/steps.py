"""Steps after the vote: how an answer is corrected, image by image, by what was learned on images whose classes are known.

Fitted numbers fit the images they were fitted on, rare classes above all. Each fit therefore asks images of other groups how much of
what it found to keep, down to nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field

from analysis.votes.arrays import Array, constant, library, picked, ratio
from analysis.votes.folds import others, part_groups
from trainables.data.targets import Kind, Scheme, Target
from trainables.metrics import METRICS_OF, Metric
from trainables.metrics.evidence import label_evidence, resample
from trainables.seeding import generator

FARTHEST_OFFSET = 2.0  # in nats: a class's score changes by a factor of 7.4 at most
WIDEST_GAP = 1.0  # in nats: the most probable class is at most 2.7 times as likely as the second that takes its place
MARGIN = 0.05  # in nats: how far beyond the last image that it should move a fitted number goes, where there is room
PASSES = 10  # over all numbers that are fitted; more than are needed
KEPT = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of a fit
DRAWS = 200  # of the bootstrap, for a standard error
BLOCK = 4_000_000  # numbers that are held at a time
PLACES = 40  # thresholds that are tried of a tag


@dataclass(frozen=True)
class Offsets:
    """One number for each class, added to the logarithm of its score."""

    values: tuple[float, ...]  # in nats; 0 changes nothing
    kind: Literal["offsets"] = "offsets"

    def __call__(self, answer: Array) -> Array:
        """Scores (images, classes) whose rows sum to 1, of such scores."""
        changed = answer * library(answer).exp(constant(self.values, answer))
        return changed / changed.sum(axis=1, keepdims=True)

    def kept(self, share: float) -> "Offsets":
        """The same with this share of each number."""
        return replace(self, values=tuple(share * value for value in self.values))


@dataclass(frozen=True)
class Thresholds:
    """One number for each tag, added to the logit of its probability: the tag is said to be there from another probability on."""

    values: tuple[float, ...]  # in nats; 0 changes nothing
    kind: Literal["thresholds"] = "thresholds"

    def __call__(self, answer: Array) -> Array:
        """Probabilities (images, tags), of such."""
        odds = answer * library(answer).exp(constant(self.values, answer))
        return odds / (odds + 1 - answer)

    def kept(self, share: float) -> "Thresholds":
        """The same with this share of each number."""
        return replace(self, values=tuple(share * value for value in self.values))


@dataclass(frozen=True)
class Rule:
    """The second most probable class is taken where it differs from the first in the value of one target alone, and little in score."""

    attribute: str
    likeliest: int  # the value of the most probable class
    second: int  # the value of the second, which is taken
    gap: float  # in nats, as between logits: the highest logarithm of the ratio of their scores; 0 is off


@dataclass(frozen=True)
class TopTwo:
    """Rules for images whose two most probable classes lie close together; at most one of them applies to an image."""

    scheme: Scheme
    rules: tuple[Rule, ...]
    kind: Literal["top_two"] = "top_two"

    def __call__(self, answer: Array) -> Array:
        """Scores (images, classes) of such scores: where a rule takes the second class, the two most probable have changed places.

        Between classes that are equally likely no rule decides.
        """
        most = top, second, _, _, gap = two_most_probable(answer)
        gaps = np.append([rule.gap for rule in self.rules], 0.0)[which_rule(self.scheme, self.rules)]
        return exchanged(answer, most, gap <= constant(gaps, answer)[top, second])

    def kept(self, share: float) -> "TopTwo":
        """The same with this share of each rule's gap."""
        return replace(self, rules=tuple(replace(rule, gap=share * rule.gap) for rule in self.rules))


@dataclass(frozen=True)
class Shares:
    """Other shares of the values of targets than those that the trials learned."""

    scheme: Scheme
    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by target, one a value: the new share over the learned one
    kind: Literal["shares"] = "shares"

    def __call__(self, answer: Array) -> Array:
        """Scores (images, classes) whose rows sum to 1, of such scores: each times the factors of its values, in shares of their sum.

        An image whose every class would get nothing stays as it is.
        """
        if not self.factors:
            return answer
        changed = answer * constant(self.class_factors(), answer)
        return ratio(changed, changed.sum(axis=1, keepdims=True), answer)

    def class_factors(self) -> np.ndarray:
        """The product of the factors of each class's values (classes,)."""
        product = np.ones(self.scheme.classes)
        values = self.scheme.split(np.arange(self.scheme.classes))
        for name, factors in self.factors.items():
            product *= np.array(factors)[values[:, self.scheme.names.index(name)]]
        return product


# Each kind is frozen, holds plain values alone, so that a file of it is data, and is called with an answer (images, columns), of Classes
# scores whose rows sum to 1; it returns such an answer. An image's answer depends on no other image.
Step = Annotated[Offsets | TopTwo | Thresholds | Shares, Field(discriminator="kind")]
Moves = TypeVar("Moves", Offsets, TopTwo, Thresholds)


def offsets(answer: np.ndarray, target: np.ndarray, groups: np.ndarray, scheme: Scheme, metric: Metric) -> Offsets:
    """The offset of each class that brings the best score, as much of it as other groups confirm.

    Why F1 has thresholds of its own: Lipton et al., Optimal Thresholding of Classifiers to Maximize F1 Measure, ECML 2014.
    """
    return _with_other_groups(best_offsets, answer, target, groups, scheme, metric)


def top_two(answer: np.ndarray, target: np.ndarray, groups: np.ndarray, scheme: Scheme, metric: Metric) -> TopTwo:
    """The gap of each rule that brings the best score, as much of it as other groups confirm.

    There is a rule for every two values of a target and either order, for neighbours alone where it is cut from a number.
    """
    return _with_other_groups(best_top_two, answer, target, groups, scheme, metric)


def thresholds(answer: np.ndarray, target: np.ndarray, groups: np.ndarray, scheme: Scheme, metric: Metric) -> Thresholds:
    """The probability of each tag from which on it is said to be there that brings the best score, as much of it as other groups confirm.

    Where the metric takes no labels they are fitted for macro F1. Source: Lipton et al., ECML 2014, as above.
    """
    return _with_other_groups(best_thresholds, answer, target, groups, scheme, metric if moves_labels(metric) else TAG_LABELS)


# How each is fitted: an answer (images, columns), what is true (images,) or of tags (images, tags), groups (images,), the scheme, and the
# metric.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, Scheme, Metric], Step]


@dataclass(frozen=True)
class Correction:
    """A step, and the kind of target whose answers it corrects."""

    fit: Fit
    target: Kind = "classes"

    def __call__(self, answer: np.ndarray, target: np.ndarray, groups: np.ndarray, scheme: Scheme, metric: Metric) -> Step:
        """The step fitted."""
        return self.fit(answer, target, groups, scheme, metric)


STEPS: dict[str, Correction] = {
    "offsets": Correction(offsets),
    "top_two": Correction(top_two),
    "thresholds": Correction(thresholds, "tags"),
}
TAG_LABELS = METRICS_OF["tags"]["f1_macro"]  # what the thresholds of tags are for, where the metric takes no labels


def moves_labels(metric: Metric) -> bool:
    """Whether the metric is one that steps are fitted by: they move labels, and try every place where one image more would move."""
    return metric.takes == "labels" and metric.is_of_sums


def useful_steps(metric: Metric) -> tuple[str, ...]:
    """The useful steps: those of classes by labels alone, while tags need labels whatever the metric."""
    useful = metric.target == "tags" or moves_labels(metric)
    return tuple(name for name, step in STEPS.items() if step.target == metric.target and useful)


def is_free(name: str, metric: Metric) -> bool:
    """Whether a step gives labels and leaves the score as it is: order within each tag is all that the metric takes."""
    return name == "thresholds" and metric.name in ("average_precision", "roc_auc")


def _with_other_groups(
    fit: Callable[[np.ndarray, np.ndarray, Scheme, Metric], Moves],
    answer: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    scheme: Scheme,
    metric: Metric,
) -> Moves:
    """The fit on all images, and of it the smallest share whose score on groups that it was not fitted on is within one standard error
    of the best share's.

    Source of the rule: Breiman et al., Classification and Regression Trees, 1984.
    """
    predicted = np.stack([metric.prediction(answer)] * len(KEPT))
    for outside in part_groups(groups, target):
        inside = others(outside, len(target))
        step = fit(answer[inside], target[inside], scheme, metric)
        for row, share in enumerate(KEPT):
            predicted[row, outside] = metric.prediction(step.kept(share)(answer[outside]))
    found = [label_evidence(metric, target, row, groups, scheme.classes) for row in predicted]
    scores = metric.sign * np.array([one.score() for one in found])
    draws = metric.sign * resample(found, generator(0, "steps"), DRAWS)
    best = scores.argmax()
    near = scores[best] - scores <= (draws[best] - draws).std(axis=1)
    return fit(answer, target, scheme, metric).kept(KEPT[near.argmax()])


def best_offsets(answer: np.ndarray, target: np.ndarray, scheme: Scheme, metric: Metric) -> Offsets:
    """The offset of each class that brings the best score on these images, found class by class until no class improves it."""
    with np.errstate(divide="ignore"):
        logs = np.log(answer)
    values = np.zeros(scheme.classes)
    score = _worth(metric, target, answer.argmax(axis=1), scheme.classes)
    images = np.arange(len(answer))
    for _ in range(PASSES):
        before = score
        for one in range(scheme.classes):
            rivals = logs + values
            rivals[:, one] = -np.inf
            rival = rivals.argmax(axis=1)
            needed = rivals[images, rival] - logs[:, one]  # the class's offset from which on the image is its own
            order = np.argsort(needed, kind="stable")
            moved = order[np.abs(needed[order]) < FARTHEST_OFFSET]
            start = np.where(needed <= -FARTHEST_OFFSET, one, rival)
            curve = _scores_along(metric, target, start, moved, np.full(len(moved), one), scheme.classes)
            places = _places(-FARTHEST_OFFSET, needed[moved], FARTHEST_OFFSET)
            # The nearest to 0 of equally good places.
            best = np.lexsort((np.abs(places), -curve.round(12)))
            best = best[~np.isnan(places[best])][0]
            if curve[best] > score + 1e-9:
                score, values[one] = curve[best], places[best]
        if score == before:
            break
    return Offsets(tuple(values.tolist()))


def best_thresholds(answer: np.ndarray, target: np.ndarray, scheme: Scheme, metric: Metric) -> Thresholds:
    """The number of each tag that brings the best score on these images, found tag by tag until no tag improves it."""
    with np.errstate(divide="ignore"):
        logits = np.log(answer) - np.log1p(-answer)
    values = np.zeros(scheme.classes)
    predicted = metric.prediction(answer)
    score = _worth(metric, target, predicted, scheme.classes)
    for _ in range(PASSES):
        before = score
        for tag in range(scheme.classes):
            borders = np.unique(np.clip(-logits[:, tag], -FARTHEST_OFFSET, FARTHEST_OFFSET))
            # Of many images, places between them that are as many images apart.
            borders = np.unique(np.quantile(borders, np.linspace(0, 1, PLACES), method="nearest"))
            for place in _places(-FARTHEST_OFFSET, borders, FARTHEST_OFFSET):
                if np.isnan(place):
                    continue
                trial = predicted.copy()
                trial[:, tag] = logits[:, tag] + place >= 0
                found = _worth(metric, target, trial, scheme.classes)
                if found > score + 1e-9:
                    score, values[tag], predicted = found, place, trial
        if score == before:
            break
    return Thresholds(tuple(values.tolist()))


def best_top_two(answer: np.ndarray, target: np.ndarray, scheme: Scheme, metric: Metric) -> TopTwo:
    """The gap of each rule that brings the best score on these images, found rule by rule until no rule improves it."""
    top, second, _, _, gap = two_most_probable(answer)
    rules = [Rule(one.name, *pair, gap=0.0) for one in scheme.targets for pair in _pairs(one)]
    near = (gap > 0) & (gap < WIDEST_GAP)
    rule_of = which_rule(scheme, rules)[top, second]
    of_rule = [np.flatnonzero((rule_of == number) & near) for number in range(len(rules))]
    of_rule = [rows[np.argsort(gap[rows], kind="stable")] for rows in of_rule]
    predicted = top.copy()
    score = _worth(metric, target, predicted, scheme.classes)
    for _ in range(PASSES):
        before = score
        for number, rows in enumerate(of_rule):
            start = predicted.copy()
            start[rows] = top[rows]
            curve = _scores_along(metric, target, start, rows, second[rows], scheme.classes)
            places = _places(0.0, gap[rows], WIDEST_GAP)
            places[0] = 0.0
            best = int(np.where(np.isnan(places), -1.0, curve.round(12)).argmax())
            if curve[best] > score + 1e-9:
                score, rules[number] = curve[best], replace(rules[number], gap=float(places[best]))
                predicted[rows] = np.where(gap[rows] <= places[best], second[rows], top[rows])
        if score == before:
            break
    return TopTwo(scheme, tuple(rules))


def _worth(metric: Metric, target: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """The score of labels (images,), better where higher."""
    return metric.sign * metric.of_prediction(target, predicted, classes)


def _scores_along(
    metric: Metric, target: np.ndarray, predicted: np.ndarray, moved: np.ndarray, taken: np.ndarray, classes: int
) -> np.ndarray:
    """Scores (moved + 1,), better where higher, when the first 0, 1, 2, ... of some images have changed their label.

    Args:
        target, predicted: the true class of every image, and its label before that (images,).
        moved: which images change (moved,), in this order.
        taken: the label of each after that (moved,).
    """
    statistics = metric.summed.statistics
    sums = np.ones(len(target)) @ statistics(target, predicted, classes)
    scores = [metric.summed.score(sums[None])]
    # Sums of every step lie side by side: some steps at a time.
    rows = max(1, BLOCK // len(sums))
    for start in range(0, len(moved), rows):
        images, after = moved[start : start + rows], taken[start : start + rows]
        change = statistics(target[images], after, classes) - statistics(target[images], predicted[images], classes)
        along = sums + (change if isinstance(change, np.ndarray) else change.toarray()).astype(float).cumsum(axis=0)
        scores.append(metric.summed.score(along))
        sums = along[-1]
    return metric.sign * np.concatenate(scores)


def _places(low: float, borders: np.ndarray, high: float) -> np.ndarray:
    """The number (borders + 1,) nearest to 0 that lies well between each border and the next, from low to high; NaN where two are one."""
    ends = np.concatenate([[low], borders, [high]])
    width = np.diff(ends)
    margin = np.minimum(width / 2, MARGIN)
    return np.where(width > 1e-9, np.clip(0.0, ends[:-1] + margin, ends[1:] - margin), np.nan)


def _pairs(target: Target) -> list[tuple[int, int]]:
    """The pairs of values between which a rule may decide."""
    return [(one, other) for one in range(len(target.values)) for other in neighbours(target, one)]


def neighbours(target: Target, value: int) -> list[int]:
    """The values between which and this one a rule may decide: those beside it where the target is cut from a number, else all others."""
    return [other for other in range(len(target.values)) if (abs(value - other) == 1 if target.cuts else value != other)]


MostProbable = tuple[Array, Array, Array, Array, Array]


def two_most_probable(answer: Array) -> MostProbable:
    """Of each image (images,): its most probable class and its second, the lower one of those that are equally likely, their scores, and
    the logarithm of the ratio of these."""
    xp = library(answer)
    top = answer.argmax(axis=1)
    # Scores are from 0 on, so that of the most probable is out of the way.
    rest = xp.where(picked(top, answer.shape[1]) > 0, -1.0, answer)
    high, low = xp.amax(answer, axis=1), xp.amax(rest, axis=1)
    with np.errstate(divide="ignore"):
        gap = xp.log(high) - xp.log(low)
    return top, rest.argmax(axis=1), high, low, gap


def exchanged(answer: Array, most: MostProbable, taken: Array) -> Array:
    """The answer (images, classes) with the scores of its two most probable classes exchanged on the images (images,) that are taken."""
    xp = library(answer)
    top, second, high, low, _ = most
    first, other = ((picked(one, answer.shape[1]) > 0) & taken[:, None] for one in (top, second))
    return xp.where(first, low[:, None], xp.where(other, high[:, None], answer))


def which_rule(scheme: Scheme, rules: Sequence[Rule]) -> np.ndarray:
    """The place (classes, classes) of the rule that applies to a most probable class and a second; -1 where none does."""
    values = scheme.split(np.arange(scheme.classes))
    differ = values[:, None] != values[None]
    alone = differ.sum(axis=2) == 1
    of_values = [np.full((size, size), -1) for size in scheme.sizes]
    for place, rule in enumerate(rules):
        of_values[scheme.names.index(rule.attribute)][rule.likeliest, rule.second] = place
    found = np.full(alone.shape, -1)
    for column, places in enumerate(of_values):
        here = alone & differ[..., column]
        found[here] = places[values[:, None, column], values[None, :, column]][here]
    return found
