"""Leaks: images and groups that are in two splits of a run, and the optimistic bias of a split by image.

What leaks is memorised and not recognised: scores are too high, and the models that remember best are chosen.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from analysis.members.predictions import wanted_views
from analysis.members.trials import Runs
from trainables.data.copies import MOST, close_pairs
from trainables.data.images import Images
from trainables.data.names import some
from trainables.data.splits import HOLDOUT, part_name
from trainables.data.views import View
from trainables.metrics import METRICS, Metric
from trainables.seeding import seed_for

PARTS = 5  # of the probe's cross-validation
GREY, COMPONENTS = (16, 16), 64  # what the probe sees: pixels, then principal components


@dataclass(frozen=True)
class Pair:
    """Two images of two groups that look the same."""

    image: str
    group: int
    part: str  # holdout, fold 0, ...
    label: str  # the name of its joint class
    other_image: str
    other_group: int
    other_part: str
    other_label: str
    phash: int  # bits of 64 that differ
    dhash: int
    identical: bool  # the files have the same content

    @property
    def bits(self) -> str:
        """How many bits differ, in words."""
        return "identical" if self.identical else f"{self.phash} + {self.dhash}"

    @property
    def across(self) -> bool:
        """Whether they are in two splits, so that one may be trained on and the other scored."""
        return self.part != self.other_part


@dataclass(frozen=True)
class Probe:
    """The score of a nearest neighbour, cross-validated in two ways on the images that are not held out."""

    metric: str  # in METRICS; one of labels: a nearest neighbour has no probabilities
    by_image: float  # images of one group in both splits
    by_group: float

    @property
    def gap(self) -> float:
        """What recognising groups adds."""
        return METRICS[self.metric].sign * (self.by_image - self.by_group)


@dataclass(frozen=True)
class Leaks:
    """Everything that the command shows."""

    images: int
    groups: int
    holdout: int  # images held out
    split_groups: tuple[str, ...]  # with images in two splits
    pairs: tuple[Pair, ...] = field(repr=False)  # those across splits first, then the most alike
    complete: bool  # whether these are all pairs
    probe: Probe | None  # None where every image is a group of its own, of few groups, and for tags and numbers

    @property
    def identical(self) -> int:
        """Pairs of files with the same content under two groups."""
        return sum(pair.identical for pair in self.pairs)

    @property
    def across(self) -> int:
        """Pairs across splits."""
        return sum(pair.across for pair in self.pairs)

    @property
    def remembered(self) -> int:
        """Held-out images that look like one of another group that may be trained on."""
        ends = [(pair.part, pair.image) for pair in self.pairs if pair.across]
        ends += [(pair.other_part, pair.other_image) for pair in self.pairs if pair.across]
        return len({image for part, image in ends if part == part_name(HOLDOUT)})


def clearest_view(runs: Runs) -> View:
    """The view of some trial that shows most of an image: all of it if there is one, on the most pixels."""
    views = wanted_views(runs.trials)
    return max(views, key=lambda view: (view.crop == "none", not view.needs_face, view.height * view.width))


def find_pairs(images: Images, parts: np.ndarray, prints: np.ndarray, digests: np.ndarray, distance: int) -> tuple[tuple[Pair, ...], bool]:
    """The pairs of images of two groups that look the same, and whether these are all.

    Args:
        parts: HOLDOUT or the number of a fold (n,).
        prints: hashes (n, 2) of `fingerprints`.
        digests: of the images' files (n,).
    """
    places, bits, complete = close_pairs(prints, images.groups, distance)
    names = images.described()

    def end(place: int) -> tuple[str, int, str, str]:
        return images.ids[place], int(images.groups[place]), part_name(int(parts[place])), names[place]

    pairs = [
        Pair(*end(one), *end(other), *differ, identical=bool(digests[one] == digests[other]))
        for (one, other), differ in zip(places.tolist(), bits.tolist(), strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: (not pair.across, not pair.identical, pair.phash + pair.dhash))), complete


def split_groups(images: Images, parts: np.ndarray) -> tuple[str, ...]:
    """The groups with images in two splits, each by one of their images."""
    _, first, group = np.unique(images.groups, return_index=True, return_inverse=True)
    torn = np.unique(group[parts != parts[first][group]])
    return tuple(images.ids[first[one]] for one in torn)


def features(view: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Small grey pictures of images (n, pixels), float32."""
    return np.stack([np.asarray(Image.fromarray(view[row]).convert("L").resize(GREY), np.float32).ravel() for row in rows])


