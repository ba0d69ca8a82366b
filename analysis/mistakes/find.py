"""Mistakes of an answer as plain records: confusions, the most confident errors, where members disagree, subgroups with more errors."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from analysis.members.trials import Sample
from trainables.data.targets import Scheme
from trainables.metrics import METRICS, Metric, target_scores
from trainables.metrics.confusion import confusion
from trainables.metrics.evidence import interval

NEAR = 2  # of a cut, in the unit of the number
FIFTHS = ("darkest fifth", "second fifth", "middle fifth", "fourth fifth", "brightest fifth")
FEW = 10  # groups; of fewer, on either side, an interval by resampling them means nothing


@dataclass(frozen=True)
class Confusion:
    """What is taken for what, in all targets together or in one."""

    name: str  # of the target; empty for all together
    scheme: Scheme
    counts: np.ndarray  # (classes, classes): rows true, columns predicted
    score: float  # by the run's metric
    accuracy: float


@dataclass(frozen=True)
class ConfidentError:
    """An image that is answered wrongly."""

    image: str
    group: int
    true: str  # the name of its class
    predicted: str
    probability: float  # of the predicted class


@dataclass(frozen=True)
class Disagreement:
    """An image on which members disagree."""

    image: str
    group: int
    true: str
    divergence: float  # from 0, all alike, to 1, each certain of another class
    answers: tuple[str, ...]  # the most probable class of each member

    @property
    def tally(self) -> tuple[tuple[str, int], ...]:
        """The answers and their votes, most votes first."""
        return tuple(Counter(self.answers).most_common())


@dataclass(frozen=True)
class Subgroup:
    """Images that have something in common, beside all others."""

    name: str
    images: int
    groups: int
    errors: int
    rate: float  # errors an image
    elsewhere: float  # the same of the other images
    interval: tuple[float, float] | None  # 95 %, of the difference of the two, over groups; None of too few groups

    @property
    def distinguishable(self) -> bool:
        """Whether the interval of the difference leaves 0 out."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, the members behind it, and the images that they were given."""

    metric: Metric  # the run's
    side: str  # validation or holdout
    sample: Sample
    scheme: Scheme  # of what is answered
    members: tuple[str, ...]
    probabilities: np.ndarray  # (members, images, classes)
    answer: np.ndarray  # (images, classes)


@dataclass(frozen=True)
class Mistakes:
    """Everything that an answer gets wrong, as the command shows it."""

    confusions: list[Confusion]
    errors: list[ConfidentError]
    disagreements: list[Disagreement]
    subgroups: list[Subgroup]


def confusions(answer: np.ndarray, sample: Sample, scheme: Scheme, metric: Metric) -> list[Confusion]:
    """What an answer (images, classes) takes for what: in all targets together, then in each of them."""
    truth, predicted = sample.truth(scheme), answer.argmax(axis=1)
    right = METRICS["accuracy"]
    found = [Confusion("", scheme, confusion(truth, predicted, scheme.classes), metric.score(truth, answer), right.score(truth, answer))]
    true_values, predicted_values = scheme.split(truth), scheme.split(predicted)
    scores, accuracies = (target_scores(one, scheme, truth, answer) for one in (metric, right))
    for column, attribute in enumerate(scheme.targets):
        name = attribute.name
        counts = confusion(true_values[:, column], predicted_values[:, column], len(attribute.values))
        found.append(Confusion(name, scheme.part((name,)), counts, scores[name], accuracies[name]))
    return found


