"""Which images train, and with which labels. What `labels/...` changes is changed here, so validation and hold-out never see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np

from trainables.data.choices import with_choices
from trainables.data.images import Images, strata_of
from trainables.data.settings import LabelsConfig
from trainables.data.splits import NO_FOLD, Split
from trainables.data.targets import Scheme, Task
from trainables.data.views import View, ViewFile, ViewFiles, statistics_of
from trainables.registry import ConfigError, Mistake

COUNTED = 300  # joint classes, at most, of which each epoch's report counts how often they were shown

ChannelStatistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per channel, on the scale 0 to 1


@dataclass(frozen=True)
class Extra:
    """Further images that only train."""

    images: Images
    views: Mapping[View, ViewFile]
    soft: np.ndarray | None = None  # (n, classes of the scheme) float32: probabilities in place of labels
    unlabelled: bool = False  # whether their labels say nothing
    validates: np.ndarray | None = None  # (n, folds) whether the image's group is in a fold; None: in none

    def apart(self, fold: int) -> np.ndarray:
        """Whether each image (n,) must not train while this fold, or NO_FOLD, validates."""
        if self.validates is None or not 0 <= fold < self.validates.shape[1]:
            return np.zeros(len(self.images), dtype=bool)
        return self.validates[:, fold]


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher answers for the images of a run, to learn from in place of labels."""

    scheme: Scheme  # the targets that it answers for, which are of one kind
    answers: np.ndarray  # (n, columns) float32, rows as the images; NaN where it has no answer

    def target(self, part: Scheme, labels: np.ndarray, chosen: np.ndarray, share: float) -> np.ndarray:
        """What a head is taught of some images: this share of the teacher's answer, and the rest of their labels.

        Args:
            part: the targets of the head.
            labels: of the chosen images: class ids (m,), or rows (m, columns).
            chosen: (m,) which images.
        """
        if not share or part.kind != self.scheme.kind or not set(part.names) <= set(self.scheme.names):
            return labels
        answer = self.scheme.marginal(part.names, self.answers[chosen])
        rows = labels if labels.ndim == 2 else np.eye(part.classes, dtype=np.float32)[labels]
        return np.where(np.isnan(answer), rows, share * answer + (1 - share) * rows).astype(np.float32)


@dataclass(frozen=True)
class Data:
    """The images of a run as its trials need them."""

    images: Images
    split: Split
    views: Mapping[View, ViewFile]
    statistics: Mapping[View, ChannelStatistics]  # of the training images, where some trial may normalise by them
    extra: tuple[Extra, ...] = ()
    relabelled: Mapping[str, np.ndarray] = field(default_factory=dict)  # (n, Classes + tags) by the value of labels/relabel
    weights: np.ndarray | None = None  # (n,) relative weight with which each image is shown
    taught: Taught | None = None  # what a teacher answers for the images

    def only(self, fold: int) -> Self:
        """The data of which one fold alone trains, nothing beside it; all of it for NO_FOLD."""
        return self if fold == NO_FOLD else replace(self, split=replace(self.split, only=fold), extra=())

    @classmethod
    def of(cls, images: Images, split: Split, views: ViewFiles, *, with_statistics: bool) -> Self:
        """The images of a run with nothing beside them, and with the statistics of each view where some trial normalises by them."""
        train = images.take(split.train).ids
        statistics = {view: statistics_of(file, train) for view, file in views.files.items()} if with_statistics else {}
        return cls(images, split, views.files, statistics)


@dataclass(frozen=True)
class TrainingImages:
    """The images that a trial trains on; arrays are parallel, one entry an image."""

    ids: np.ndarray  # (n,) names, for the error that one of them may be
    source: np.ndarray  # (n,) 0: the run's own images; from 1 on the extra ones
    groups: np.ndarray  # (n,) index of the group over all sources
    classes: np.ndarray  # (n,) joint classes of the task, or what stands for them (`strata_of`), for the sampler
    targets: tuple[np.ndarray, ...]  # per head: class ids (n,), or rows (n, classes) where some labels are soft; tags; numbers (n, 1)
    numbers: np.ndarray  # (n,) float32: what the ordinal target is cut from; NaN where that is unknown
    weights: np.ndarray  # (n,) relative weight with which it is shown

    @classmethod
    def without_labels(cls, ids: np.ndarray, source: np.ndarray) -> Self:
        """Images (n,) of which nothing but their names is known, and of which source each is."""
        total = len(ids)
        return cls(
            ids=ids,
            source=source,
            groups=np.arange(total),
            classes=np.zeros(total, dtype=int),
            targets=(),
            numbers=np.full(total, np.nan, dtype=np.float32),
            weights=np.ones(total),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: np.ndarray | slice) -> Self:
        """Some of the images."""
        taken = {item.name: getattr(self, item.name)[positions] for item in fields(self) if item.name != "targets"}
        return replace(self, **taken, targets=tuple(target[positions] for target in self.targets))


