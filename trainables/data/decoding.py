"""How the file of an image becomes pixels: the one place where images are opened, so that training, answers and pages see the same.

What an image shows is kept, however its file says it: it comes upright, in sRGB, with 8 bits a channel, on white.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import IntFlag, auto
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features
from PIL.ExifTags import Base

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

LARGEST = 100_000_000  # pixels of one image; more is a bomb or a mistake
# What cameras, phones and the web make. Others stay closed: to open an EPS file is to run a program that it holds.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# What Pillow raises for files that are no images, and, in no order, for those that are damaged.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(RuntimeError, LookupError, TypeError, OverflowError),
)
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}  # brands that pillow-heif opens
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
BITS, IMAGEMETRIC, MIN, MAX, SAMPLE_FORMAT, SMIN, SMAX = 258, 262, 280, 281, 339, 340, 341  # tags of TIFF 6.0
DEEP = ("RGB;16", "RGBX;16", "RGBA;16", "LA;16")  # of these Pillow keeps the upper 8 bits
LEVELS = (2**8 - 1, 2**12 - 1, 2**16 - 1)  # highest integers of 8 bits, of many cameras and of 16 bits
ALIKE = 2  # levels of 255 by which the colours of a profile may differ from sRGB's and count as these
BAND = 256  # rows that are scaled at a time

Range = tuple[float, float]  # the values that are black and white


class UnknownFormatError(ValueError):
    """The file is no image, or one of a format that is not read here."""


class TooLargeError(ValueError):
    """The image has more pixels than the limit, or its header says so."""


class Change(IntFlag):
    """What was done to the pixels of a file."""

    TURNED = auto()
    FIRST_FRAME = auto()
    WHITE = auto()
    CMYK = auto()
    PROFILE = auto()
    BAD_PROFILE = auto()
    SCALED = auto()
    STRETCHED = auto()


# What the images are that a change was made to, in words.
TOLD = {
    Change.TURNED: "images turned upright, as their EXIF says",
    Change.FIRST_FRAME: "images of several frames or pages, of which the first is used",
    Change.WHITE: "images with transparent parts, put on white",
    Change.CMYK: "images converted from CMYK",
    Change.PROFILE: "images converted from the colours of their profile to sRGB",
    Change.BAD_PROFILE: "images with a colour profile that cannot be used, read without it",
    Change.SCALED: "images of more than 8 bits a channel, scaled to 8",
    Change.STRETCHED: "images scaled by their own lowest and highest values, as their files declare no range",
}


def decoder() -> str:
    """What decodes here; what one decoder refused is for another to try."""
    return f"Pillow {PIL.__version__}{', pillow-heif' if find_spec('pillow_heif') else ''}"


def read_image(file: Path | BinaryIO) -> Image.Image:
    """The image as `decode` gives it. Raises: one of UNREADABLE."""
    return decode(file)[0]


def decode(file: Path | BinaryIO) -> tuple[Image.Image, Change]:
    """The image in RGB, upright, in sRGB, with 8 bits a channel, on white; and what had to be done for that.

    Of several frames or pages the first is taken. CMYK without a profile is converted by Pillow's plain formula. A profile that is
    damaged or made for other pixels is ignored; colours within two levels of sRGB's stay as they are.

    More than 8 bits are scaled linearly by the range that the file declares: maxval (PGM, PPM), MinSampleValue and MaxSampleValue
    (TIFF), the bits of a sample where these are no whole bytes (TIFF, JPEG 2000). Where it declares none, or one that its values exceed:

    - integers from 0: by the range of 8, 12 or 16 bits, the least that holds them. So images of one camera keep their brightness to
      each other, and 12 bits in a file of 16 are not black
    - floats from 0 to 1: by this range
    - all others: by their own lowest and highest value

    Raises: one of UNREADABLE for a damaged, lying or oversized file, and for one that needs a library which is not there.
    """
    with _stream(file) as stream, open_image(stream) as image:
        bits = _jpeg2000_bits(stream) if image.format == "JPEG2000" else 0
        deep = _lies_as(image).startswith(DEEP) or (bits > 8 and image.mode in ("RGB", "RGBA"))
        changes = Change.FIRST_FRAME if _has_frames(image) else Change(0)
        orientation = image.getexif().get(Base.Orientation, 1)
        profile, negative = image.info.get("icc_profile"), _tags(image).get(IMAGEMETRIC) == 0
        declared = _declared(image, bits if deep else 0)
        image.load()
        values = _wide_colours(stream, image.size, image.mode) if deep else _wide_greys(image)
        if bits and deep and values is None:
            # Pillow would round what is white up to 256 and show it black.
            raise ValueError(f"a JPEG 2000 of {bits} bits a channel that OpenCV does not read; write it with 8 bits")
        seen: Image.Image = image
        if values is not None:
            seen, scaled = _eight_bits(values, declared, image.info.get("transparency"), negative)
            changes |= scaled
        seen, converted = _in_srgb(seen, profile)
        if orientation in range(2, 9):
            changes |= Change.TURNED
            # Both Pillow and OpenCV turn a TIFF while it is loaded.
            if image.format != "TIFF":
                seen.getexif()[Base.Orientation] = orientation
                seen = ImageOps.exif_transpose(seen)
        return seen, changes | converted


@contextmanager
def open_image(file: Path | BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """The image as Pillow has it, of which no more than the header is read. Raises: one of UNREADABLE."""
    with _stream(file) as stream:
        try:
            opened = _open(stream)
        except UnidentifiedImageError:
            # Pillow would name an object in memory; every caller knows the image's name.
            raise UnknownFormatError("not an image of a known format") from None
        except Image.DecompressionBombError:
            raise TooLargeError(f"its header declares far more than {LARGEST:,} pixels, the limit") from None
        with opened as image:
            if image.width * image.height > LARGEST:
                raise TooLargeError(f"{image.width} x {image.height} pixels; the limit is {LARGEST:,}")
            yield image


def _stream(file: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return file.open("rb") if isinstance(file, Path) else nullcontext(file)


def _open(stream: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        stream.seek(0)
        head = stream.read(12)
    brand = head[8:] if head[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis") and not features.check("avif"):
        raise UnknownFormatError("this Pillow cannot read AVIF; pip install 'pillow>=11.3'")
    if brand in HEIC:
        return _open_heic(stream)
    if head.startswith(TIFF):
        raise UnknownFormatError("a TIFF with pixels of a kind that is not read; write it as grey or RGB of 8 or 16 bits")
    raise UnidentifiedImageError


def _open_heic(stream: BinaryIO) -> ImageFile.ImageFile:
    if not find_spec("pillow_heif"):
        fix = "uv run --extra heic ..., or pip install pillow-heif"
        raise UnknownFormatError(f"HEIC is read with pillow-heif, which is not installed: {fix}")
    import_module("pillow_heif").register_heif_opener()
    stream.seek(0)
    return Image.open(stream, formats=("HEIF",))


def _has_frames(image: ImageFile.ImageFile) -> bool:
    try:
        # The further images of an MPO are previews and depth maps of the one that phones show.
        return image.format != "MPO" and getattr(image, "is_animated", False)
    except UNREADABLE:
        # The frame behind the first is damaged, and not used.
        return True


# More than 8 bits


def _lies_as(image: ImageFile.ImageFile) -> str:
    """How the pixels lie in a PNG or TIFF that is not loaded yet, as Pillow names it."""
    if image.format not in ("PNG", "TIFF") or not image.tile:
        return ""
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _jpeg2000_bits(stream: BinaryIO) -> int:
    """The most bits of a channel, which stand at the start of the code stream (ISO/IEC 15444-1, A.5.1); 0 where none is found."""
    place = stream.tell()
    stream.seek(0)
    _, _, segment = stream.read().partition(b"\xff\x4f\xff\x51")
    stream.seek(place)
    return max(((channel & 0x7F) + 1 for channel in segment[38 : 38 + 3 * int.from_bytes(segment[36:38], "big") : 3]), default=0)


def _declared(image: ImageFile.ImageFile, bits: int) -> Range | None:
    """The range of values that the file says, where it does.

    Args:
        bits: of a JPEG 2000 whose values come as they are; 0 for all else.
    """
    if bits:
        return 0, 2**bits - 1
    if image.format in ("PPM", "JPEG2000") and image.mode != "F":
        return 0, LEVELS[-1]  # to which Pillow has scaled what they declare
    if not (tags := _tags(image)):
        return None
    sample = np.max(tags.get(BITS, 1))
    low = tags.get(SMIN, tags.get(MIN, 0))
    high = tags.get(SMAX, tags.get(MAX, 2**sample - 1 if sample % 8 else 0))
    low, high = float(np.min(low)), float(np.max(high))
    return (low, high) if low < high else None


def _tags(image: ImageFile.ImageFile) -> Mapping[int, Any]:
    """By number; only a TIFF has some."""
    return getattr(image, "tag_v2", {})


def _wide_greys(image: ImageFile.ImageFile) -> np.ndarray | None:
    """Shades (height, width) of more than 8 bits; None where 8 bits hold all."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return None
    shades = np.asarray(image)
    tags = _tags(image)
    unsigned = tags and image.mode == "I" and np.max(tags.get(SAMPLE_FORMAT, 1)) == 1
    return shades.view(np.uint32) if unsigned else shades


