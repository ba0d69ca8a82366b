"""What images are labelled with: counts of classes, tags and numbers, alone and together."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from analysis.evaluation.look.facts import ClassFacts, Grid, Histogram, TargetFacts
from analysis.evaluation.look.pixels import Pixels, colours, explained
from trainables.data.images import Images, strata_of
from trainables.data.targets import Target

BINS = 30  # of a histogram, at most
SERIES = 4  # values of a target by which a histogram is drawn apart
ALIKE = 0.01  # share of the images of a bin: histograms that differ less are one
GRID = 12  # columns of a table of two targets, at most
ROWS = 40  # of such a table, at most


def kinds_of(images: Images, target: Target) -> list[tuple[str, np.ndarray]]:
    """What images show of a target, each with its images (places): classes and tags that some have, or fifths of the numbers."""
    truth = images.truth(images.scheme.part((target.name,)))
    if target.kind == "tags":
        return [(tag, np.flatnonzero(truth[:, place])) for place, tag in enumerate(target.values) if truth[:, place].any()]
    if target.kind == "number":
        fifth = strata_of(truth)
        parts = [np.flatnonzero(fifth == part) for part in np.unique(fifth)]
        return [(f"{truth[rows].min():g} to {truth[rows].max():g}", rows) for rows in parts]
    return [(value, np.flatnonzero(truth == place)) for place, value in enumerate(target.values) if (truth == place).any()]


def target_facts(images: Images, target: Target, pixels: Pixels) -> TargetFacts:
    """The counts and colours of a target's classes."""
    kinds = kinds_of(images, target)
    classes = tuple(_class_facts(images, value, rows, pixels) for value, rows in kinds)
    if target.kind == "tags":
        bare = int((~images.truth(images.scheme.part((target.name,))).any(axis=1)).sum())
        shares = [explained(pixels.means, np.isin(pixels.rows, rows)) for _, rows in kinds]
        return TargetFacts(target.name, target.kind, classes, max((one for one in shares if one is not None), default=None), bare)
    number = np.full(len(images), -1)
    for place, (_, rows) in enumerate(kinds):
        number[rows] = place
    return TargetFacts(target.name, target.kind, classes, explained(pixels.means, number[pixels.rows]))


def joint_facts(images: Images, pixels: Pixels) -> tuple[ClassFacts, ...]:
    """The joint classes that images have, those of most images first; none where there are fewer than two targets of classes."""
    scheme = images.scheme.of_kind("classes")
    if len(scheme.targets) < 2:
        return ()
    truth, names = images.truth(scheme), scheme.class_names()
    found, counts = np.unique(truth, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(_class_facts(images, names[one], np.flatnonzero(truth == one), pixels) for one in found[order].tolist())


def grids(images: Images) -> Iterator[Grid]:
    """How many images have two classes of two targets, or two tags; targets of very many values are left out."""
    scheme = images.scheme.of_kind("classes")
    columns = {target.name: images.labels[:, place] for place, target in enumerate(scheme.targets)}
    for one, other in combinations(scheme.targets, 2):
        down, across = sorted((one, other), key=lambda target: -len(target.values))
        if len(across.values) > GRID or len(down.values) > ROWS:
            continue
        counts = np.zeros((len(down.values), len(across.values)), int)
        np.add.at(counts, (columns[down.name], columns[across.name]), 1)
        yield Grid(down.name, across.name, down.values, across.values, tuple(map(tuple, counts.tolist())))
    for target in scheme_tags(images):
        own = images.truth(images.scheme.part((target.name,))).astype(int)
        if len(target.values) <= GRID:
            yield Grid(target.name, target.name, target.values, target.values, tuple(map(tuple, (own.T @ own).tolist())))


def scheme_tags(images: Images) -> tuple[Target, ...]:
    """The targets of tags; where there are several, none has columns of its own in the truth."""
    targets = images.scheme.of_kind("tags").targets
    return targets if len(targets) == 1 else ()


def number_histograms(images: Images) -> Iterator[Histogram]:
    """The numbers of images, all together and by the classes of each target that has few."""
    if images.numbers is None:
        return
    known = np.flatnonzero(np.isfinite(images.numbers))
    numbers = images.numbers[known].astype(float)
    number = images.scheme.of_kind("number").names or ((images.scheme.cut.name,) if images.scheme.cut else ())
    if not len(numbers) or not number:
        return
    marks = tuple(map(float, images.scheme.cut.cuts)) if images.scheme.cut else ()
    edges = bins(numbers)
    yield Histogram(number[0], edges, (("all images", _counts(numbers, edges)),), marks)
    scheme = images.scheme.of_kind("classes")
    for place, target in enumerate(scheme.targets):
        if 2 <= len(target.values) <= SERIES and not target.cuts:
            own = images.labels[known, place]
            series = tuple((value, _counts(numbers[own == one], edges)) for one, value in enumerate(target.values))
            shares = [np.array(counts) / max(1, sum(counts)) for _, counts in series]
            if all(np.abs(one - shares[0]).max() < ALIKE for one in shares):
                continue  # they would lie over each other, as they do where every group has all values
            yield Histogram(f"{number[0]} by {target.name}", edges, series, marks)


def size_histograms(pixels: Pixels) -> Iterator[Histogram]:
    """The longer sides and the aspects of the images that were read."""
    if len(pixels.rows):
        longer, aspect = pixels.sizes.max(axis=1).astype(float), pixels.sizes[:, 0] / pixels.sizes[:, 1]
        for name, values in (("longer side, in pixels", longer), ("width / height", aspect)):
            if values.min() < values.max():
                edges = bins(values)
                yield Histogram(name, edges, (("images", _counts(values, edges)),))


def bins(values: np.ndarray) -> tuple[float, ...]:
    """Edges of bins of one width over all values: a bin for each integer where these are few."""
    low, high = float(values.min()), float(values.max())
    if np.array_equal(values, np.round(values)):
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        return tuple((np.arange(low, high + step + 0.5, step) - 0.5).tolist())
    return tuple(np.linspace(low, high, BINS + 1).tolist()) if high > low else (low - 0.5, high + 0.5)


def _counts(values: np.ndarray, edges: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(np.histogram(values, edges)[0].tolist())


def _class_facts(images: Images, value: str, rows: np.ndarray, pixels: Pixels) -> ClassFacts:
    own = np.isin(pixels.rows, rows)
    return ClassFacts(value, len(rows), len(np.unique(images.groups[rows])), int(own.sum()), *colours(pixels, own))