def count_shown(images: TrainingImages, positions: np.ndarray, task: Task) -> list[int]:
    """How often each joint class of a task, or each tag, is among positions of its training images, which may repeat.

    Soft labels count as their most probable class, or in part. Nothing for numbers, and for more classes than COUNTED.
    """
    scheme = task.scheme.of_kind(task.scheme.kinds[0])
    if scheme.kind == "number" or scheme.classes > COUNTED:
        return []
    if scheme.kind == "classes":
        return np.bincount(images.classes[positions], minlength=scheme.classes).tolist()
    counts: dict[tuple[str, str], float] = {}
    for part, rows in zip(task.head_schemes, images.targets, strict=True):
        if part.kind == "tags":
            names = [(target.name, value) for target in part.targets for value in target.values]
            counts |= dict(zip(names, rows[positions].sum(axis=0).tolist(), strict=True))
    return [round(counts[target.name, value]) for target in scheme.targets for value in target.values]


def training_images(settings: LabelsConfig, data: Data, task: Task) -> TrainingImages:
    """The training part of the split with the labels that the settings ask for, then the extra images.

    Raises: ConfigError when a setting asks for numbers that the data has not, or leaves a class of the task without images.
    """
    found = [_own(settings, data, task)]
    # Read where there are such images alone, so that a space which searches it without any is refused.
    labelled = [(source, extra) for source, extra in enumerate(data.extra, start=1) if not extra.unlabelled]
    if labelled and settings.extra:
        found += [_extra(settings, extra, source, task, data.split.fold) for source, extra in labelled]
    targets = [_joined([one.targets[head] for one in found], scheme.classes) for head, scheme in enumerate(task.head_schemes)]
    others = [item.name for item in fields(TrainingImages) if item.name not in ("groups", "targets")]
    joined = {name: np.concatenate([getattr(one, name) for one in found]) for name in others}
    first = np.cumsum([0, *(one.groups.max(initial=-1) + 1 for one in found[:-1])])
    groups = np.concatenate([one.groups + start for one, start in zip(found, first, strict=True)])
    return TrainingImages(**joined, groups=groups, targets=tuple(targets))


def unlabelled_images(data: Data) -> TrainingImages:
    """The images without labels that may train."""
    found = [
        (np.array(extra.images.ids, dtype=object)[~extra.apart(data.split.fold)], source)
        for source, extra in enumerate(data.extra, start=1)
        if extra.unlabelled
    ]
    ids = np.concatenate([np.empty(0, dtype=object), *(names for names, _ in found)])
    return TrainingImages.without_labels(ids, np.concatenate([np.empty(0, dtype=int), *(np.full(len(names), one) for names, one in found)]))


