"""What the files of images say of their pixels: sizes, formats, colours, and which of them look the same."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from analysis.evaluation.look.facts import Alike, Colour
from trainables.ahead import ahead
from trainables.data.copies import DISTANCE, close_pairs, fingerprints
from trainables.data.decoding import UNREADABLE, open_image, read_image
from trainables.data.images import Images

SMALL = 256  # pixels of the longer side at which colours are measured
HASHED = 64  # pixels of both sides of what is hashed


@dataclass(frozen=True)
class Seen:
    """One image; its size is that of the file, before it is turned upright."""

    width: int
    height: int
    format: str
    mean: Colour
    deviation: Colour
    prints: tuple[int, int]  # of `fingerprints`
    digest: bytes  # of the file


@dataclass(frozen=True)
class Pixels:
    """The images that were read: arrays are parallel, one entry an image."""

    rows: np.ndarray  # (n,) their places among all images
    sizes: np.ndarray  # (n, 2) width, height
    formats: tuple[str, ...]
    means: np.ndarray  # (n, 3) of each channel, 0 to 255
    deviations: np.ndarray  # (n, 3)
    prints: np.ndarray  # (n, 2) uint64
    digests: tuple[bytes, ...]
    bad: dict[str, str]  # images that cannot be read, and why


def look_at(file: Path) -> Seen | str:
    """What the file of an image says, or why it cannot be read."""
    try:
        content = file.read_bytes()
        with open_image(BytesIO(content)) as header:
            (width, height), kind = header.size, header.format or "unknown"
        image = read_image(BytesIO(content))
    except UNREADABLE as error:
        return " ".join(str(error).split()) or type(error).__name__
    image.thumbnail((SMALL, SMALL))
    values = np.asarray(image, np.float32).reshape(-1, 3)
    small = np.asarray(image.resize((HASHED, HASHED), Image.Resampling.BILINEAR))
    (first, second) = fingerprints(small[None], np.zeros(1, int))[0].tolist()
    digest = hashlib.sha256(content).digest()
    return Seen(width, height, kind, tuple(values.mean(0).tolist()), tuple(values.std(0).tolist()), (first, second), digest)


def sample(images: Images, most: int, seed: int, least: int) -> np.ndarray:
    """The places of the images to read, in the order in which to read them: whenever it ends, it was a random sample.

    The first `least` images of each joint class, or what stands for it, come first.
    """
    import pandas as pd

    order = np.random.default_rng(seed).permutation(len(images))
    strata = images.strata()[order]
    rank = pd.Series(strata).groupby(strata).cumcount().to_numpy()
    return order[np.argsort(rank >= least, kind="stable")][:most]


def read_pixels(
    images: Images, rows: np.ndarray, threads: int, go_on: Callable[[], bool], progress: Callable[[int], None] = lambda images: None
) -> Pixels:
    """Read the images at these places, in their order, as long as there is time.

    Args:
        go_on: whether there is; asked after each image.
    """
    found: list[tuple[int, Seen]] = []
    bad: dict[str, str] = {}
    files = [images.root / images.ids[row] for row in rows.tolist()]
    for row, seen in zip(rows.tolist(), ahead(lambda place: look_at(files[place]), len(files), threads), strict=True):
        if isinstance(seen, str):
            bad[images.ids[row]] = seen
        else:
            found.append((row, seen))
        progress(1)
        if not go_on():
            break
    everyone = [seen for _, seen in found]
    return Pixels(
        rows=np.array([row for row, _ in found], int),
        sizes=np.array([(one.width, one.height) for one in everyone], int).reshape(-1, 2),
        formats=tuple(one.format for one in everyone),
        means=np.array([one.mean for one in everyone]).reshape(-1, 3),
        deviations=np.array([one.deviation for one in everyone]).reshape(-1, 3),
        prints=np.array([one.prints for one in everyone], np.uint64).reshape(-1, 2),
        digests=tuple(one.digest for one in everyone),
        bad=bad,
    )


def colours(pixels: Pixels, own: np.ndarray) -> tuple[Colour | None, Colour | None]:
    """Mean and deviation per channel over the pixels of some of the images that were read (n,) bool; each image counts alike."""
    if not own.any():
        return None, None
    mean = pixels.means[own].mean(0)
    square = (pixels.means[own] ** 2 + pixels.deviations[own] ** 2).mean(0)
    return _colour(mean), _colour(np.sqrt(np.maximum(0, square - mean**2)))


def explained(values: np.ndarray, classes: np.ndarray) -> float | None:
    """The share of the variance of values (n, k) that lies between classes (n,), of the value of which it is largest.

    It is corrected for the number of classes (epsilon squared), so that it is about 0 where they do not differ. None for few values.
    Source: Kelley, An unbiased correlation ratio measure, 1935.
    """
    names, place = np.unique(classes, return_inverse=True)
    free = len(values) - len(names)
    if len(names) < 2 or free < 20:
        return None
    counts = np.bincount(place)
    means = np.stack([np.bincount(place, column) for column in values.T], axis=-1) / counts[:, None]
    total = ((values - values.mean(0)) ** 2).sum(0)
    within = ((values - means[place]) ** 2).sum(0)
    share = 1 - np.divide(within, total, out=np.ones_like(total), where=total > 0) * (len(values) - 1) / free
    return float(max(0.0, share.max()))


def association(first: np.ndarray, second: np.ndarray) -> float:
    """Cramer's V of two lists of values (n,), corrected for bias: 0 where neither says anything about the other, 1 where each tells it.

    Source: Bergsma, A bias-correction for Cramer's V and Tschuprow's T, Journal of the Korean Statistical Society, 2013.
    """
    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (first, second))
    counts = np.zeros((rows.max(initial=0) + 1, columns.max(initial=0) + 1))
    np.add.at(counts, (rows, columns), 1)
    images, shape = counts.sum(), counts.shape
    if images < 2 or min(shape) < 2:
        return 0.0
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / images
    phi = max(0.0, ((counts - expected) ** 2 / expected).sum() / images - (shape[0] - 1) * (shape[1] - 1) / (images - 1))
    sides = [side - (side - 1) ** 2 / (images - 1) for side in shape]
    return float(np.sqrt(phi / max(1e-9, min(sides) - 1)))


def worded(images: Images) -> list[str]:
    """What each image is labelled with, in words for people: a value of each target, with commas between."""
    columns: list[list[str]] = []
    for target in images.scheme.targets:
        own = images.truth(images.scheme.part((target.name,)))
        if target.kind == "tags":
            columns.append([" + ".join(tag for tag, there in zip(target.values, row, strict=True) if there) or "no tag" for row in own])
        elif target.kind == "number":
            columns.append([f"{value:g}" for value in own.tolist()])
        else:
            columns.append([target.values[value] for value in own.tolist()])
    return [", ".join(values) for values in zip(*columns, strict=True)]


def alike(images: Images, pixels: Pixels, distance: int = DISTANCE) -> tuple[list[Alike], bool]:
    """Images that look the same: of one content, in whatever groups; or nearly the same in two groups. And whether these are all pairs.

    Those with different labels come first, then those of one content.
    """
    rows, labels = pixels.rows.tolist(), worded(images)
    same: dict[bytes, list[int]] = defaultdict(list)
    for place, digest in enumerate(pixels.digests):
        same[digest].append(place)
    pairs = {(places[0], other): 0 for places in same.values() for other in places[1:]}
    complete = True
    if len(rows) > 1:
        near, bits, complete = close_pairs(pixels.prints, images.groups[pixels.rows], distance)
        for (one, other), differ in zip(near.tolist(), bits.sum(axis=1).tolist(), strict=True):
            if pixels.digests[one] != pixels.digests[other]:
                pairs[one, other] = differ
    found = []
    for (one, other), differ in pairs.items():
        first, second = sorted((rows[one], rows[other]))
        found.append(
            Alike(
                images.ids[first],
                images.ids[second],
                labels[first],
                labels[second],
                differ,
                pixels.digests[one] == pixels.digests[other],
                bool(images.groups[first] == images.groups[second]),
            )
        )
    return sorted(found, key=lambda pair: (not pair.differ, not pair.identical, pair.bits, pair.image, pair.other)), complete


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = values.tolist()
    return red, green, blue
