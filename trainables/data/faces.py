"""Faces: where the largest one of an image is, found by MTCNN and remembered for every image ever seen.

MTCNN: Zhang et al. 2016, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks". Its weights come with the
package facenet-pytorch, so nothing is fetched.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from operator import index
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from trainables.data.images import DataError
from trainables.storage import write_atomically

PACKAGE = "facenet-pytorch==2.6.0"
VERSION = "mtcnn-1"  # of what `find_face` finds; another one makes remembered boxes invisible
SIDE = 256  # pixels: images are searched on a copy whose longer side is at most this
SMALLEST = 20  # pixels of the copy: smaller faces are not looked for
CONFIDENT = 0.9  # least probability of a face

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright image, the last two exclusive
Find = Callable[[Image.Image], Box | None]


def find_face(image: Image.Image) -> Box | None:
    """The largest face that MTCNN is sure of, as far as it lies in the image; None where there is none."""
    scale = min(1, SIDE / max(image.size))
    small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR, reducing_gap=2.0)
    # The detector cannot cope with a copy in which the smallest face finds no room.
    if min(small.size) < SMALLEST:
        return None
    boxes, probabilities = _detector().detect(small)[:2]
    if boxes is None:
        return None
    found = [_on_image(box, small.size, image.size) for box in boxes[probabilities.astype(float) >= CONFIDENT]]
    return max(filter(None, found), key=_area, default=None)


class Faces:
    """The faces of images, known by the content of their files: each is looked for once and then kept in a file. Threads may share it."""

    def __init__(self, file: Path, find: Find = find_face):
        self._file, self._find, self._lock = file, find, Lock()
        self._known = _read(file)

    def of(self, image: Image.Image, digest: str) -> Box | None:
        """The face of an upright image whose file has this digest. Raises: DataError when it cannot be kept for want of room."""
        if digest not in self._known or not _lies_in(self._known[digest], image.size):
            self._known[digest] = self._find(image)
            self._keep(digest)
        return self._known[digest]

    def _keep(self, digest: str) -> None:
        with _in_words(self._file), self._lock, self._file.open("ab") as stream:
            stream.write(_line(digest, self._known[digest]))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let every thread that finds faces compute alone: its nets are too small to share, and a pool of threads has the cores already."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _detector():
    # Seconds of imports, which only the first search of an image for a face pays.
    try:
        from facenet_pytorch import MTCNN
    except ModuleNotFoundError:
        fix = f"pip install --no-deps {PACKAGE} (without dependencies, since it asks for the torch of 2024 and runs with today's)"
        raise DataError(f"view/crop face: finding faces takes a package that is not installed: {fix}") from None

    return MTCNN(min_face_size=SMALLEST)


def _on_image(box: np.ndarray, small: tuple[int, int], image: tuple[int, int]) -> Box | None:
    ends = [round(float(end) * image[axis % 2] / small[axis % 2]) for axis, end in enumerate(box)]
    left, top, right, bottom = (min(max(end, 0), image[axis % 2]) for axis, end in enumerate(ends))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def _lies_in(box: Box | None, size: tuple[int, int]) -> bool:
    return box is None or (0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1])


def _read(file: Path) -> dict[str, Box | None]:
    content = file.read_bytes() if file.is_file() else b""
    known = {}
    for line in content.splitlines():
        # What is damaged is forgotten, and looked for again.
        with suppress(ValueError, TypeError):
            digest, box = json.loads(line)
            known[digest] = None if box is None else _box(box)
    if content != (fixed := b"".join(_line(digest, box) for digest, box in known.items())):
        with _in_words(file):
            write_atomically(file, fixed)
    return known


@contextmanager
def _in_words(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "Free some disk space, or set SWEEPVOTE_CACHE to a folder on another disk"
        raise DataError(f"{file}: detected faces cannot be written ({error.strerror}). {fix}.") from None


def _box(values: list[int]) -> Box:
    left, top, right, bottom = map(index, values)
    return left, top, right, bottom


def _line(digest: str, box: Box | None) -> bytes:
    return json.dumps([digest, box]).encode() + b"\n"
