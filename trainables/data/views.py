"""Views: the deterministic geometry of an input, decoded once into memory-mapped stores that all trials share.

Training, validation, inference and the demo start from `look`, so there is no second list of transforms to forget.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from trainables.ahead import ahead
from trainables.data.decoding import TOLD, UNREADABLE, Change, decode, decoder
from trainables.data.faces import DETECTORS, Box, Faces, Find, one_thread_each, version_of
from trainables.data.images import DataError, Images, LeftOut, Unlabelled
from trainables.data.names import some
from trainables.data.view_store import BLACK, FORMAT, CacheError, Use, Writer, alone, make_room, note_use, read_store
from trainables.devices import cores_here
from trainables.registry import Count, Entry, Registry, Section, Side, choose, setting
from trainables.storage import write_atomically

TURN = 1000  # images that a process decodes while others wait for theirs
# Settings that came later, and what was so before: then a view does not say them, and its images stay where they are.
LATER = {"detector": "mtcnn", "detector_file": "", "rounds": 0}
TURNS = 20  # or a share of all, so that long indices are not read too often

Area = tuple[float, float, float, float]  # left, top, right, bottom in pixels of an image
Size = tuple[int, int]  # width, height in pixels


class ViewConfig(Section):
    """The deterministic geometry of an input, the same in training, validation and inference."""

    crop: str = setting("what is cut out first", "none")
    fit: Literal["stretch", "cover", "contain"] = setting(
        "where the crop's aspect is not that of the size: stretch it, cut the longer side (cover), or add black bars (contain)", "stretch"
    )
    size: Side | Annotated[tuple[Side, Side], Field(strict=False)] = setting(
        "pixels: n, or [height, width]", 64, "integer >= 16: n, or [height, width]"
    )

    @property
    def height(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[1]


class CenterSettings(ViewConfig):
    """The middle of the image."""

    fraction: Annotated[float, Field(gt=0, le=1)] = setting("share of each side that stays", 0.8)


class BoxSettings(ViewConfig):
    """A box around the middle of the image."""

    box: Annotated[tuple[Side, Side], Field(strict=False)] = setting("[height, width] in pixels of the image", (320, 256))


class FaceSettings(ViewConfig):
    """The largest face of the image."""

    fraction: Annotated[float, Field(gt=0, le=1)] = setting("where no face is detected: share of each side that stays of the middle", 0.8)
    margin: Annotated[float, Field(ge=0, le=2)] = setting("what is added on each side, as a share of the face's box", 0.4)
    detector: str = setting("what finds the face", "mtcnn", "`mtcnn`, or `yunet` with its file")
    detector_file: str = setting("yunet: path of its weights, face_detection_yunet of OpenCV's model zoo (ONNX)", "")

    @model_validator(mode="after")
    def _has_its_file(self) -> Self:
        detector = choose(DETECTORS, self.detector, "view/detector")
        if detector.needs_file and not self.detector_file:
            raise ValueError(f"detector {self.detector} needs detector_file, the path of its weights")
        if self.detector_file and not detector.needs_file:
            raise ValueError(f"detector {self.detector} takes no detector_file; leave it out")
        return self


class GrabCutSettings(CenterSettings):
    """The middle of the image, all black where GrabCut takes it for the background. Source: Rother et al., GrabCut, 2004."""

    rounds: Count = setting("how often GrabCut fits the colours of front and back", 3)


class FaceGrabCutSettings(FaceSettings):
    """As face, all black where GrabCut takes it for the background."""

    rounds: Count = setting("how often GrabCut fits the colours of front and back", 3)


@dataclass(frozen=True)
class View:
    """One geometry of the input. Settings that do not matter to its crop are as below, so views that show the same are equal."""

    crop: str
    fraction: float  # of each side that stays, or 1
    height: int  # pixels
    width: int
    box: tuple[int, int] | None = None  # height, width in pixels of the image
    margin: float = 0.0  # on each side of a face, as a share of its box
    fit: str = "stretch"
    detector: str = "mtcnn"
    detector_file: str = ""
    rounds: int = 0  # of GrabCut

    @classmethod
    def of(cls, config: ViewConfig) -> "View":
        """The view that a trial's settings ask for."""
        crop = choose(CROPS, config.crop, "view/crop")
        own = crop.settings.model_fields.keys() - ViewConfig.model_fields.keys()
        matters: dict[str, Any] = {"fraction": 1.0} | {name: getattr(config, name) for name in own}
        return cls(crop=config.crop, height=config.height, width=config.width, fit=config.fit, **matters)

    @property
    def needs_face(self) -> bool:
        """Whether `look` has to be told where the image's face is."""
        return CROPS[self.crop].needs_face

    @property
    def finder(self) -> tuple[str, str] | None:
        """The detector and its file; None where no face is needed."""
        return (self.detector, self.detector_file) if self.needs_face else None

    def __str__(self) -> str:
        crop = CROPS[self.crop].words.format(**asdict(self))
        fit = "" if self.fit == "stretch" else self.fit
        found_by = "" if self.detector == "mtcnn" else f"found by {self.detector}"
        return ", ".join(filter(None, (f"{self.height}x{self.width}", crop, found_by, fit)))


