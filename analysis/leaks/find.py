"""Leaks: photos and people that stand on two sides of a run's split, and what a split by photo would pretend.

What leaks is remembered and not recognised: scores are too high, and the models that remember best are chosen.
"""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from analysis.members.predictions import wanted_views
from analysis.members.trials import Runs
from trainables.data.copies import BLOCK
from trainables.data.names import some
from trainables.data.photos import Photos
from trainables.data.splits import HOLDOUT
from trainables.data.views import View
from trainables.metrics import METRICS, Metric
from trainables.seeding import seed_for

MOST = 100_000  # pairs; more only say that the photos look alike
PARTS = 5  # of the probe's cross-validation
GREY, COMPONENTS = (16, 16), 64  # what the probe sees: pixels, then principal components


@dataclass(frozen=True)
class Pair:
    """Two photos of two people that look the same."""

    photo: str
    person: int
    side: str  # holdout, fold 0, ...
    label: str  # the name of its joint class
    other_photo: str
    other_person: int
    other_side: str
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
        """Whether they stand on two sides, so that one may be trained on and the other scored."""
        return self.side != self.other_side


@dataclass(frozen=True)
class Probe:
    """The score of a nearest neighbour, cross-validated in two ways on the photos that are not held out."""

    metric: str  # in METRICS; one of labels: a nearest neighbour has no probabilities
    by_photo: float  # photos of one person on both sides
    by_person: float

    @property
    def gap(self) -> float:
        """What knowing people again adds."""
        return METRICS[self.metric].sign * (self.by_photo - self.by_person)


@dataclass(frozen=True)
class Leaks:
    """Everything that the command shows."""

    photos: int
    people: int
    holdout: int  # photos held out
    split_people: tuple[str, ...]  # with photos on two sides
    pairs: tuple[Pair, ...] = field(repr=False)  # those across sides first, then the most alike
    complete: bool  # whether these are all pairs
    probe: Probe | None  # None where every photo is taken for a person of its own

    @property
    def identical(self) -> int:
        """Pairs of files with the same content under two people."""
        return sum(pair.identical for pair in self.pairs)

    @property
    def across(self) -> int:
        """Pairs across sides."""
        return sum(pair.across for pair in self.pairs)

    @property
    def remembered(self) -> int:
        """Held-out photos that look like one of another person that may be trained on."""
        ends = [(pair.side, pair.photo) for pair in self.pairs if pair.across]
        ends += [(pair.other_side, pair.other_photo) for pair in self.pairs if pair.across]
        return len({photo for side, photo in ends if side == side_name(HOLDOUT)})


def clearest_view(runs: Runs) -> View:
    """The view of some trial that shows most of a photo: the whole one if there is any, on the most pixels."""
    views = wanted_views(runs.trials)
    return max(views, key=lambda view: (view.crop == "none", not view.wants_face, view.height * view.width))


def close_pairs(prints: np.ndarray, people: np.ndarray, distance: int, most: int = MOST) -> tuple[np.ndarray, np.ndarray, bool]:
    """Photos of two people with at most so many different bits in each hash: places (pairs, 2), differing bits (pairs, 2), and whether
    these are all; the search ends at the first `most` pairs.

    Args:
        prints: hashes (n, 2), uint64.
        people: any person ids (n,).
    """
    places, bits, count = [], [], 0
    for start in range(0, len(prints), BLOCK):
        near = np.bitwise_count(prints[start : start + BLOCK, None, 0] ^ prints[None, start:, 0]) <= distance
        first, second = np.stack(np.nonzero(np.triu(near, 1))) + start
        differ = np.bitwise_count(prints[first] ^ prints[second])
        kept = (people[first] != people[second]) & (differ <= distance).all(axis=1)
        places.append(np.stack([first, second], axis=1)[kept])
        bits.append(differ[kept])
        count += int(kept.sum())
        if count > most:
            break
    return np.concatenate(places)[:most], np.concatenate(bits)[:most].astype(int), count <= most


def find_pairs(photos: Photos, parts: np.ndarray, prints: np.ndarray, digests: np.ndarray, distance: int) -> tuple[tuple[Pair, ...], bool]:
    """The pairs of photos of two people that look the same, and whether these are all.

    Args:
        parts: HOLDOUT or the number of a fold (n,).
        prints: hashes (n, 2) of `fingerprints`.
        digests: of the photos' files (n,).
    """
    places, bits, complete = close_pairs(prints, photos.people, distance)
    names, labels = photos.scheme.class_names(), photos.scheme.joint(photos.labels)

    def end(place: int) -> tuple[str, int, str, str]:
        return photos.ids[place], int(photos.people[place]), side_name(int(parts[place])), names[labels[place]]

    pairs = [
        Pair(*end(one), *end(other), *differ, identical=bool(digests[one] == digests[other]))
        for (one, other), differ in zip(places.tolist(), bits.tolist(), strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: (not pair.across, not pair.identical, pair.phash + pair.dhash))), complete