def nearest_neighbour(seen: np.ndarray, images: Images, metric: Metric, seed: int) -> Probe | None:
    """The probe: each image takes the joint class of the nearest one in the other parts. None where each group has one image.

    Source: Cover and Hart, Nearest neighbor pattern classification, 1967.

    Args:
        seen: features (n, pixels) of the images.
        metric: of labels.
        seed: parts images and groups.
    """
    # Imported here: they take a second, which the help should not.
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    count = len(np.unique(images.groups))
    if count == len(images) or count < PARTS:
        return None
    state = seed_for(seed, "probe") % 2**32
    model = make_pipeline(PCA(min(COMPONENTS, count), random_state=state), KNeighborsClassifier(1, algorithm="brute"))
    scheme = images.scheme.of_kind("classes")
    truth = images.truth(scheme)

    def score(parts: KFold | GroupKFold, groups: np.ndarray | None = None) -> float:
        answers = cross_val_predict(model, seen, truth, groups=groups, cv=parts)
        return metric.of_prediction(truth, answers, scheme.classes)

    by_image = KFold(PARTS, shuffle=True, random_state=state)
    # pyrefly: ignore[unexpected-keyword]  its stubs are of scikit-learn 1.5
    by_group = GroupKFold(PARTS, shuffle=True, random_state=state)
    return Probe(metric.name, score(by_image), score(by_group, images.groups))


def meaning(found: Leaks, distance: int) -> list[tuple[str, str | None]]:
    """Each finding in words, and its colour."""
    lines: list[tuple[str, str | None]] = []
    if found.split_groups:
        words = f"{len(found.split_groups)} groups have images in two splits, such as those of {some(found.split_groups)}."
        lines.append((f"{words} Every score of these runs is biased upwards. Start a new run.", "red"))
    if not found.complete:
        words = f"More than {MOST:,} pairs: --distance {distance} is too large for these images."
        lines.append((f"{words} Choose a smaller one.", "yellow"))
    if found.across:
        held_out = f"{found.remembered:,} held-out image{'s are' if found.remembered != 1 else ' is'} among them"
        words = f"{pairs_words(found.across)} of near-duplicate images of two groups across splits; {held_out}."
        fix = "Look at pairs.png: if they show one group, give both its name or remove the duplicates, and start a new run"
        lines.append((f"{words} A model that trains on one of a pair has seen the other. {fix}.", "yellow"))
    elif found.pairs:
        lines.append(("No pair of near-duplicates is in two splits, so they leak into no score.", None))
    else:
        lines.append(("No two groups share near-duplicate images.", None))
    if found.probe:
        title = METRICS[found.probe.metric].title
        words = f"A split by image would bias a probe that recognises groups by {found.probe.gap:+.3f} {title}"
        scores = f"({found.probe.by_image:.3f} against {found.probe.by_group:.3f})"
        lines.append(
            (
                f"{words} {scores}. These runs are split by group: their scores have no such bias, as far as one group has one name.",
                None,
            )
        )
    else:
        alone = found.groups == found.images
        why = "Every image is a group of its own" if alone else f"The probe needs classes, and {PARTS} groups or more"
        lines.append((f"{why}, so the bias of a split by image cannot be measured.", "yellow"))
    return lines


def pairs_words(count: int) -> str:
    """So many pairs."""
    return f"{count:,} pair{'s' if count != 1 else ''}"