def faces_of(image: Image.Image, views: Sequence[View]) -> dict[View, Box | None]:
    """The face that `look` is to be told of, by view, each looked for once; None where none is found or needed. Raises: DataError."""
    found = {finder: _finder(*finder)(image) for finder in {view.finder for view in views} if finder}
    return {view: found[view.finder] if view.finder else None for view in views}


@cache
def _finder(detector: str, file: str) -> Find:
    return choose(DETECTORS, detector, "view/detector").build(file)


def _center(size: Size, view: View, face: Box | None) -> Area:
    width, height = size
    left, top = width * (1 - view.fraction) / 2, height * (1 - view.fraction) / 2
    return left, top, width - left, height - top


def _box(size: Size, view: View, face: Box | None) -> Area:
    width, height = size
    # Whole pixels: a box as large as the view is copied, not blurred.
    down, across = view.box or (height, width)
    left, top = max(0, width - across) // 2, max(0, height - down) // 2
    return left, top, min(width, left + across), min(height, top + down)


def _face(size: Size, view: View, face: Box | None) -> Area:
    if face is None:
        return _center(size, view, face)
    left, top, right, bottom = face
    across, down = view.margin * (right - left), view.margin * (bottom - top)
    return max(0, left - across), max(0, top - down), min(size[0], right + across), min(size[1], bottom + down)


@dataclass(frozen=True)
class Crop(Entry[ViewConfig]):
    """One way to choose what a view shows of an image: `build` gives the area, of (size, view, face)."""

    build: Callable[[Size, View, Box | None], Area]
    words: str = ""  # how a view is named, with its fields to fill in
    needs_face: bool = False
    paint: Callable[[Image.Image, View, Area, Box | None], Image.Image] | None = None  # what is changed of the pixels before they are cut


def _without_background(image: Image.Image, view: View, area: Area, face: Box | None) -> Image.Image:
    from trainables.data.background import without_background

    return without_background(image, area, face, view.rounds)


CROPS: Registry[Crop] = Registry(
    {
        "none": Crop(ViewConfig, lambda size, view, face: (0, 0, *size)),
        "center": Crop(CenterSettings, _center, "center {fraction:g}"),
        "box": Crop(BoxSettings, _box, "box {box[0]}x{box[1]}"),
        "face": Crop(FaceSettings, _face, "face with margin {margin:g} or center {fraction:g}", needs_face=True),
        "grabcut": Crop(GrabCutSettings, _center, "center {fraction:g} without background", paint=_without_background),
        "face_grabcut": Crop(
            FaceGrabCutSettings,
            _face,
            "face with margin {margin:g} or center {fraction:g}, without background",
            needs_face=True,
            paint=_without_background,
        ),
    },
    Crop,
    ViewConfig,
)


