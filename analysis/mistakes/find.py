"""Mistakes of an answer as plain records: confusions, the largest errors, where members disagree, subgroups with more errors.

Errors are wrong classes, wrong tags, or how far a number is off.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from analysis.evaluation.disaggregated import FEW
from analysis.members.heatmaps import Question
from analysis.members.trials import Sample
from analysis.pages.errors import Subgroup
from trainables.data.choices import as_choices, choice, tag_choices
from trainables.data.targets import Kind, Scheme
from trainables.metrics import METRICS, Metric, target_scores
from trainables.metrics.confusion import confusion
from trainables.metrics.evidence import interval

NEAR = 2  # of a cut, in the unit of the number
FIFTHS = ("darkest fifth", "second fifth", "middle fifth", "fourth fifth", "brightest fifth")
THIRDS = ("lowest", "middle", "highest")

SHOWN = 200  # images of a kind, at most


@dataclass(frozen=True)
class Confusion:
    """What is taken for what, in all targets together or in one."""

    name: str  # of the target or the tag; empty for all targets together
    scheme: Scheme
    counts: np.ndarray  # (classes, classes): rows true, columns predicted
    score: float  # by the run's metric
    accuracy: float


@dataclass(frozen=True)
class TagErrors:
    """How one tag does."""

    name: str
    images: int  # that have it
    missed: int  # of these
    missed_share: float | None  # None where no image has it
    extra: int  # images that have it not and got it
    extra_share: float | None  # of those that have it not
    score: float  # by the run's metric


@dataclass(frozen=True)
class Error:
    """A wrong answer on an image, which may have several tags wrong, or a predicted number."""

    image: str
    group: int
    true: str  # the name of its class, a tag or its absence, or a number
    predicted: str
    size: float  # the probability of what is predicted, or how far a number is off


@dataclass(frozen=True)
class Disagreement:
    """An image on which members disagree."""

    image: str
    group: int
    true: str
    divergence: float  # from 0, all alike, to 1, each certain of another class; of numbers their standard deviation
    answers: tuple[str, ...]  # the most probable class of each member, or its number

    @property
    def tally(self) -> tuple[tuple[str, int], ...]:
        """The answers and their votes, most votes first."""
        return tuple(Counter(self.answers).most_common())


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer, the members behind it, and the images that they were given."""

    metric: Metric  # the run's
    part: str  # validation or holdout
    sample: Sample
    scheme: Scheme  # of what is answered
    members: tuple[str, ...]
    probabilities: np.ndarray  # (members, images, columns): what each member answers
    answer: np.ndarray  # (images, columns)

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.sample.ids)

    @property
    def groups(self) -> int:
        """How many groups these are of."""
        return len(np.unique(self.sample.groups))


@dataclass(frozen=True)
class Mistakes:
    """Everything that an answer gets wrong, as the command shows it."""

    kind: Kind  # of the targets
    wrong: np.ndarray  # (images,) whether an image is answered wrongly, in any of its tags; how far its number is off
    confusions: list[Confusion]
    errors: list[Error]
    disagreements: list[Disagreement]
    subgroups: list[Subgroup]

    @property
    def rate(self) -> float:
        """Errors an image: the share of images that are answered wrongly, or the mean absolute error of a number."""
        return float(self.wrong.mean())


def questions(answered: Answered, image: str, about: str) -> list[Question]:
    """What to ask heat maps of an image of.

    Of classes it is the answer's value of each target that is wrong, or that members disagree on; of tags the one that an error or a
    disagreement is about; of a number that itself.

    Args:
        about: what is true of it, in the words of the record: a tag or its absence.
    """
    scheme, row = answered.scheme, answered.sample.ids.index(image)
    if scheme.kind == "number":
        return [Question(image, scheme.names[0], 0)]
    if scheme.kind == "tags":
        tag = next(tag.name for tag in tag_choices(scheme) if about in tag.values)
        return [Question(image, one.name, one.values.index(tag)) for one in scheme.targets if tag in one.values][:1]
    said, true = (scheme.split(np.array([joint]))[0] for joint in (answered.answer[row].argmax(), answered.sample.truth(scheme)[row]))
    votes = scheme.split(answered.probabilities[:, row].argmax(axis=1))
    asked = (said != true) | (votes != votes[0]).any(axis=0)
    return [Question(image, name, int(value)) for name, value, wanted in zip(scheme.names, said, asked, strict=True) if wanted]


def find_mistakes(answered: Answered, inside: Mapping[str, np.ndarray], rng: np.random.Generator) -> Mistakes:
    """What an answer gets wrong, whichever kind of target it is of.

    Args:
        inside: what `subgroups` takes.
        rng: draws the groups behind the intervals of the subgroups.
    """
    wrong, matrices, errors, apart = FINDERS[answered.scheme.kind](answered)
    return Mistakes(answered.scheme.kind, wrong, matrices, errors, apart, subgroups(wrong, answered.sample.groups, inside, rng))