def _wide_colours(stream: BinaryIO, size: tuple[int, int], mode: str) -> np.ndarray | None:
    """Channels (height, width, 3 or 4) of 16 bits, the last of 4 opaque; None where OpenCV does not read the file."""
    import cv2

    stream.seek(0)
    try:
        found = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    channels = 4 if mode in ("RGBA", "LA") else 3
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[1::-1] != size or found.shape[2] < channels:
        return None
    return found[..., [2, 1, 0, 3][:channels]]


def _eight_bits(values: np.ndarray, declared: Range | None, transparent: object, negative: bool) -> tuple[Image.Image, Change]:
    """In L, RGB or RGBA.

    Args:
        values: (height, width), or (height, width, 3 or 4) with opacity as the last of 4.
        transparent: the value or colour that a PNG declares to be.
        negative: 0 is white; Pillow sees to that where there are 8 bits.
    """
    colours = values[..., :3] if values.ndim == 3 else values
    low, high, changes = _range_of(colours, declared)
    levels = _scale(colours, low, high)
    seen = Image.fromarray(255 - levels if negative else levels)
    if values.ndim == 3 and values.shape[-1] == 4:
        seen.putalpha(Image.fromarray(_scale(values[..., 3], 0, LEVELS[-1])))
    elif isinstance(transparent, int | tuple):
        opaque = np.atleast_3d(colours != transparent).any(axis=-1)
        seen.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return seen, changes