def jittered(numbers: np.ndarray, groups: np.ndarray, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Numbers (n,) of which those at the cap, the largest there is, are moved up by a Poisson draw a group.

    A number that was capped hides how large it was; report 001 drew it again with a mean of 5 years.
    """
    drawn = rng.poisson(mean, size=groups.max(initial=-1) + 1)[groups]
    return np.where(numbers == np.nanmax(numbers), numbers + drawn, numbers).astype(np.float32)


def _own(settings: LabelsConfig, data: Data, task: Task) -> TrainingImages:
    images, train = data.images, data.split.train
    _refuse_unknown_numbers(settings, images)
    if settings.relabel != "none":
        images = _corrected(images, data.relabelled[settings.relabel])
    kept, images = train[_stay(settings, images)[train]], _cut_again(settings, images)
    taught = _plain(images, kept, 0, task)
    if "classes" in task.scheme.kinds:
        _refuse_lost_classes(settings, _plain(data.images, train, 0, task).classes, taught.classes, task)
    if data.taught:
        parts = zip(task.head_schemes, taught.targets, strict=True)
        taught = replace(taught, targets=tuple(data.taught.target(part, labels, kept, settings.teacher) for part, labels in parts))
    return taught if data.weights is None else replace(taught, weights=data.weights[kept])


def _extra(settings: LabelsConfig, extra: Extra, source: int, task: Task, fold: int) -> TrainingImages:
    images, may = extra.images, ~extra.apart(fold)
    if extra.soft is None:
        return _plain(_cut_again(settings, images), np.flatnonzero(_stay(settings, images) & may), source, task)
    sure = np.flatnonzero((_certainty(images.scheme, extra.soft) >= settings.confidence) & may)
    parts = [images.scheme.marginal(part.names, extra.soft[sure]).astype(np.float32) for part in task.head_schemes]
    taught = replace(_plain(images, sure, source, task), targets=tuple(parts))
    if images.scheme.kind != "classes":
        return taught
    return replace(taught, classes=images.scheme.marginal(task.scheme.names, extra.soft[sure]).argmax(axis=1))


def _certainty(scheme: Scheme, soft: np.ndarray) -> np.ndarray:
    """The probability (n,) of the most probable class; of tags, that which every one has of being right; of a number 1."""
    if scheme.kind == "classes":
        return soft.max(axis=1)
    return np.maximum(soft, 1 - soft).min(axis=1) if scheme.kind == "tags" else np.ones(len(soft))


def _stay(settings: LabelsConfig, images: Images) -> np.ndarray:
    """Whether each image (n,) is in none of the ranges that are removed; one whose number is unknown is not."""
    numbers = _numbers(images)
    return ~np.any([np.zeros(len(images), dtype=bool), *((low <= numbers) & (numbers <= high) for low, high in settings.remove)], axis=0)


def _plain(images: Images, chosen: np.ndarray, source: int, task: Task) -> TrainingImages:
    return TrainingImages(
        ids=np.array(images.ids, dtype=object)[chosen],
        source=np.full(len(chosen), source),
        groups=images.groups[chosen],
        classes=strata_of(images.truth(task.scheme.of_kind(task.scheme.kinds[0]))[chosen]),
        targets=tuple(_target(images.truth(part)[chosen]) for part in task.head_schemes),
        numbers=_numbers(images)[chosen].astype(np.float32),
        weights=np.ones(len(chosen)),
    )


def _corrected(images: Images, labels: np.ndarray) -> Images:
    """The images with these labels. A corrected class does not tell the number, which is NaN from then on."""
    corrected = with_choices(images, labels)
    if images.numbers is None or images.scheme.cut is None:
        return corrected
    column = _ordinal_column(images)
    return replace(corrected, numbers=np.where(labels[:, column] == images.labels[:, column], images.numbers, np.nan))


def _cut_again(settings: LabelsConfig, images: Images) -> Images:
    """The images with classes cut from their numbers by labels/cuts; those whose number is unknown keep theirs."""
    if not settings.cuts or images.numbers is None or images.scheme.cut is None:
        return images
    column, labels = _ordinal_column(images), images.labels.copy()
    labels[:, column] = np.where(np.isnan(images.numbers), labels[:, column], np.digitize(images.numbers, settings.cuts))
    return replace(images, labels=labels)


def _numbers(images: Images) -> np.ndarray:
    return np.full(len(images), np.nan) if images.numbers is None else images.numbers


def _ordinal_column(images: Images) -> int:
    return next(index for index, target in enumerate(images.scheme.of_kind("classes").targets) if target.cuts)


def _refuse_unknown_numbers(settings: LabelsConfig, images: Images) -> None:
    asked = [path for path, value in (("labels/cuts", settings.cuts), ("labels/remove", settings.remove)) if value]
    if images.scheme.cut is None:
        message = "needs a target that is cut from a number, and this data has none; leave it out"
        mistakes = [Mistake(path, message) for path in asked]
    else:
        count = len(images.scheme.of_kind("classes").targets[_ordinal_column(images)].cuts)
        message = f"has {len(settings.cuts)} cuts, data/cuts has {count}; the classes must stay the same"
        mistakes = [Mistake("labels/cuts", message)] if settings.cuts and len(settings.cuts) != count else []
    if mistakes:
        raise ConfigError(mistakes)


def _refuse_lost_classes(settings: LabelsConfig, before: np.ndarray, after: np.ndarray, task: Task) -> None:
    lost = sorted(set(before.tolist()) - set(after.tolist()))
    if lost:
        # The one that leaves out, or changes, the most images is named.
        path = "labels/remove" if settings.remove else "labels/cuts" if settings.cuts else "labels/relabel"
        names = "; ".join(task.scheme.of_kind("classes").class_names()[number] for number in lost)
        raise ConfigError([Mistake(path, f"leaves no training image of {names}; change fewer")])


def _target(truth: np.ndarray) -> np.ndarray:
    """What a head is taught (n,) or (n, columns), of what is true of its targets."""
    return truth if np.issubdtype(truth.dtype, np.integer) else truth.reshape(len(truth), -1).astype(np.float32)


def _joined(targets: list[np.ndarray], classes: int) -> np.ndarray:
    """The targets of a head from several sources: rows where those of one are."""
    if all(target.ndim == 1 for target in targets):
        return np.concatenate(targets)
    return np.concatenate([target if target.ndim == 2 else np.eye(classes, dtype=np.float32)[target] for target in targets])
