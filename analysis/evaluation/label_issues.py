"""Which given labels are likely wrong, from predictions of images by models that did not train on them.

What ranks suspects is an estimate of the probability that the label is wrong, which means the same for a target that is easy to see
as for one that is hard. Suspect is what is rather wrong than right by it, and what confident learning finds (Northcutt, Jiang and
Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021, by cleanlab), which misses less and accuses more.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.members.compose import best_at
from analysis.members.trials import Runs, Sample
from trainables.data.choices import as_choices, choice, tag_choices
from trainables.data.targets import Classes
from trainables.record import RunError

CONSTANT = 0.99  # share of groups whose images must agree for a target to be one of the group
FLOOR = 1e-6  # no prediction counts as more confident than this
SHARPNESS = np.geomspace(1 / 4, 4, 33)
WRONG = np.geomspace(1e-4, 0.5, 61)
LIKELY = 1.92  # by which a log likelihood may be below the highest one within a 95 % interval: half of chi-squared's quantile


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong: of every image of a group that was given it, of one image, or of two that seem swapped."""

    images: tuple[str, ...]
    group: int  # as in split.csv
    target: str
    given: str  # of a swap: the first image's, which is suggested for the second
    suggested: str  # of a swap: the first image's, which was given to the second
    score: float  # estimated probability that the given label is wrong
    kind: Literal["person", "photo", "swap"]

    def changes(self) -> list[tuple[str, str, str]]:
        """The image, what it was given, and what is suggested, for each image."""
        pairs = [(self.given, self.suggested)] * len(self.images)
        if self.kind == "swap":
            pairs[1] = (self.suggested, self.given)
        return [(image, *pair) for image, pair in zip(self.images, pairs, strict=True)]


@dataclass(frozen=True)
class Noise:
    """How labels come to differ from predictions: the model is unsure, or the label is wrong."""

    sharpness: float  # log probabilities times this are calibrated: below 1 the models were too sure
    wrong: float  # share of labels that are wrong
    between: tuple[float, float] = (0.0, 1.0)  # 95 % likelihood interval of that share


@dataclass(frozen=True)
class Evaluation:
    """How one target was evaluated."""

    target: str
    trials: tuple[str, ...]  # whose mean prediction evaluated, best first
    by_group: bool  # evaluated once a group, from all images
    noise: Noise


@dataclass(frozen=True)
class Findings:
    """All suspects, and what was looked at."""

    suspects: tuple[Suspect, ...]  # most probable to be wrong first
    evaluations: tuple[Evaluation, ...]
    uncovered: tuple[str, ...]  # targets that no trial predicts
    evaluated: tuple[int, ...]  # groups, as in split.csv
    unevaluated: dict[int, str]  # the part of each group that no model predicted: `holdout`, `fold 1`, ...


def find_suspects(runs: Runs, top: int) -> Findings:
    """Evaluate every target by the mean of the `top` trials that are best at it, or as many as there are.

    Raises: RunError when `top` is below 1.
    """
    if top < 1:
        raise RunError(f"--top is {top}; take 1 or more")
    evaluations, suspects, uncovered = [], [], []
    sample = as_choices(runs.valid)
    for target, ranked, answers in _asked(runs):
        trials = ranked[:top]
        if not trials:
            uncovered.append(target.name)
            continue
        noise, by_group, found = evaluate(sample, target, np.mean([answers[trial] for trial in trials], axis=0))
        evaluations.append(Evaluation(target.name, tuple(trials), by_group, noise))
        suspects += found
    ranked = sorted(suspects, key=lambda suspect: -suspect.score)
    evaluated = set(runs.valid.groups.tolist())
    parts = {
        group: part
        for sample in (runs.learned, runs.holdout)
        for group, part in zip(sample.groups.tolist(), sample.parts.tolist(), strict=True)
    }
    unevaluated = {group: part for group, part in sorted(parts.items()) if group not in evaluated}
    return Findings(tuple(ranked), tuple(evaluations), tuple(uncovered), tuple(sorted(evaluated)), unevaluated)