def split_people(photos: Photos, parts: np.ndarray) -> tuple[str, ...]:
    """The people with photos on two sides, each by one of their photos."""
    _, first, person = np.unique(photos.people, return_index=True, return_inverse=True)
    torn = np.unique(person[parts != parts[first][person]])
    return tuple(photos.ids[first[one]] for one in torn)


def features(view: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Small grey pictures of photos (n, pixels), float32."""
    return np.stack([np.asarray(Image.fromarray(view[row]).convert("L").resize(GREY), np.float32).ravel() for row in rows])


def nearest_neighbour(seen: np.ndarray, photos: Photos, metric: Metric, seed: int) -> Probe | None:
    """The probe: each photo takes the joint class of the nearest one in the other parts. None where people have one photo each.

    Source: Cover and Hart, Nearest neighbor pattern classification, 1967.

    Args:
        seen: features (n, pixels) of the photos.
        metric: of labels.
        seed: parts photos and people.
    """
    # Imported here: they take a second, which the help should not.
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    people = len(np.unique(photos.people))
    if people == len(photos) or people < PARTS:
        return None
    state = seed_for(seed, "probe") % 2**32
    model = make_pipeline(PCA(min(COMPONENTS, people), random_state=state), KNeighborsClassifier(1, algorithm="brute"))
    truth = photos.scheme.joint(photos.labels)

    def score(parts: KFold | GroupKFold, groups: np.ndarray | None = None) -> float:
        answers = cross_val_predict(model, seen, truth, groups=groups, cv=parts)
        return metric.of_prediction(truth, answers, photos.scheme.classes)

    by_photo = KFold(PARTS, shuffle=True, random_state=state)
    # pyrefly: ignore[unexpected-keyword]  its stubs are of scikit-learn 1.5
    by_person = GroupKFold(PARTS, shuffle=True, random_state=state)
    return Probe(metric.name, score(by_photo), score(by_person, photos.people))


def side_name(part: int) -> str:
    """A side of the split as split.csv calls it."""
    return "holdout" if part == HOLDOUT else f"fold {part}"


def meaning(found: Leaks, distance: int) -> list[tuple[str, str | None]]:
    """Each finding in words, and its colour."""
    lines: list[tuple[str, str | None]] = []
    if found.split_people:
        words = f"{len(found.split_people)} people have photos on two sides, such as those of {some(found.split_people)}."
        lines.append((f"{words} Every score of these runs is too high; start a new run.", "red"))
    if not found.complete:
        words = f"More than {MOST:,} pairs: at --distance {distance} these photos cannot be told apart."
        lines.append((f"{words} Take a smaller one.", "yellow"))
    if found.across:
        held_out = f"{found.remembered:,} held-out photo{'s are' if found.remembered != 1 else ' is'} among them"
        same = "look the same and stand" if found.across != 1 else "looks the same and stands"
        words = f"{pairs_words(found.across)} of photos of two people {same} on two sides; {held_out}."
        mend = "Look at pairs.png: if they show one person, give them one name or take copies out, and start a new run"
        lines.append((f"{words} What trains on one of a pair has seen the other. {mend}.", "yellow"))
    elif found.pairs:
        lines.append(("Near-duplicates stand on one side each, so they leak into no score.", None))
    else:
        lines.append(("No two people share a photo that looks the same.", None))
    if found.probe:
        title = METRICS[found.probe.metric].title
        words = f"A split by photo would flatter a probe that knows people again by {found.probe.gap:+.3f} {title}"
        scores = f"({found.probe.by_photo:.3f} against {found.probe.by_person:.3f})"
        lines.append(
            (f"{words} {scores}. These runs split by people: their scores are free of that, as far as one person has one name.", None)
        )
    else:
        lines.append(("Every photo is taken for a person of its own, so nothing can say what a split by photo would flatter.", "yellow"))
    return lines


def pairs_words(count: int) -> str:
    """So many pairs."""
    return f"{count:,} pair{'s' if count != 1 else ''}"