def _stretch(area: Area, size: Size) -> tuple[Area, Size]:
    return area, size


def _cover(area: Area, size: Size) -> tuple[Area, Size]:
    left, top, right, bottom = area
    aspect = size[0] / size[1]
    across = max(0, right - left - (bottom - top) * aspect) / 2
    down = max(0, bottom - top - (right - left) / aspect) / 2
    return (left + across, top + down, right - across, bottom - down), size


def _contain(area: Area, size: Size) -> tuple[Area, Size]:
    left, top, right, bottom = area
    scale = min(size[0] / (right - left), size[1] / (bottom - top))
    return area, (max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top))))


# Each fit says what of the area is shown, and on how many pixels of the view; the others are black.
FITS: dict[str, Callable[[Area, Size], tuple[Area, Size]]] = {"stretch": _stretch, "cover": _cover, "contain": _contain}


def area_of(size: Size, view: View, face: Box | None = None) -> tuple[Area, Size]:
    """What a view shows of an image of this size, and on how many of the view's pixels; the others are black."""
    return FITS[view.fit](CROPS[view.crop].build(size, view, face), (view.width, view.height))


def look(image: Image.Image, view: View, face: Box | None = None) -> np.ndarray:
    """The image as the model sees it: (height, width, 3) uint8.

    Args:
        face: what `faces_of` finds in the image; views that need no face do not ask for it.
    """
    canvas = Image.new("RGB", (view.width, view.height))
    area, size = area_of(image.size, view, face)
    if (paint := CROPS[view.crop].paint) is not None:
        image = paint(image, view, CROPS[view.crop].build(image.size, view, face), face)
    seen = image.resize(size, Image.Resampling.BILINEAR, box=area, reducing_gap=2.0)
    canvas.paste(seen, ((view.width - size[0]) // 2, (view.height - size[1]) // 2))
    return np.asarray(canvas)


@dataclass(frozen=True)
class ViewFile:
    """The images of a data set as one view shows them.

    It says what they are and not in which rows of which file they lie, so it may be sent to another process or machine, and outlives
    the cache: `open_view` decodes again what is gone.
    """

    view: View
    cache: Path
    root: Path  # ids are paths below this folder
    contents: Mapping[str, str]  # by id: sha256 of the image's file, in hex; BLACK where it cannot be decoded
    use: Use = field(default_factory=Use, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """The store that holds them."""
        return store_folder(self.cache, self.view)


@dataclass(frozen=True)
class OpenView:
    """A view's images, mapped into memory."""

    images: np.ndarray  # (rows, height, width, 3) uint8; some may be of other data sets
    entries: np.ndarray  # (rows,) of ENTRY
    row: Mapping[str, int]  # by content
    contents: Mapping[str, str]  # of ViewFile

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """The rows (n,) of images, by their ids; row 0, which is black, for those that cannot be decoded."""
        return np.array([self.row[self.contents[name]] for name in ids], dtype=np.int64)


@dataclass(frozen=True)
class ViewFiles:
    """The views of a data set, what they were made of, and which images could not be decoded."""

    files: dict[View, ViewFile]
    bad: dict[str, str]  # image id -> why; they are black
    digests: dict[str, str]  # image id -> first 16 hex digits of the sha256 of its file; only a file that cannot be opened has none
    without_face: tuple[str, ...] = ()  # ids of the images whose centre is shown because a view needs a face and none was detected
    changed: Mapping[Change, tuple[str, ...]] = field(default_factory=dict)  # ids of the images by what was done to their pixels

    def notes(self, images: int) -> Iterator[str]:
        """What was done to so many images beside decoding them, a line for each kind, with how many they are and the first of them."""
        yield from (str(LeftOut(TOLD[change], names)) for change, names in self.changed.items())
        if self.without_face:
            yield self.words_of_no_face(images)

    def words_of_no_face(self, images: int) -> str:
        """How many of so many images have no face, and the first of them."""
        found = f"no face detected in {len(self.without_face)} of {images} images ({len(self.without_face) / images:.1%})"
        return f"{found}, so their centre is used: {some(self.without_face)}"


def build_views(
    images: Images | Unlabelled,
    views: Iterable[View],
    cache: Path,
    progress: Callable[[int], None] | None = None,
    find: Find | None = None,
) -> ViewFiles:
    """Decode on all cores what the cache does not hold yet: each content once, however many images and data sets have it.

    Which content a file has is asked of the table of files: one with the size, time of writing and time of change that it had when it
    was last read is taken to hold the same bytes. Changes to a disk below its file system are not noticed.

    Args:
        cache: folder of the stores. Several processes may build there at a time.
        progress: called with 1 for each image that was read.
        find: where the face of an image is, in place of the views' own detectors; asked once for each content, and only if needed.
    Raises: DataError when the disk has no room for them.
    """
    views = sorted(set(views), key=str)
    with _data_error():
        survey = _survey(images, views, cache)
        keep = {store_folder(cache, view): survey.contents for view in views}
        make_room(cache, survey.need, keep)
        uses = {view: Use(store_folder(cache, view)) for view in views}
        found = survey.known
        if survey.missing:
            found |= _fill(images.root, survey.missing, views, cache, progress or (lambda done: None), find)
        contents = {name: BLACK if found[name].why else found[name].content for name in images.ids}
        files = {view: ViewFile(view, cache, images.root, contents, uses[view]) for view in views}
        without_face, changes = np.zeros(len(images.ids), bool), np.zeros(len(images.ids), int)
        for file in files.values():
            seen = open_view(file, find)
            entries = seen.entries[seen.rows(images.ids)]
            without_face |= entries["without_face"]
            changes |= entries["changes"]
            note_use(cache, file.folder, contents.values())
        if survey.missing:
            make_room(cache, 0, keep)
    return ViewFiles(
        files,
        bad={name: found[name].why for name in images.ids if found[name].why},
        digests={name: found[name].content[:16] for name in images.ids if found[name].content},
        without_face=_where(without_face, images.ids),
        changed={change: _where(changes & change, images.ids) for change in Change if (changes & change).any()},
    )


def _where(chosen: np.ndarray, ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(ids[position] for position in np.flatnonzero(chosen).tolist())


def count_missing(images: Images | Unlabelled, views: Iterable[View], cache: Path) -> int:
    """How many images `build_views` would have to read."""
    return len(_survey(images, list(views), cache).missing)


def open_view(file: ViewFile, find: Find | None = None) -> OpenView:
    """The view's images; those that are no longer in the cache are decoded again.

    Raises: DataError when that cannot be: an image is gone or has another content by now, or the disk has no room.
    """
    wanted = dict.fromkeys(file.contents.values())
    # The cache may be emptied meanwhile: once, not for ever.
    for _ in range(3):
        use, stored = Use(file.folder), read_store(file.folder)
        if stored is not None and all(content in stored.row for content in wanted):
            use.lasts_as_long_as(stored.images)
            return OpenView(stored.images, stored.entries, stored.row, file.contents)
        held = stored.row if stored is not None else {BLACK: 0}
        missing = [name for name, content in file.contents.items() if content not in held]
        with _data_error():
            found = _fill(file.root, missing, [file.view], file.cache, lambda done: None, find)
        other = [name for name in missing if found[name].why or found[name].content != file.contents[name]]
        if other:
            other = [f"{name} ({found[name].why or 'other content'})" for name in other]
            gone = f"{file.cache}: {len(missing)} decoded images are gone, and {len(other)} cannot be decoded again"
            raise DataError(f"{gone}, as the files changed: {some(other)}. Restore them to resume.")
    raise DataError(
        f"{file.cache}: decoded images vanish while they are read. Set SWEEPVOTE_CACHE to a folder that no other program empties."
    )


def store_folder(cache: Path, view: View) -> Path:
    """Where the images lie that a view shows."""
    origins = filter(None, (CROPS.origins.get(view.crop), DETECTORS.origins.get(view.detector) if view.needs_face else ""))
    version = version_of(*view.finder) if view.finder else ""
    said = {name: value for name, value in asdict(view).items() if name not in LATER or LATER[name] != value}
    text = json.dumps([FORMAT, version, said, *origins])
    return cache / f"{view.crop}-{view.height}x{view.width}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def statistics_of(file: ViewFile, ids: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`channel_statistics` of some images of a data set."""
    seen = open_view(file)
    return channel_statistics(seen.images, seen.rows(ids))


def channel_statistics(images: np.ndarray, rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, on the scale 0 to 1, over all pixels of the given rows."""
    histogram = np.zeros((3, 256))
    for start in range(0, len(rows), 256):
        pixels = images[np.sort(rows[start : start + 256])].reshape(-1, 3)
        histogram += [np.bincount(pixels[:, channel], minlength=256) for channel in range(3)]
    share = histogram / histogram.sum(axis=1, keepdims=True)
    level = np.arange(256) / 255
    mean = share @ level
    std = np.sqrt(share @ level**2 - mean**2)
    return tuple(mean.tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class _File:
    """What is known about the file of an image."""

    stamp: tuple[int, ...]  # size, and times of writing and of change in ns
    content: str  # sha256 in hex; empty for a file that cannot be read
    why: str = ""  # it cannot be decoded


@dataclass(frozen=True)
class _Survey:
    known: dict[str, _File]  # by id: the files whose content is known and, as far as it can be decoded, in all stores
    missing: list[str]  # the other ids
    contents: set[str]  # all that are known and can be decoded
    need: int  # bytes that they will take at least


def _survey(images: Images | Unlabelled, views: Sequence[View], cache: Path) -> _Survey:
    table = _read_table(cache, images.root)
    known = {name: file for name in images.ids if (file := table.get(name)) and file.stamp == _stamp_of(images.root, name)}
    missing, need = dict.fromkeys(name for name in images.ids if name not in known), 0
    unknown = len(missing)
    wanted = {file.content for file in known.values() if not file.why}
    for view in views:
        stored = read_store(store_folder(cache, view))
        held = stored.row if stored is not None else {BLACK: 0}
        missing |= dict.fromkeys(name for name, file in known.items() if not file.why and file.content not in held)
        absent = sum(content not in held for content in wanted)
        # Files of unknown content may be among what the store holds of others.
        need += (absent + max(0, unknown - (len(held) - 1 - len(wanted) + absent))) * view.height * view.width * 3
    return _Survey({name: file for name, file in known.items() if name not in missing}, [*missing], wanted, need)


def _fill(
    root: Path, names: Sequence[str], views: Sequence[View], cache: Path, progress: Callable[[int], None], find: Find | None
) -> dict[str, _File]:
    """Read files and add what the views' stores lack of them, in turns with other processes. Raises: CacheError, DataError."""
    found: dict[str, _File] = {}
    turn = max(TURN, math.ceil(len(names) / TURNS))
    for start in range(0, max(1, len(names)), turn):
        with alone(cache), ExitStack() as stack:
            stack.callback(_extend_table, cache, root, found)
            faces = _remembered(views, cache, find) if names else {}
            stack.enter_context(one_thread_each() if faces else nullcontext())
            writers = {
                view: stack.enter_context(Writer(store_folder(cache, view), (view.height, view.width, 3), str(view))) for view in views
            }
            files = stack.enter_context(closing(_read_all(root, names[start : start + turn], writers, faces)))
            for name, (file, seen, without_face, changes) in files:
                for view, image in seen.items():
                    writers[view].add(file.content, image, view in without_face, changes)
                found[name] = file
                progress(1)
    return found


# The detected faces, by detector and its file.
Known = Mapping[tuple[str, str], Faces]
# A file, its image in each view whose store lacks it, which of these miss a face in it, and what was done to its pixels.
Decoded = tuple[_File, dict[View, np.ndarray], set[View], Change]


def _remembered(views: Sequence[View], cache: Path, find: Find | None) -> Known:
    """Raises: DataError where a detector is not there."""
    wanted = {finder for view in views if (finder := view.finder)}
    return {one: Faces(cache / f"faces-{version_of(*one)}.jsonl", find or _finder(*one)) for one in wanted}


def _read_all(root: Path, names: Sequence[str], writers: Mapping[View, Writer], faces: Known) -> Generator[tuple[str, Decoded]]:
    def read(index: int) -> Decoded:
        return _read(root / names[index], writers, faces)

    # Pillow and torch let go of the interpreter while they compute, so threads use all cores.
    threads = cores_here()
    with closing(ahead(read, len(names), threads, 8 * threads)) as files:
        yield from zip(names, files, strict=True)


def _read(file: Path, writers: Mapping[View, Writer], faces: Known) -> Decoded:
    stamp, content = (), ""
    try:
        with file.open("rb") as stream:
            stamp = _stamp(os.fstat(stream.fileno()))
            content = hashlib.file_digest(stream, "sha256").hexdigest()
            views = [view for view, writer in writers.items() if content not in writer.row]
            if not views:
                return _File(stamp, content), {}, set(), Change(0)
            stream.seek(0)
            image, changes = decode(stream)
    except UNREADABLE as error:
        # What the system says of a disk may be otherwise tomorrow; what Pillow says of the bytes is not.
        passing = isinstance(error, OSError) and error.errno is not None
        return _File(() if passing else stamp, content, str(error) or type(error).__name__), {}, set(), Change(0)
    # Where pixels are changed, another decoder may have found no face in what it made of them.
    digest = f"{content[:16]}{f'-{changes:x}' if changes else ''}"
    found = {view: faces[finder].of(image, digest) for view in views if (finder := view.finder)}
    missed = {view for view, face in found.items() if face is None}
    return _File(stamp, content), {view: look(image, view, found.get(view)) for view in views}, missed, changes


@contextmanager
def _data_error() -> Iterator[None]:
    try:
        yield
    except CacheError as error:
        raise DataError(str(error)) from None


# The table of files: one for each folder of images


def _table_file(cache: Path, root: Path) -> Path:
    return cache / "files" / f"{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:20]}.json"


def _read_table(cache: Path, root: Path) -> dict[str, _File]:
    try:
        table = json.loads(_table_file(cache, root).read_bytes())
        current = table["format"] == FORMAT and table["decoder"] == decoder()
        return {name: _File(tuple(stamp), content, why) for name, (stamp, content, why) in table["files"].items() if current or not why}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _extend_table(cache: Path, root: Path, found: Mapping[str, _File]) -> None:
    """Keep what was found out about files. For whoever holds the cache's lock; without room nothing is kept, and they are read again."""
    if not found:
        return
    files = _read_table(cache, root) | {name: file for name, file in found.items() if file.stamp and file.content}
    rows = {name: [file.stamp, file.content, file.why] for name, file in files.items()}
    table = {"format": FORMAT, "root": str(root.absolute()), "decoder": decoder(), "files": rows}
    with suppress(OSError):
        _table_file(cache, root).parent.mkdir(exist_ok=True)
        write_atomically(_table_file(cache, root), json.dumps(table).encode())


def _stamp_of(root: Path, name: str) -> tuple[int, ...] | None:
    try:
        return _stamp(os.stat(os.path.join(root, name)))
    except (OSError, ValueError):
        return None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