def _asked(runs: Runs) -> Iterator[tuple[Classes, list[str], dict[str, np.ndarray]]]:
    """Each target of classes that the run's metric scores, or each tag as one; the trials that predict it, best first; what they answer."""
    schemes = {trial.name: trial.task.scheme for trial in runs.trials}
    predicted = {trial.name: trial.valid for trial in runs.trials}
    if runs.scheme.kind == "tags":
        for place, tag in enumerate(tag_choices(runs.scheme)):
            columns, truth = {trial: one[:, [place]] for trial, one in predicted.items()}, runs.valid.truth(runs.scheme)[:, [place]]
            ranked = best_at(runs.scheme.names, schemes, columns, truth, runs.metric)
            yield tag, ranked, {trial: choice(predicted[trial], place) for trial in ranked}
        return
    for column, target in enumerate(one for one in runs.scheme.targets if isinstance(one, Classes)):
        names = (target.name,)
        ranked = best_at(names, schemes, predicted, runs.valid.labels[:, column], runs.metric)
        yield target, ranked, {trial: schemes[trial].marginal(names, predicted[trial]) for trial in ranked}


def evaluate(sample: Sample, target: Classes, probabilities: np.ndarray) -> tuple[Noise, bool, list[Suspect]]:
    """What is wrong with one target: its noise, whether groups were evaluated in place of images, and the suspects.

    A target on which nearly all groups' images agree is evaluated by the mean log probability over a group's images, once for each
    value that they were given; any other one image by image.

    Args:
        probabilities: (images, values of the target).
    """
    given = sample.labels[:, sample.scheme.names.index(target.name)]
    _, group = np.unique(sample.groups, return_inverse=True)
    logs = np.log(np.maximum(probabilities, FLOOR))
    by_group = is_constant(group, given)
    from cleanlab.filter import find_label_issues

    unit = np.arange(len(given))
    if by_group:
        logs = (_sums(group, logs) / np.bincount(group)[:, None])[group]
        unit = group * len(target.values) + given
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    labels = given[first]
    noise = fit_noise(logs[first], labels)
    chances = sharpened(logs[first], noise.sharpness)
    scores = wrong_probability(chances, labels, noise)
    # Confident learning asks which labels stand out in their class, and may pass over one in a class that has few of them.
    issues = scores > 0.5
    if len(np.unique(labels)) > 1:
        with warnings.catch_warnings():
            # It warns of each class of few images; the command says how many there are.
            warnings.filterwarnings("ignore", "May not flag all label issues")
            issues |= find_label_issues(labels, chances, n_jobs=1)
    others = chances.copy()
    others[np.arange(len(labels)), labels] = -1
    suggested = others.argmax(axis=1)

    images_of = defaultdict(list)
    for image, number in zip(sample.ids, unit.tolist(), strict=True):
        images_of[number].append(image)

    def suspect(units: Sequence[int], score: float, kind: Literal["person", "photo", "swap"]) -> Suspect:
        images = tuple(image for number in units for image in images_of[number])
        values = (target.values[labels[units[0]]], target.values[suggested[units[0]]])
        return Suspect(images, int(sample.groups[first[units[0]]]), target.name, *values, float(score), kind)

    if by_group:
        return noise, True, [suspect([number], scores[number], "person") for number in np.flatnonzero(issues).tolist()]
    swaps = dict(_swaps(group, chances, labels, issues, noise))
    single = issues.copy()
    single[[number for pair in swaps for number in pair]] = False
    found = [suspect(pair, score, "swap") for pair, score in swaps.items()]
    return noise, False, found + [suspect([number], scores[number], "photo") for number in np.flatnonzero(single).tolist()]


