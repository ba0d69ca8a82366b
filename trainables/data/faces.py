"""Faces: where the largest one of an image is, found by a detector and remembered for every image ever seen.

MTCNN: Zhang et al. 2016, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks". Its weights come with the
package facenet-pytorch, so nothing is fetched.
YuNet: Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector", run by OpenCV from a file of its weights (ONNX).
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from operator import index
from pathlib import Path
from threading import Lock, local

import numpy as np
from PIL import Image

from trainables.data.images import DataError
from trainables.registry import Registry
from trainables.storage import write_atomically

PACKAGE = "facenet-pytorch==2.6.0"
VERSION = "mtcnn-1"  # of what `find_face` finds; another one makes remembered boxes invisible
SIDE = 256  # pixels: images are searched on a copy whose longer side is at most this
SMALLEST = 20  # pixels of the copy: smaller faces are not looked for
CONFIDENT = 0.9  # least probability of a face
LARGEST_FILE = 64 << 20  # bytes of a detector's weights; YuNet's are a quarter of a megabyte

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the upright image, the last two exclusive
Find = Callable[[Image.Image], Box | None]


def find_face(image: Image.Image) -> Box | None:
    """The largest face that MTCNN is sure of, as far as it lies in the image; None where there is none."""
    face = _face(image)
    return face and face[0]


def find_points(image: Image.Image) -> np.ndarray | None:
    """Of the face that `find_face` finds, (5, 2) x and y in pixels: eyes, tip of the nose, ends of the mouth; None where there is no face.

    Of the two eyes and ends that comes first which the image shows on the left.
    """
    face = _face(image)
    return face and face[1]


def _face(image: Image.Image) -> tuple[Box, np.ndarray] | None:
    """The box of the largest face that MTCNN is sure of, and its points."""
    small = _small(image)
    # The detector cannot cope with a copy in which the smallest face finds no room.
    if min(small.size) < SMALLEST:
        return None
    # pyrefly: ignore[bad-unpacking]  with landmarks there are three
    boxes, probabilities, points = _detector().detect(small, landmarks=True)
    if boxes is None:
        return None
    sure = probabilities.astype(float) >= CONFIDENT
    on_image = [_on_image(box, small.size, image.size) for box in boxes[sure]]
    found = [(box, own) for box, own in zip(on_image, points[sure], strict=True) if box]
    if not found:
        return None
    box, own = max(found, key=lambda one: _area(one[0]))
    return box, own.astype(float) * (np.array(image.size) / small.size)


def yunet(file: str) -> Find:
    """A function that finds the largest face that YuNet is sure of, as `find_face` does. Raises: DataError for what is no such file."""
    content = _content(file)
    own = local()  # a detector serves one thread at a time

    def find(image: Image.Image) -> Box | None:
        small = _small(image)
        if min(small.size) < SMALLEST:
            return None
        if not hasattr(own, "detector"):
            own.detector = _yunet(content, file)
        own.detector.setInputSize(small.size)
        faces = own.detector.detect(np.ascontiguousarray(np.asarray(small.convert("RGB"))[..., ::-1]))[1]
        if faces is None:
            return None
        boxes = faces[:, :4].astype(float)
        boxes[:, 2:] += boxes[:, :2]
        return _largest(boxes[boxes[:, 2] - boxes[:, 0] >= SMALLEST], small, image)

    # Whether OpenCV can read it is known before the first of many images.
    own.detector = _yunet(content, file)
    return find


@dataclass(frozen=True)
class Detector:
    """One way to find faces."""

    build: Callable[[str], Find]  # of the path of its file
    version: str  # of what it finds; another one makes remembered boxes and the views made from them invisible
    needs_file: bool = False


DETECTORS: Registry[Detector] = Registry(
    {"mtcnn": Detector(lambda file: find_face, VERSION), "yunet": Detector(yunet, "yunet-1", needs_file=True)}, Detector
)


def version_of(detector: str, file: str) -> str:
    """What a detector's boxes are remembered under: its version, and the content of its file. Raises: DataError where that is gone."""
    version = DETECTORS[detector].version
    return f"{version}-{hashlib.sha256(_content(file)).hexdigest()[:12]}" if file else version


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


def _content(file: str) -> bytes:
    try:
        if (size := Path(file).stat().st_size) > LARGEST_FILE:
            raise DataError(f"view/detector_file: {file} has {size:,} bytes, more than {LARGEST_FILE:,}; give YuNet's ONNX file")
        return Path(file).read_bytes()
    except OSError as error:
        fix = "Give the path of the detector's weights as they are on this machine, or choose view/detector: mtcnn"
        raise DataError(f"view/detector_file: {file} cannot be read ({error.strerror}). {fix}.") from None


def _yunet(content: bytes, file: str):
    import cv2

    try:
        buffer = np.frombuffer(content, dtype=np.uint8)
        detector = cv2.FaceDetectorYN.create("onnx", buffer, np.empty(0, np.uint8), (SIDE, SIDE), CONFIDENT)
        detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8))
        return detector
    except cv2.error as error:
        fix = "give the ONNX file of OpenCV's model zoo, face_detection_yunet"
        raise DataError(f"view/detector_file: {file} is no YuNet that OpenCV {cv2.__version__} reads ({error.err}); {fix}") from None


def _small(image: Image.Image) -> Image.Image:
    scale = min(1, SIDE / max(image.size))
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR, reducing_gap=2.0)


def _largest(boxes: np.ndarray, small: Image.Image, image: Image.Image) -> Box | None:
    found = [_on_image(box, small.size, image.size) for box in boxes]
    return max(filter(None, found), key=_area, default=None)


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
