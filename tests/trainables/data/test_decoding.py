import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from trainables.data.decoding import FORMATS, TOLD, UNREADABLE, Change, decode, open_image, read_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(256, size=(32, 20, 3), dtype=np.uint8)
SMOOTH = np.stack([*np.meshgrid(np.linspace(20, 230, 32), np.linspace(0, 255, 20), indexing="ij"), np.full((32, 20), 90.0)], -1)
SMOOTH = SMOOTH.round().astype(np.uint8)
GREY = SMOOTH[..., 0]
LOSSY = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **LOSSY.get(kind, {}), **options)
    stream.seek(0)
    return stream


def pixels(stream) -> tuple[np.ndarray, Change]:
    image, changes = decode(stream)
    assert image.mode == "RGB"
    return np.asarray(image, int), changes


def grey(stream) -> tuple[np.ndarray, Change]:
    found, changes = pixels(stream)
    assert (found == found[..., :1]).all()
    return found[..., 0], changes


def can_write(mode: str, kind: str) -> bool:
    try:
        saved(Image.new(mode, (16, 16)), kind)
    except (OSError, ValueError, KeyError):
        return False
    return True


# Plain files


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_file_is_what_pillow_reads_and_nothing_was_done_to_it(mode, kind):
    stream = saved(Image.fromarray(COLOURS).convert(mode), kind)
    found, changes = pixels(stream)
    np.testing.assert_array_equal(found, np.asarray(Image.open(stream).convert("RGB")))
    assert changes == Change(0)


@pytest.mark.parametrize(
    ("mode", "kind"), [(mode, kind) for mode in ("1", "P", "RGBX", "YCbCr") for kind in FORMATS if can_write(mode, kind)]
)
def test_files_of_every_other_mode_are_what_they_show(mode, kind):
    image = Image.fromarray(SMOOTH).convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else Image.fromarray(SMOOTH).convert(mode)
    found, changes = pixels(saved(image, kind))
    np.testing.assert_allclose(found, np.asarray(image.convert("RGB"), int), atol=8 if kind in ("JPEG", "AVIF") else 2)
    assert changes == Change(0)


# More than 8 bits

DEEP = [
    (mode, kind) for mode in ("I;16", "I;16B", "I;16L", "I", "F") for kind in ("PNG", "TIFF", "PPM", "JPEG2000") if can_write(mode, kind)
]


@pytest.mark.parametrize(("mode", "kind"), DEEP)
def test_grey_of_many_bits_has_its_shades_in_every_container(mode, kind):
    dtype, top = {"I;16": ("<u2", 65535), "I;16L": ("<u2", 65535), "I;16B": (">u2", 65535), "I": ("<i4", 65535), "F": ("<f4", 1)}[mode]
    values = (GREY / 255 * top).round(6 if mode == "F" else 0).astype(dtype)
    found, changes = grey(saved(Image.frombytes(mode, GREY.shape[::-1], values.tobytes()), kind))
    np.testing.assert_array_equal(found, GREY)
    assert Change.SCALED in changes