def is_constant(group: np.ndarray, given: np.ndarray) -> bool:
    """Whether at least 99 % of the groups (n,) with several images were given one value (n,) on all of them."""
    values = np.unique(np.stack([group, given], axis=-1), axis=0)[:, 0]
    images, kinds = np.bincount(group), np.bincount(values)
    several = images > 1
    return bool(several.any() and (kinds[several] == 1).mean() >= CONSTANT)


def fit_noise(logs: np.ndarray, given: np.ndarray) -> Noise:
    """The most probable sharpness and share of wrong labels, from log probabilities (n, values) and given labels (n,).

    A label is drawn as the calibrated prediction says; a share of them then becomes any other value. A label that surprises an unsure
    model asks for less sharpness, one that surprises a sure model for a wrong label. Of a few labels both explain a surprise alike, so
    the share is sought as if one more label were known to be wrong. The pair is sought on a grid; the share's interval is that of its
    profile likelihood.
    Sources: Guo et al., On Calibration of Modern Neural Networks, 2017; Huber, Robust Estimation of a Location Parameter, 1964.
    """
    likelihood = np.empty((len(SHARPNESS), len(WRONG)))
    for row, sharpness in zip(likelihood, SHARPNESS.tolist(), strict=True):
        right = np.take_along_axis(sharpened(logs, sharpness), given[:, None], axis=1)[:, 0]
        row[:] = [np.log(wrong) + np.log(_likelihood(right, wrong, logs.shape[1])).sum() for wrong in WRONG.tolist()]
    sharpness, wrong = np.unravel_index(likelihood.argmax(), likelihood.shape)
    possible = WRONG[likelihood.max(axis=0) >= likelihood.max() - LIKELY]
    return Noise(float(SHARPNESS[sharpness]), float(WRONG[wrong]), (float(possible[0]), float(possible[-1])))


def sharpened(logs: np.ndarray, sharpness: float) -> np.ndarray:
    """Probabilities (n, values) in proportion to the exponential of log probabilities times the sharpness."""
    powers = np.exp(sharpness * (logs - logs.max(axis=1, keepdims=True)))
    return powers / powers.sum(axis=1, keepdims=True)


def wrong_probability(chances: np.ndarray, given: np.ndarray, noise: Noise) -> np.ndarray:
    """How probable it is (n,) that the given label (n,) is wrong, from calibrated predictions (n, values), by Bayes' rule."""
    right = np.take_along_axis(chances, given[:, None], axis=1)[:, 0]
    return 1 - (1 - noise.wrong) * right / _likelihood(right, noise.wrong, chances.shape[1])


def _likelihood(right: np.ndarray, wrong: float, values: int) -> np.ndarray:
    """Of labels whose value has the calibrated probability `right`."""
    return (1 - wrong) * right + wrong * (1 - right) / (values - 1)


def _swaps(
    group: np.ndarray, chances: np.ndarray, given: np.ndarray, issues: np.ndarray, noise: Noise
) -> Iterator[tuple[tuple[int, int], float]]:
    """Pairs of images of one group that are taken for what the other was given, and how probable the swap is.

    At least one image of a pair is an issue by itself. One swap is as probable as one wrong label: both images are evidence of one mishap.
    """
    predicted = chances.argmax(axis=1)
    alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    surprising = np.flatnonzero(predicted != given)
    odds = np.zeros(len(given))
    odds[surprising] = chances[surprising, predicted[surprising]] / np.maximum(chances[surprising, given[surprising]], FLOOR)
    for number in surprising[np.argsort(-odds[surprising], kind="stable")].tolist():
        alike[group[number], given[number], predicted[number]].append(number)
    prior = noise.wrong / (1 - noise.wrong) / (chances.shape[1] - 1)
    for (who, low, high), images in alike.items():
        if low < high:
            for pair in zip(images, alike.get((who, high, low), ()), strict=False):
                if issues[list(pair)].any():
                    both = prior * odds[list(pair)].prod()
                    yield pair, both / (1 + both)


def _sums(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums (groups, columns) of rows of values (n, columns)."""
    return np.stack([np.bincount(group, column) for column in values.T], axis=-1)