def confident_errors(answer: np.ndarray, sample: Sample, scheme: Scheme, most: int | None = None) -> list[ConfidentError]:
    """The images that an answer (images, classes) gets wrong, the most confident first; at most so many, or all."""
    truth, predicted, sure = sample.truth(scheme), answer.argmax(axis=1), answer.max(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    names = scheme.class_names()
    return [
        ConfidentError(sample.ids[row], int(sample.groups[row]), names[truth[row]], names[predicted[row]], float(sure[row]))
        for row in wrong[np.argsort(-sure[wrong], kind="stable")][:most]
    ]


def divergence(probabilities: np.ndarray) -> np.ndarray:
    """How far members (members, images, classes) are apart on each image (images,): 0 where all say the same, 1 where each is certain of
    another class; 0 for one member.

    It is the entropy of their mean less the mean of their entropies, as a share of the most that so many members can reach.
    Source: Lin, Divergence measures based on the Shannon entropy, 1991.
    """
    members = len(probabilities)
    if members == 1:
        return np.zeros(probabilities.shape[1])
    apart = _entropy(probabilities.mean(axis=0)) - _entropy(probabilities).mean(axis=0)
    return np.clip(apart / np.log(members), 0, 1)


def disagreement(probabilities: np.ndarray, sample: Sample, scheme: Scheme, most: int | None = None) -> list[Disagreement]:
    """The images that members (members, images, classes) answer differently, those first on which they are furthest apart."""
    likeliest, apart, truth = probabilities.argmax(axis=2), divergence(probabilities), sample.truth(scheme)
    rows = np.flatnonzero((likeliest != likeliest[0]).any(axis=0))
    names = scheme.class_names()
    return [
        Disagreement(
            sample.ids[row], int(sample.groups[row]), names[truth[row]], float(apart[row]), tuple(names[one] for one in likeliest[:, row])
        )
        for row in rows[np.argsort(-apart[rows], kind="stable")][:most]
    ]


def subgroups(
    wrong: np.ndarray, groups: np.ndarray, inside: Mapping[str, np.ndarray], rng: np.random.Generator, draws: int = 1000
) -> list[Subgroup]:
    """How errors fall on subgroups of the images; those first whose errors are most surely more frequent than elsewhere.

    Whole groups are drawn, the same ones for every subgroup: images of one group are no independent evidence. A subgroup of no image, or
    of all, is left out.

    Args:
        wrong: whether an image's answer is wrong (images,).
        groups: any group ids (images,).
        inside: by a group's name, which images belong to it (images,), bool.
    """
    _, group = np.unique(groups, return_inverse=True)
    count = group.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    found = []
    for name, chosen in inside.items():
        if chosen.all() or not chosen.any():
            continue
        here, there = _tally(wrong, group, chosen, count), _tally(wrong, group, ~chosen, count)
        known = min((here[1] > 0).sum(), (there[1] > 0).sum()) >= FEW
        found.append(
            Subgroup(
                name=name,
                images=int(here[1].sum()),
                groups=int((here[1] > 0).sum()),
                errors=int(here[0].sum()),
                rate=float(np.divide(*here.sum(axis=1))),
                elsewhere=float(np.divide(*there.sum(axis=1))),
                interval=_difference(here @ drawn.T, there @ drawn.T) if known else None,
            )
        )
    return sorted(found, key=lambda group: -(group.interval[0] if group.interval else -1))


def subgroups_of(
    sample: Sample,
    *,
    numbers: np.ndarray | None = None,
    brightness: np.ndarray | None = None,
    shorter: np.ndarray | None = None,
    without_face: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Which images belong together, by the name of what they have in common: (images,) bool each.

    Args:
        numbers: what the attributes with cuts are cut from (images,).
        brightness: of what the models see (images,), in any unit.
        shorter: the shorter side of each file's picture in pixels (images,).
        without_face: ids of images in which no face was found.
    """
    inside = {}
    for attribute, values in zip(sample.scheme.of_kind("classes").targets, sample.labels.T, strict=True):
        inside |= {f"{attribute.name}: {name}": values == value for value, name in enumerate(attribute.values)}
        if attribute.cuts and numbers is not None:
            near = np.abs(numbers[:, None] - np.array(attribute.cuts)).min(axis=1) <= NEAR
            inside[f"{attribute.name}: within {NEAR} of a cut"] = near
    inside["no face found"] = np.isin(sample.ids, list(without_face))
    if brightness is not None:
        fifth = np.digitize(brightness, np.quantile(brightness, [0.2, 0.4, 0.6, 0.8]))
        inside |= {f"brightness: {name}": fifth == number for number, name in enumerate(FIFTHS)}
    if shorter is not None:
        inside[f"file smaller than most: a side below {np.median(shorter):g} pixels"] = shorter < np.median(shorter)
    return inside | _shots(sample)


def _tally(wrong: np.ndarray, group: np.ndarray, chosen: np.ndarray, groups: int) -> np.ndarray:
    """Errors and images (2, groups) of each group among the chosen images."""
    return np.stack([np.bincount(group[chosen], weights, groups) for weights in (wrong[chosen], np.ones(chosen.sum()))])


def _difference(here: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """The interval of the difference of two rates, each of errors and images (2, draws); draws that lack one of the two do not count."""
    seen = (here[1] > 0) & (there[1] > 0)
    return interval(here[0, seen] / here[1, seen] - there[0, seen] / there[1, seen])


def _shots(sample: Sample) -> dict[str, np.ndarray]:
    """The images of each file name, without its ending, that most groups have."""
    stems = np.array([PurePosixPath(image).stem for image in sample.ids])
    groups = len(np.unique(sample.groups))
    inside = {f"shot {stem}": stems == stem for stem in np.unique(stems)} if len(set(stems)) < len(stems) else {}
    return {name: chosen for name, chosen in inside.items() if 2 * len(np.unique(sample.groups[chosen])) > groups}


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of the last axis, in nats."""
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logs).sum(axis=-1)