@pytest.mark.parametrize("top", [65535, 4095, 1000])
def test_a_portable_graymap_is_scaled_by_its_maxval(top):
    values = (GREY.astype(float) / 255 * top).round().astype(">u2")
    found, changes = grey(io.BytesIO(b"P5 20 32 %d\n" % top + values.tobytes()))
    np.testing.assert_allclose(found, np.rint(values / top * 255), atol=1)
    assert changes == Change.SCALED


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        pytest.param(GREY.astype(np.uint16) * 16, 0, 4095, id="12 bits of 16"),
        pytest.param(GREY.astype(np.uint16), 0, 255, id="8 bits of 16"),
        pytest.param(GREY.astype(np.int32), 0, 255, id="8 bits of 32"),
        pytest.param(GREY.astype(np.int32) * 1_000_000, 20_000_000, 230_000_000, id="32 bits"),
        pytest.param(GREY.astype(np.int32) - 1000, -980, -770, id="below 0"),
        pytest.param(GREY.astype(np.float32), 20, 230, id="floats"),
        pytest.param(GREY.astype(np.float32) / 200 - 0.5, -0.4, 0.65, id="floats around 0"),
    ],
)
def test_what_declares_no_range_is_scaled_by_its_own_and_that_is_counted(values, low, high):
    found, changes = grey(saved(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(found, (values.astype(float) - low) / (high - low) * 255, atol=0.51)
    assert changes == Change.SCALED | Change.STRETCHED


@pytest.mark.parametrize(("low", "high"), [(0, 1000), (100, 1123), (0, 59_999)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_tiff_is_scaled_by_the_range_that_it_declares(low, high, kind):
    values = (low + GREY / 255 * (high - low)).round().astype(kind)
    found, changes = grey(saved(Image.fromarray(values), "TIFF", tiffinfo={340: low, 341: high}))
    np.testing.assert_allclose(found, (values - low) / (high - low) * 255, atol=0.51)
    assert changes == Change.SCALED


def test_a_tiff_in_which_nought_is_white_is_a_negative():
    values = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(grey(saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))[0], 255 - GREY)


def test_unsigned_integers_of_32_bits_are_no_negative_ones():
    values = np.where(GREY > 127, 2**32 - 1, 0).astype(np.uint32)
    code = saved(Image.fromarray(values.view(np.int32)), "TIFF").getvalue()
    np.testing.assert_array_equal(grey(io.BytesIO(with_tag(code, 339, 1)))[0], np.where(GREY > 127, 255, 0))


def test_a_float_without_a_number_is_black_and_an_image_of_none_is_refused():
    values = GREY.astype(np.float32) / 255
    values[0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(grey(saved(Image.fromarray(values), "TIFF"))[0][0, :4], [0, 255, 0, GREY[0, 3]])
    with pytest.raises(ValueError, match="finite"):
        decode(saved(Image.fromarray(np.full((16, 16), np.nan, np.float32)), "TIFF"))


@pytest.mark.parametrize("top", [65535, 4095])
@pytest.mark.parametrize("suffix", ["png", "tiff", "ppm", "jp2"])
def test_colours_of_sixteen_bits_are_scaled_like_greys(suffix, top):
    colours = np.repeat(np.repeat(SMOOTH, 2, 0), 2, 1)
    values = (colours / 255 * top).round().astype(np.uint16)
    whole, code = cv2.imencode(f".{suffix}", values[..., ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert whole
    found, changes = pixels(io.BytesIO(code.tobytes()))
    if suffix in ("ppm", "jp2"):  # these declare 16 bits
        np.testing.assert_allclose(found, values / 257, atol=0.51)
    else:
        np.testing.assert_array_equal(found, colours)
        assert changes == (Change.SCALED if top == 65535 else Change.SCALED | Change.STRETCHED)


@pytest.mark.parametrize("opacity", [0, 30_000, 65_535])
def test_transparent_colours_of_sixteen_bits_lie_on_white(opacity):
    values = np.dstack([SMOOTH[..., ::-1].astype(np.uint16) * 257, np.full(GREY.shape, opacity, np.uint16)])
    found, changes = pixels(io.BytesIO(cv2.imencode(".png", values)[1].tobytes()))
    np.testing.assert_allclose(found, SMOOTH * (opacity / 65535) + 255 * (1 - opacity / 65535), atol=1)
    assert (Change.WHITE in changes) == (opacity < 65535)


def test_colours_of_twelve_bits_of_jpeg_2000_are_scaled_by_these():
    found, changes = pixels(Path(__file__).parent / "twelve_bits.jp2")
    np.testing.assert_array_equal(found, np.rint((np.arange(192) * 4095 // 191).reshape(8, 8, 3) / 4095 * 255))
    assert changes == Change.SCALED


# Turned by EXIF

UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 3),
}


def with_orientation(image: Image.Image, kind: str, orientation: int) -> io.BytesIO:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_an_image_is_turned_as_its_camera_was_held(kind, orientation):
    turned = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](SMOOTH)))
    found, changes = pixels(with_orientation(turned, kind, orientation))
    np.testing.assert_allclose(found, SMOOTH, atol=8 if kind in ("JPEG", "AVIF") else 0)
    assert changes == (Change.TURNED if orientation > 1 else Change(0))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_images_of_every_kind_of_pixels_are_turned(kind, mode, orientation):
    pixels_of = {"I;16": lambda a: a[..., 0].astype(np.uint16) * 257, "RGBA": lambda a: np.dstack([a, a[..., :1] // 2]), "P": lambda a: a}
    upright, turned = (
        Image.fromarray(np.ascontiguousarray(pixels_of[mode](a))) for a in (SMOOTH, np.ascontiguousarray(UPRIGHT[orientation](SMOOTH)))
    )
    if mode == "P":
        upright, turned = (image.quantize(palette=upright.quantize(64), dither=Image.Dither.NONE) for image in (upright, turned))
    np.testing.assert_array_equal(pixels(with_orientation(turned, kind, orientation))[0], pixels(saved(upright, kind))[0])


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_colours_of_sixteen_bits_are_turned(suffix, orientation):
    turned = np.ascontiguousarray(UPRIGHT[orientation](SMOOTH)).astype(np.uint16) * 257
    code = cv2.imencode(f".{suffix}", turned[..., ::-1])[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "png":
        chunk = b"eXIf" + exif.tobytes()[6:]
        code = code[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + code[33:]
    else:
        code = with_tag(code, 274, orientation)
    found, changes = pixels(io.BytesIO(code))
    np.testing.assert_array_equal(found, SMOOTH)
    assert changes == Change.SCALED | (Change.TURNED if orientation > 1 else 0)


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF whose first directory is written again, with another tag of one short."""
    place = struct.unpack("<I", tiff[4:8])[0]
    count = struct.unpack("<H", tiff[place : place + 2])[0]
    entries = [tiff[place + 2 + 12 * i : place + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack("<H", entry[:2])[0] != tag] + [struct.pack("<HHIHH", tag, 3, 1, value, 0)]
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2]))
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


# Several frames


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_of_several_frames_the_first_is_used(kind):
    frames = [Image.new("RGB", (20, 32), (200, 200, 200)), Image.new("RGB", (20, 32), (10, 10, 10))]
    found, changes = pixels(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    np.testing.assert_allclose(found, 200, atol=2)
    assert changes == Change.FIRST_FRAME


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_damage_behind_the_first_frame_does_no_harm(kind):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    whole, alone = (saved(frames[0], kind, save_all=True, append_images=rest).getvalue() for rest in (frames[1:], []))
    for end in range(len(alone), len(whole), 7):
        np.testing.assert_array_equal(grey(io.BytesIO(whole[:end]))[0], GREY)


def test_the_preview_in_a_camera_file_is_no_frame():
    stream = saved(Image.fromarray(SMOOTH), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert Image.open(stream).n_frames == 2
    assert pixels(stream)[1] == Change(0)


# Transparent parts


def keeps_opacity(mode: str, kind: str) -> bool:
    return can_write(mode, kind) and Image.open(saved(Image.new(mode, (16, 16)), kind)).has_transparency_data


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode in ("RGBA", "LA", "PA") for kind in FORMATS if keeps_opacity(mode, kind)])
@pytest.mark.parametrize("below", [0, 120])
def test_what_is_transparent_is_white_whatever_colour_lies_below_it(mode, kind, below):
    drawn = np.full((64, 64, 4), below, np.uint8)
    drawn[..., 3] = 0
    drawn[16:48, 16:48] = (80, 80, 80, 255)
    image = Image.fromarray(drawn).convert(mode)
    if mode == "PA":
        image.putalpha(Image.fromarray(drawn[..., 3]))
    found, changes = grey(saved(image, kind))
    assert found[4, 4] == found[60, 32] == 255 and found[32, 32] == 80
    assert changes == Change.WHITE


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_is_half_white_and_opaque_is_nothing_to_tell(mode):
    for opacity in (128, 255):
        image = Image.fromarray(SMOOTH).convert(mode)
        image.putalpha(opacity)
        found, changes = pixels(saved(image, "PNG"))
        shown = np.asarray(Image.fromarray(SMOOTH).convert(mode).convert("RGB"), float)
        np.testing.assert_allclose(found, shown * opacity / 255 + 255 - opacity, atol=1)
        assert changes == (Change.WHITE if opacity < 255 else Change(0))


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_a_colour_that_a_png_declares_transparent_is_white(mode):
    value = {"P": 3, "L": 60, "RGB": (10, 20, 30), "I;16": 10_000}[mode]
    image = Image.new(mode, (20, 32), value)
    if mode == "P":
        image.putpalette([7, 7, 7] * 256)
    found, changes = pixels(saved(image, "PNG", transparency=value))
    assert (found == 255).all() and Change.WHITE in changes


# Colour profiles


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04, 6)."""
    tags = {b"wtpt": xyz(0.9642, 1, 0.8249), b"desc": b"desc\0\0\0\0\0\0\0\5made\0" + bytes(78), b"cprt": b"text\0\0\0\0no\0"} | tags
    table, data, place = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    rest = b"\0\0\0\0" + bytes.fromhex("02200000") + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header = rest + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    return struct.pack(">I", 4 + len(header) + len(table) + len(data)) + header + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(65536 * value) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(256 * value))


# Columns of P3's primaries and of sRGB's, adapted to D50.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
WIDE = profile(b"RGB ", {f"{c}XYZ".encode(): xyz(*P3[:, i]) for i, c in enumerate("rgb")} | {f"{c}TRC".encode(): gamma(1.8) for c in "rgb"})
GREYS = profile(b"GRAY", {b"kTRC": gamma(1.0)})


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's levels of linear light (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def inks() -> bytes:
    """A profile of CMYK in which Lab is found between the 16 corners: paper is white, cyan a blue, black ink black."""
    corners = []
    for c, m, y, k in np.ndindex(2, 2, 2, 2):
        corners += [
            int(255 * (1 - k) * (1 - 0.5 * c) * (1 - 0.3 * m)),
            128 - 40 * c * (1 - k) + 60 * m * (1 - k),
            128 - 50 * c + 70 * y * (1 - k),
        ]
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + bytes(np.clip(corners, 0, 255).astype(np.uint8)) + ramp * 3
    return profile(b"CMYK", {b"A2B0": table}, b"prtr", b"Lab ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_colours_of_a_profile_become_those_of_srgb(kind):
    found, changes = pixels(saved(Image.fromarray(SMOOTH), kind, icc_profile=WIDE))
    expected = encoded((SMOOTH / 255) ** 1.8 @ P3.T @ np.linalg.inv(SRGB).T)
    np.testing.assert_allclose(found, expected, atol=12 if kind in ("JPEG", "AVIF") else 2)
    assert changes == Change.PROFILE


def test_transparent_and_palette_images_have_profiles_too():
    expected = encoded((SMOOTH / 255) ** 1.8 @ P3.T @ np.linalg.inv(SRGB).T)
    image = Image.fromarray(SMOOTH)
    image.putalpha(128)
    found, changes = pixels(saved(image, "PNG", icc_profile=WIDE))
    np.testing.assert_allclose(found, expected * 128 / 255 + 127, atol=2)
    assert changes == Change.PROFILE | Change.WHITE
    flat = Image.new("RGB", (16, 16), (60, 120, 180)).quantize(4)
    np.testing.assert_allclose(
        pixels(saved(flat, "PNG", icc_profile=WIDE))[0][0, 0],
        encoded((np.array([60, 120, 180]) / 255) ** 1.8 @ P3.T @ np.linalg.inv(SRGB).T),
        atol=2,
    )


def test_a_profile_of_grey_is_for_greys_and_one_of_colours_for_both():
    image = Image.fromarray(GREY)
    for found, changes in (pixels(saved(image, "PNG", icc_profile=GREYS)), pixels(saved(image.convert("LA"), "PNG", icc_profile=GREYS))):
        np.testing.assert_allclose(found[..., 0], encoded(GREY / 255), atol=1)
        assert changes == Change.PROFILE
    found, changes = pixels(saved(image, "PNG", icc_profile=WIDE))
    np.testing.assert_allclose(found[..., 0], encoded((GREY / 255) ** 1.8), atol=2)
    assert changes == Change.PROFILE


def test_the_profile_of_srgb_changes_nothing():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for array in (COLOURS, GREY):
        found, changes = pixels(saved(Image.fromarray(array), "PNG", icc_profile=own))
        np.testing.assert_array_equal(found, array if array.ndim == 3 else np.dstack([array] * 3))
        assert changes == Change(0)


@pytest.mark.parametrize("damaged", [b"no profile", WIDE[:200], GREYS, inks()], ids=["text", "cut off", "of grey", "of inks"])
def test_a_profile_that_is_damaged_or_of_other_pixels_is_ignored_and_counted(damaged):
    found, changes = pixels(saved(Image.fromarray(COLOURS), "PNG", icc_profile=damaged))
    np.testing.assert_array_equal(found, COLOURS)
    assert changes == Change.BAD_PROFILE


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_converted_by_their_profile_or_else_plainly(kind):
    image = Image.new("CMYK", (20, 32), (255, 0, 0, 0))
    found, changes = pixels(saved(image, kind, icc_profile=inks()))
    lab = Image.frombytes("LAB", (1, 1), bytes([127, (88 - 128) % 256, (78 - 128) % 256]))
    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    np.testing.assert_allclose(found[5, 5], np.asarray(to_srgb.apply(lab))[0, 0], atol=6)
    assert changes == Change.CMYK
    for options, told in (({}, Change.CMYK), ({"icc_profile": b"no profile"}, Change.CMYK | Change.BAD_PROFILE)):
        found, changes = pixels(saved(image, kind, **options))
        np.testing.assert_allclose(found[5, 5], (0, 255, 255), atol=3)
        assert changes == told


def test_lab_becomes_srgb():
    image = Image.frombytes("LAB", (1, 1), bytes([127, 60, 236]))
    found, changes = pixels(saved(image.resize((16, 16)), "TIFF"))
    light, a, b = 127 / 255 * 100, 60, -20
    y = (light + 16) / 116
    linear = np.array([np.power(y + a / 500, 3) * 0.9642, np.power(y, 3), np.power(y - b / 200, 3) * 0.8249]) @ np.linalg.inv(SRGB).T
    np.testing.assert_allclose(found[0, 0], encoded(linear), atol=2)
    assert changes == Change.PROFILE


# What is refused


def heic() -> bytes:
    return b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


def test_heic_is_refused_with_the_line_that_installs_its_decoder(monkeypatch):
    monkeypatch.setattr("trainables.data.decoding.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        decode(io.BytesIO(heic()))


def test_heic_is_read_where_its_decoder_is_installed():
    pytest.importorskip("pillow_heif").register_heif_opener()
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "HEIF", quality=100)
    found, changes = pixels(stream)
    np.testing.assert_allclose(found, SMOOTH, atol=12)
    assert changes == Change(0)
    with pytest.raises(UNREADABLE):
        decode(io.BytesIO(stream.getvalue()[:200]))


def test_a_tiff_of_other_pixels_is_refused_with_what_to_write():
    values = np.dstack([GREY] * 3).astype(np.float32)
    with pytest.raises(ValueError, match="TIFF.*8 or 16 bits"):
        decode(io.BytesIO(cv2.imencode(".tiff", values)[1].tobytes()))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_colours_of_sixteen_bits_that_are_cut_off_are_refused(suffix):
    code = cv2.imencode(f".{suffix}", RNG.integers(65536, size=(64, 64, 3)).astype(np.uint16))[1].tobytes()
    with pytest.raises(UNREADABLE):
        decode(io.BytesIO(code[: len(code) * 2 // 3] if suffix == "png" else code[:8] + code[len(code) // 2 :]))


def test_a_program_that_calls_itself_an_image_is_not_run(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "program.eps")
    (tmp_path / "program.eps").rename(tmp_path / "image.jpg")
    assert Image.open(tmp_path / "image.jpg").format == "EPS", "Pillow goes by the content"
    with pytest.raises(ValueError, match="known format"):
        read_image(tmp_path / "image.jpg")


def with_much() -> dict[str, bytes]:
    """Files that use what decoding looks at."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image, wide = Image.fromarray(SMOOTH), SMOOTH.astype(np.uint16) * 200
    plain = {kind: saved(image, kind).getvalue() for kind in FORMATS}
    rich = {kind: saved(image, kind, exif=exif, icc_profile=WIDE).getvalue() for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")}
    several = {
        f"{kind} of frames": saved(image, kind, save_all=True, append_images=[image.rotate(9)]).getvalue() for kind in ("GIF", "PNG")
    }
    deep = {f"{kind} of 16 bits": saved(Image.fromarray(wide[..., 0]), kind).getvalue() for kind in ("PNG", "TIFF", "PPM", "JPEG2000")}
    colours = {f"{suffix} of 48 bits": cv2.imencode(suffix, wide)[1].tobytes() for suffix in (".png", ".tiff")}
    inked = {"CMYK": saved(image.convert("CMYK"), "JPEG", icc_profile=inks()).getvalue()}
    return plain | rich | several | deep | colours | inked


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", with_much())
def test_whatever_happens_to_its_bytes_an_image_is_read_or_refused(name):
    rng, whole, ends = np.random.default_rng(0), with_much()[name], set()
    for _ in range(60):
        broken = bytearray(whole[: rng.integers(20, len(whole) + 1)] if rng.random() < 0.5 else whole)
        for place in rng.integers(min(len(broken), 200), size=3):
            broken[place] = rng.integers(256)
        try:
            ends.add(np.asarray(read_image(io.BytesIO(broken))).shape[2:])
        except UNREADABLE:
            ends.add("refused")
    assert ends <= {(3,), "refused"} and "refused" in ends


def test_a_file_and_its_path_are_read_alike(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "image.png")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "image.png")), COLOURS)
    with open_image(tmp_path / "image.png") as image:
        assert image.size == (20, 32)


def test_every_change_has_its_words():
    assert TOLD.keys() == set(Change)