Found = tuple[np.ndarray, list[Confusion], list[Error], list[Disagreement]]  # the fields of `Mistakes`, in their order


def _of_classes(answered: Answered) -> Found:
    sample, scheme, answer = answered.sample, answered.scheme, answered.answer
    matrices = confusions(answer, sample, scheme, answered.metric)
    wrong = answer.argmax(axis=1) != sample.truth(scheme)
    return wrong, matrices, confident_errors(answer, sample, scheme), disagreement(answered.probabilities, sample, scheme)


def _of_tags(answered: Answered) -> Found:
    """Each tag by itself; an image is answered wrongly if it has any tag wrong."""
    sample, metric = as_choices(answered.sample), answered.metric
    truth = answered.sample.truth(answered.scheme)
    wrong = np.zeros(len(sample.ids), dtype=bool)
    matrices: list[Confusion] = []
    errors: list[Error] = []
    apart: list[Disagreement] = []
    for place, tag in enumerate(tag_choices(answered.scheme)):
        part, answer = Scheme((tag,)), choice(answered.answer, place)
        true, predicted = sample.truth(part), answer.argmax(axis=1)
        wrong |= true != predicted
        scores = metric.score(truth[:, [place]], answered.answer[:, [place]]), float((true == predicted).mean())
        matrices.append(Confusion(tag.name, part, confusion(true, predicted, part.classes), *scores))
        errors += confident_errors(answer, sample, part)
        apart += disagreement(choice(answered.probabilities, place), sample, part)
    errors.sort(key=lambda error: -error.size)
    apart.sort(key=lambda one: -one.divergence)
    return wrong, matrices, errors, apart


def tag_errors(found: Mistakes) -> list[TagErrors]:
    """What the confusions of tags say of each."""
    rows = []
    for one in found.confusions:
        (right, missed), (extra, absent) = one.counts.tolist()
        there, elsewhere = right + missed, extra + absent
        shares = missed / there if there else None, extra / elsewhere if elsewhere else None
        rows.append(TagErrors(one.name, there, missed, shares[0], extra, shares[1], one.score))
    return rows


def worst_first(tags: list[TagErrors]) -> list[TagErrors]:
    """Those with the most errors first."""
    return sorted(tags, key=lambda tag: -tag.missed - tag.extra)


def _of_numbers(answered: Answered) -> Found:
    """Every image, as no number is hit exactly: those furthest off first."""
    sample, truth = answered.sample, answered.sample.truth(answered.scheme)
    predicted, votes = answered.answer[:, 0], answered.probabilities[:, :, 0]
    off, spread = np.abs(predicted - truth), votes.std(axis=0)
    groups = sample.groups.tolist()

    def ranked(by: np.ndarray) -> list[int]:
        return np.argsort(-by, kind="stable").tolist()

    errors = [Error(sample.ids[row], groups[row], f"{truth[row]:.4g}", f"{predicted[row]:.4g}", float(off[row])) for row in ranked(off)]
    apart = [
        Disagreement(sample.ids[row], groups[row], f"{truth[row]:.4g}", float(spread[row]), tuple(f"{one:.4g}" for one in votes[:, row]))
        for row in ranked(spread)
        if spread[row] > 0
    ]
    return off, [], errors, apart


FINDERS: dict[Kind, Callable[[Answered], Found]] = {"classes": _of_classes, "tags": _of_tags, "number": _of_numbers}


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


def confident_errors(answer: np.ndarray, sample: Sample, scheme: Scheme, most: int | None = None) -> list[Error]:
    """The images that an answer (images, classes) gets wrong, the most confident first; at most so many, or all."""
    truth, predicted, sure = sample.truth(scheme), answer.argmax(axis=1), answer.max(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    names = scheme.class_names()
    return [
        Error(sample.ids[row], int(sample.groups[row]), names[truth[row]], names[predicted[row]], float(sure[row]))
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
    predicted, apart, truth = probabilities.argmax(axis=2), divergence(probabilities), sample.truth(scheme)
    rows = np.flatnonzero((predicted != predicted[0]).any(axis=0))
    names = scheme.class_names()
    return [
        Disagreement(
            sample.ids[row], int(sample.groups[row]), names[truth[row]], float(apart[row]), tuple(names[one] for one in predicted[:, row])
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
        wrong: whether an image's answer is wrong, or how far it is off (images,).
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
                errors=float(here[0].sum()),
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
    for target in sample.scheme.targets:
        if target.kind == "classes":
            continue
        truth = sample.truth(sample.scheme.part((target.name,)))
        if target.kind == "tags":
            inside |= {f"{target.name}: {name}": there for name, there in zip(target.values, truth.T, strict=True)}
            continue
        third = np.digitize(truth, np.quantile(truth, [1 / 3, 2 / 3]))
        inside |= {f"{target.name}: {name} third": third == number for number, name in enumerate(THIRDS)}
    inside["no face detected"] = np.isin(sample.ids, list(without_face))
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