def _range_of(values: np.ndarray, declared: Range | None) -> tuple[float, float, Change]:
    finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no pixel of it is a finite number")
    low, high = float(finite.min()), float(finite.max())
    if declared and declared[0] <= low and high <= declared[1]:
        return *declared, Change.SCALED
    known = LEVELS if values.dtype.kind in "iu" else (1,)
    if low >= 0 and high <= known[-1]:
        low, high = 0, next(level for level in known if high <= level)
    whole = values.dtype.itemsize == 2 and high == LEVELS[-1]
    return low, high, Change.SCALED if whole else Change.SCALED | Change.STRETCHED


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The values as uint8 of the same shape: 0 at `low` and below, 255 at `high` and above, 0 where there is no number."""
    levels = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), BAND):
        band = np.nan_to_num(values[start : start + BAND].astype(np.float64), nan=low)
        levels[start : start + BAND] = np.rint(np.clip((band - low) / ((high - low) or 1), 0, 1) * 255)
    return levels


# Colours


def _in_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, Change]:
    """In RGB, on white."""
    changes = Change.CMYK if image.mode == "CMYK" else Change(0)
    opacity = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = None
    if profile or image.mode == "LAB":
        try:
            colours = _by_profile(image, profile or b"")
            changes |= Change.PROFILE if colours and image.mode != "CMYK" else Change(0)
        except (OSError, ValueError, TypeError):
            changes |= Change.BAD_PROFILE
    if colours is None:
        colours = _plain_rgb(image)
    if opacity is not None and opacity.getextrema() != (255, 255):
        changes |= Change.WHITE
        # Without this, invisible colours would be trained on.
        colours.putalpha(opacity)
        colours = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    return colours, changes


def _plain_rgb(image: Image.Image) -> Image.Image:
    """Without opacity and profile."""
    # Pillow has no way from premultiplied colours to RGB but over RGBA.
    return (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """In RGB by its profile, without opacity; None where the profile's colours are sRGB's. Raises: OSError, ValueError, TypeError."""
    mode, transform = _transform(profile)
    if mode == "RGB" and image.mode not in ("CMYK", "LAB"):
        image = _plain_rgb(image)
    elif mode == "L" and image.mode in ("1", "LA"):
        image = image.convert("L")
    if image.mode != mode:
        raise ValueError(f"its profile is for {mode}")
    return transform.apply(image) if transform else None


@lru_cache(64)
def _transform(profile: bytes) -> "tuple[str, ImageCmsTransform | None]":
    """The mode that the profile is for, and what takes it to sRGB; None where nothing is to be done. An empty profile is that of LAB."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}[source.profile.xcolor_space]
        intent = ImageCms.Intent.PERCEPTUAL
        # Threads share it, which those with a cache do not allow.
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, ImageCms.Flags.NOCACHE)
    except (ImageCms.PyCMSError, KeyError) as error:
        raise ValueError(str(error)) from None
    if mode in ("RGB", "L"):
        steps = np.linspace(0, 255, 16 if mode == "RGB" else 256).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).reshape(-1, len(mode))
        sample = Image.fromarray(grid.reshape(1, -1, 3) if mode == "RGB" else grid.reshape(1, -1))
        if np.abs(np.asarray(transform.apply(sample), int)[0] - grid).max() <= ALIKE:
            return mode, None
    return mode, transform
