import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import nightly_after
from tests.messages import missing
from trainables.card import Card
from trainables.checkpoint import load_model, pack_model
from trainables.config import section
from trainables.data.batches import plain_batches
from trainables.data.decoding import LARGEST, Change, decode, read_image
from trainables.data.faces import DETECTORS, Box, find_face
from trainables.data.images import DataError, Unlabelled
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.view_store import cache_folder, read_store
from trainables.data.views import (
    CROPS,
    FITS,
    View,
    ViewFiles,
    build_views,
    channel_statistics,
    count_missing,
    look,
    open_view,
    store_folder,
)
from trainables.models.assemble import IMAGENET, build_model
from tuner.demo.people import PLANTED

ROOT = Path(__file__).parents[3]
FACE = View("face", 0.5, 32, 32, margin=0.2)
SQUARE, CENTRE, WIDE = View("none", 1.0, 32, 32), View("center", 0.7, 32, 32), View("none", 1.0, 24, 40)
COLOURS = np.random.default_rng(0).integers(256, size=(30, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def some(demo) -> Unlabelled:
    """A few of the demo's images, the truncated one among them."""
    ids = read_images(demo, DataConfig()).ids
    return Unlabelled(demo / "train" / "images", (*ids[:10], *(name for name in ids if PLANTED["truncated"] in name)))


def pixels(built: ViewFiles, view: View, ids=None) -> np.ndarray:
    """Images (n, height, width, 3) of a data set, in its order."""
    seen = open_view(built.files[view])
    return seen.images[seen.rows(built.files[view].contents if ids is None else ids)]


def rows_in(folder: Path, view: View) -> int:
    """Images of a view's store, the black one aside."""
    return len(read_store(store_folder(folder, view)).entries) - 1


def decoded(images: Unlabelled, views: list[View], folder: Path) -> list[str]:
    """The names of the images that `look` is called for when the views are built."""
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainables.data.views.decode", lambda stream: opened.append(Path(stream.name).name) or decode(stream))
        build_views(images, views, folder)
    return sorted(opened)


def drawn(root: Path, **colours: int) -> Unlabelled:
    """Images of one colour each, by their names."""
    root.mkdir(exist_ok=True)
    for name, colour in colours.items():
        Image.new("RGB", (40, 30), (colour, 100, 50)).save(root / f"{name}.png")
    return Unlabelled(root, tuple(f"{name}.png" for name in colours))


@pytest.mark.parametrize("view", [SQUARE, CENTRE, WIDE])
def test_a_view_is_the_same_pixels_whatever_else_is_decoded(some, tmp_path, view):
    alone = pixels(build_views(some, [view], tmp_path / "alone"), view)
    np.testing.assert_array_equal(pixels(build_views(some, [SQUARE, CENTRE, WIDE], tmp_path / "first"), view), alone)
    build_views(some, [SQUARE], tmp_path / "later")
    np.testing.assert_array_equal(pixels(build_views(some, [SQUARE, CENTRE, WIDE], tmp_path / "later"), view), alone)


def test_every_image_has_its_image_and_what_cannot_be_decoded_is_black(some, tmp_path):
    built = build_views(some, [WIDE], tmp_path)
    array = pixels(built, WIDE, some.ids)
    assert array.shape == (len(some.ids), 24, 40, 3) and array.dtype == np.uint8 and built.bad
    for row, name in enumerate(some.ids):
        expected = np.zeros((24, 40, 3)) if name in built.bad else look(read_image(some.root / name), WIDE)
        np.testing.assert_array_equal(array[row], expected)
    np.testing.assert_array_equal(pixels(built, WIDE, some.ids[::-2]), array[::-2])


def test_a_second_call_decodes_nothing(some, tmp_path):
    seen = []
    first = build_views(some, [SQUARE], tmp_path, seen.append)
    assert sum(seen) == len(some.ids) == count_missing(some, [SQUARE], tmp_path / "another")
    seen.clear()
    again = build_views(some, [SQUARE], tmp_path, seen.append)
    assert again == first and not seen and count_missing(some, [SQUARE], tmp_path) == 0
    assert decoded(some, [SQUARE], tmp_path) == [], "not even what cannot be decoded"


def test_one_image_removed_added_or_changed_is_all_that_changes(tmp_path):
    cache = tmp_path / "cache"
    images = drawn(tmp_path / "photos", a=1, b=2, c=3)
    assert decoded(images, [SQUARE], cache) == ["a.png", "b.png", "c.png"]
    fewer = replace(images, ids=("a.png", "c.png"))
    assert decoded(fewer, [SQUARE], cache) == []
    assert pixels(build_views(fewer, [SQUARE], cache), SQUARE)[:, 0, 0, 0].tolist() == [1, 3]
    drawn(tmp_path / "photos", d=4)
    more = replace(images, ids=("d.png", *images.ids))
    assert decoded(more, [SQUARE], cache) == ["d.png"]
    drawn(tmp_path / "photos", b=9)
    assert decoded(more, [SQUARE], cache) == ["b.png"]
    assert pixels(build_views(more, [SQUARE], cache), SQUARE)[:, 0, 0, 0].tolist() == [4, 1, 9, 3]
    assert rows_in(cache, SQUARE) == 5


def test_only_the_view_that_is_new_is_added_and_the_others_keep_theirs(tmp_path):
    images = drawn(tmp_path / "photos", a=1, b=2)
    build_views(images, [SQUARE], tmp_path)
    build_views(images, [SQUARE, WIDE], tmp_path)
    assert rows_in(tmp_path, SQUARE) == rows_in(tmp_path, WIDE) == 2


def test_another_order_name_folder_or_time_is_the_same_content_and_is_not_decoded_again(tmp_path):
    cache, images = tmp_path / "cache", drawn(tmp_path / "photos", a=1, b=2)
    first = build_views(images, [SQUARE], cache)
    assert decoded(replace(images, ids=images.ids[::-1]), [SQUARE], cache) == []
    os.utime(images.root / "a.png", (1, 1))
    assert count_missing(images, [SQUARE], cache) == 1 and decoded(images, [SQUARE], cache) == []
    (images.root / "a.png").rename(images.root / "c.png")
    images.root.rename(tmp_path / "moved")
    moved = Unlabelled(tmp_path / "moved", ("c.png", "b.png"))
    assert decoded(moved, [SQUARE], cache) == [] and rows_in(cache, SQUARE) == 2
    np.testing.assert_array_equal(pixels(build_views(moved, [SQUARE], cache), SQUARE), pixels(first, SQUARE, images.ids))


def test_the_same_content_under_two_names_is_kept_once(tmp_path):
    images = drawn(tmp_path / "photos", a=1, b=1, c=2)
    array = pixels(build_views(images, [SQUARE], tmp_path / "cache"), SQUARE)
    assert array[:, 0, 0, 0].tolist() == [1, 1, 2] and rows_in(tmp_path / "cache", SQUARE) == 2


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_image_is_known_by_its_hash(some, tmp_path):
    expected = {name: sha256(some.root / name)[:16] for name in some.ids}
    built = build_views(some, [SQUARE, WIDE], tmp_path)
    assert built.digests == expected and list(built.digests) == list(some.ids)
    assert build_views(some, [WIDE, CENTRE], tmp_path).digests == expected


def test_an_image_that_cannot_be_decoded_has_a_hash_and_one_that_cannot_be_opened_has_none(tmp_path):
    (tmp_path / "text.jpg").write_text("id,gender,age")
    (tmp_path / "folder.jpg").mkdir()
    built = build_views(Unlabelled(tmp_path, ("text.jpg", "folder.jpg")), [SQUARE], tmp_path / "cache")
    assert built.digests == {"text.jpg": sha256(tmp_path / "text.jpg")[:16]} and list(built.bad) == ["text.jpg", "folder.jpg"]


def test_a_file_that_was_written_again_with_its_old_size_and_time_is_read_again(tmp_path):
    images = Unlabelled(tmp_path, ("a.bmp",))
    Image.fromarray(COLOURS).save(tmp_path / "a.bmp")
    first, then = build_views(images, [SQUARE], tmp_path / "cache"), (tmp_path / "a.bmp").stat()
    Image.fromarray(255 - COLOURS).save(tmp_path / "a.bmp")
    os.utime(tmp_path / "a.bmp", ns=(then.st_atime_ns, then.st_mtime_ns))
    second = build_views(images, [SQUARE], tmp_path / "cache")
    assert (tmp_path / "a.bmp").stat().st_size == then.st_size and second.digests != first.digests
    np.testing.assert_array_equal(pixels(second, SQUARE)[0], look(Image.fromarray(255 - COLOURS), SQUARE))


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"format": 4, "files": 3}', b'{"format": 4, "pillow": "1", "files": {"a": [1]}}'])
def test_without_the_table_of_files_they_are_read_again_and_not_decoded(tmp_path, damage):
    images, cache = drawn(tmp_path / "photos", a=1, b=2), tmp_path / "cache"
    first = build_views(images, [SQUARE], cache)
    [table] = cache.glob("files/*.json")
    table.unlink() if damage is None else table.write_bytes(damage)
    assert count_missing(images, [SQUARE], cache) == 2 and decoded(images, [SQUARE], cache) == []
    assert build_views(images, [SQUARE], cache) == first and count_missing(images, [SQUARE], cache) == 0


def test_what_another_pillow_could_not_decode_is_tried_again(tmp_path, monkeypatch):
    images = drawn(tmp_path / "photos", a=1)
    (images.root / "b.png").write_text("no image")
    images = replace(images, ids=("a.png", "b.png"))
    build_views(images, [SQUARE], tmp_path / "cache")
    monkeypatch.setattr("PIL.__version__", "99.0")
    assert decoded(images, [SQUARE], tmp_path / "cache") == ["b.png"] and decoded(images, [SQUARE], tmp_path / "cache") == []


def test_what_was_done_to_pixels_is_known_by_image_and_reported_with_the_first_of_them(tmp_path):
    cache, images = tmp_path / "cache", drawn(tmp_path / "photos", a=1, b=2)
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("c", "d"):
        Image.fromarray(COLOURS if name == "c" else 255 - COLOURS).save(images.root / f"{name}.jpg", exif=exif)
    Image.fromarray(np.uint16([[0, 65535]] * 2)).save(images.root / "e.png")
    everything = replace(images, ids=(*images.ids, "c.jpg", "d.jpg", "e.png"))
    expected = {Change.TURNED: ("c.jpg", "d.jpg"), Change.SCALED: ("e.png",)}
    built = build_views(everything, [SQUARE], cache)
    assert built.changed == expected
    turned, scaled = built.notes(5)
    assert turned.startswith("2 ") and "c.jpg, d.jpg" in turned and scaled.startswith("1 ") and "e.png" in scaled
    assert decoded(everything, [SQUARE], cache) == [] and build_views(everything, [SQUARE], cache).changed == expected
    assert build_views(replace(everything, ids=("d.jpg", "a.png")), [SQUARE, WIDE], cache).changed == {Change.TURNED: ("d.jpg",)}
    assert not build_views(images, [SQUARE], cache).changed and list(build_views(images, [SQUARE], cache).notes(2)) == []


# What is gone comes back


def test_the_lines_of_the_docs_give_each_image_its_mask_and_what_that_hides_is_white(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = Image.new("1", (32, 32))
    mask.paste(1, (8, 8, 24, 24))
    for image in (tmp_path / "photos/a.jpg", tmp_path / "photos/sub/b.jpg"):
        hides = tmp_path / "masks" / image.relative_to(tmp_path / "photos").with_suffix(".png")
        for file, picture in ((image, Image.new("RGB", (32, 32))), (hides, mask)):
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
    said = (ROOT / "docs/data.md").read_text()
    exec(said.split("## Backgrounds removed by a mask")[1].split("```python")[1].split("```")[0], {})
    images = Unlabelled(tmp_path / "cut", ("a.jpg", "sub/b.jpg"))
    built = build_views(images, [SQUARE], tmp_path / "cache")
    seen = pixels(built, SQUARE)
    assert not built.bad and built.changed == {Change.WHITE: images.ids}
    assert (seen[:, 8:24, 8:24] == 0).all() and (seen[:, :8] == 255).all() and (seen[:, :, -8:] == 255).all()


def test_a_view_whose_store_was_deleted_is_decoded_again_when_it_is_opened(some, tmp_path):
    built = build_views(some, [SQUARE, WIDE], tmp_path)
    before = pixels(built, SQUARE, some.ids)
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(pixels(built, SQUARE, some.ids), before)
    assert rows_in(tmp_path, SQUARE) == len(some.ids) - len(built.bad) and not store_folder(tmp_path, WIDE).exists()


def test_what_is_open_stays_when_the_store_is_deleted(some, tmp_path):
    built = build_views(some, [SQUARE], tmp_path)
    seen = open_view(built.files[SQUARE])
    before = seen.images[seen.rows(some.ids)].copy()
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(seen.images[seen.rows(some.ids)], before)


def test_a_view_that_went_to_another_process_is_decoded_again_there(some, tmp_path):
    built = build_views(some, [FACE], tmp_path)
    before = pixels(built, FACE, some.ids)
    sent = pickle.loads(pickle.dumps(built))
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(pixels(sent, FACE, some.ids), before)


@pytest.mark.parametrize("change", ["gone", "another", "damaged"])
def test_where_images_are_not_what_they_were_nothing_else_is_shown_in_their_place(tmp_path, change):
    images = drawn(tmp_path / "photos", a=1, b=2)
    built = build_views(images, [SQUARE], tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    if change == "gone":
        (images.root / "b.png").unlink()
    elif change == "another":
        drawn(images.root, b=3)
    else:
        (images.root / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="b.png") as caught:
        open_view(built.files[SQUARE])
    assert "a.png" not in str(caught.value) and str(tmp_path / "cache") in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_and_absurd_files_end_in_bad_and_the_rest_is_unharmed(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    image = Image.fromarray(COLOURS)
    image.save(root / "good.png")
    image.save(root / "whole.jpg")
    jpeg = (root / "whole.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("id,gender,age")
    (root / "folder.jpg").mkdir()
    Image.new("1", (LARGEST // 1000 + 1, 1000)).save(root / "huge.png")
    names = ("good.png", "truncated.jpg", "empty.jpg", "text.jpg", "folder.jpg", "huge.png", "whole.jpg")
    built = build_views(Unlabelled(root, names), [SQUARE], tmp_path / "cache")
    assert list(built.bad) == list(names[1:6]) and all(built.bad.values())
    assert not missing(built.bad["huge.png"], "100001 x 1000 pixels", "100,000,000")
    array = pixels(built, SQUARE)
    np.testing.assert_array_equal(array[0], look(image, SQUARE))
    assert array[6].any() and not array[1:6].any()
    assert build_views(Unlabelled(root, names), [SQUARE, WIDE], tmp_path / "cache").bad == built.bad


def claiming(suffix: str, width: int, height: int) -> bytes:
    """A small file whose header claims so many pixels."""
    if suffix == "png":
        size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        rows = b"IDAT" + zlib.compress(bytes(1000))
        chunks = b"".join(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (size, rows))
        return b"\x89PNG\r\n\x1a\n" + chunks
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, suffix)
    whole = bytearray(buffer.getvalue())
    if suffix == "jpeg":
        frame = whole.index(b"\xff\xc0")  # marker, length, bits, then height and width
        whole[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    else:
        whole[18:26] = struct.pack("<ii", width, height)
    return bytes(whole)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp"])
def test_a_header_that_claims_a_billion_pixels_is_refused_before_room_is_made_for_them(tmp_path, suffix):
    (tmp_path / f"bomb.{suffix}").write_bytes(claiming(suffix, 40_000, 40_000))
    Image.fromarray(COLOURS).save(tmp_path / "good.png")
    code = """
import resource, sys
from pathlib import Path
from trainables.data.images import DataError, Unlabelled
from trainables.data.views import View, build_views
root, name = Path(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
built = build_views(Unlabelled(root, ("good.png", name)), [View("none", 1.0, 32, 32)], root / "cache")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, built.bad)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path, f"bomb.{suffix}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    kilobytes, bad = done.stdout.split(maxsplit=1)
    assert int(kilobytes) < 100_000  # 4.8 GB would be 4,700,000
    assert bad.startswith(f"{{'bomb.{suffix}': ") and "100,000,000 pixels" in bad


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp"])
def test_a_header_that_claims_somewhat_too_many_pixels_is_refused_with_how_many(tmp_path, suffix):
    (tmp_path / f"photo.{suffix}").write_bytes(claiming(suffix, 12_000, 12_000))
    with pytest.raises(ValueError, match="12000 x 12000 pixels.*100,000,000"):
        read_image(tmp_path / f"photo.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "bmp"])  # a decoder of JPEG fills what is missing with grey
def test_a_header_that_claims_more_pixels_than_there_are_is_refused_and_the_row_stays_black(tmp_path, suffix):
    (tmp_path / f"photo.{suffix}").write_bytes(claiming(suffix, 900, 900))
    built = build_views(Unlabelled(tmp_path, (f"photo.{suffix}",)), [SQUARE], tmp_path / "cache")
    assert list(built.bad) == [f"photo.{suffix}"] and not pixels(built, SQUARE).any()


def stop(done: int) -> None:
    raise KeyboardInterrupt


def test_interrupted_decoding_keeps_complete_images_and_continues_where_it_was(some, tmp_path):
    count, seen = 0, []

    def stop_later(done: int) -> None:
        nonlocal count
        count += done
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_views(some, [SQUARE, WIDE], tmp_path, stop_later)
    assert rows_in(tmp_path, SQUARE) == rows_in(tmp_path, WIDE) == 4
    built = build_views(some, [SQUARE, WIDE], tmp_path, seen.append)
    assert len(seen) == len(some.ids) - 4
    np.testing.assert_array_equal(pixels(built, SQUARE), pixels(build_views(some, [SQUARE], tmp_path / "another"), SQUARE))


def test_interrupted_decoding_leaves_earlier_views_alone(some, tmp_path):
    before = pixels(build_views(some, [SQUARE], tmp_path), SQUARE)
    with pytest.raises(KeyboardInterrupt):
        build_views(some, [SQUARE, WIDE], tmp_path, stop)
    np.testing.assert_array_equal(pixels(build_views(some, [SQUARE], tmp_path), SQUARE), before)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (1000, 20)])
def test_images_of_every_shape_fill_every_view(size):
    for view in (SQUARE, WIDE, View("center", 0.01, 16, 48)):
        assert look(Image.new("RGB", size, (10, 20, 30)), view).reshape(-1, 3).tolist() == [[10, 20, 30]] * view.height * view.width


def test_the_centre_is_what_lies_around_the_middle():
    pixels = np.zeros((100, 60, 3), np.uint8)
    pixels[25:75, 15:45] = 200
    assert (look(Image.fromarray(pixels), View("center", 0.5, 50, 30)) == 200).all()
    assert look(Image.fromarray(pixels), View("none", 1.0, 50, 30)).min() == 0


@pytest.fixture
def quarters() -> Image.Image:
    """100 x 60 pixels: red and green above blue and white."""
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:30, :50, 0] = pixels[:30, 50:, 1] = pixels[30:, :50, 2] = pixels[30:, 50:] = 255
    return Image.fromarray(pixels)


CORNERS = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


def corners(seen: np.ndarray) -> list[list[int]]:
    return [seen[row, column].tolist() for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1))]


@pytest.mark.parametrize("size", [(60, 100), (30, 50), (64, 64), (90, 20)])
def test_stretching_shows_all_four_quarters_whatever_the_aspect(quarters, size):
    seen = look(quarters, View("none", 1.0, *size))
    middle = (size[0] // 2, size[1] // 2)
    assert corners(seen) == CORNERS
    assert (seen[: middle[0] - 2, : middle[1] - 2] == CORNERS[0]).all() and (seen[middle[0] + 2 :, middle[1] + 2 :] == CORNERS[3]).all()


def test_covering_cuts_what_is_too_long_on_both_sides_alike():
    striped = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    # 60 of the 100 columns fill a square of 60, 30 of the 60 rows a strip of 100 x 30.
    np.testing.assert_array_equal(look(Image.fromarray(striped), View("none", 1.0, 60, 60, fit="cover")), striped[:, 20:80])
    np.testing.assert_array_equal(look(Image.fromarray(striped), View("none", 1.0, 30, 100, fit="cover")), striped[15:45])


def test_containing_keeps_the_aspect_between_black_bars(quarters):
    seen = look(quarters, View("none", 1.0, 100, 100, fit="contain"))
    np.testing.assert_array_equal(seen[20:80], np.asarray(quarters))
    assert not seen[:20].any() and not seen[80:].any()
    seen = look(quarters, View("none", 1.0, 60, 200, fit="contain"))
    np.testing.assert_array_equal(seen[:, 50:150], np.asarray(quarters))
    assert not seen[:, :50].any() and not seen[:, 150:].any()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("crop", CROPS)
def test_no_fit_changes_an_image_that_has_the_aspect_already(crop, fit):
    image = Image.fromarray(np.random.default_rng(1).integers(256, size=(40, 60, 3), dtype=np.uint8))
    view = View(crop, 0.5, 80, 120, box=(20, 30), margin=0.5, fit=fit)
    np.testing.assert_array_equal(look(image, view, (15, 10, 45, 30)), look(image, replace(view, fit="stretch"), (15, 10, 45, 30)))


@pytest.mark.parametrize("seed", nightly_after(4, range(40)))
@pytest.mark.parametrize("fit", FITS)
def test_every_crop_and_fit_of_every_shape_shows_nothing_but_the_image_and_bars(fit, seed):
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", tuple(int(side) for side in rng.integers(1, 300, size=2)), (200, 100, 50))
    ends = np.sort(rng.random((2, 2)), axis=0) * image.size
    left, top, right, bottom = (*np.floor(ends[0]).astype(int).tolist(), *np.ceil(ends[1]).astype(int).tolist())
    height, width = rng.integers(16, 100, size=2).tolist()
    for crop in CROPS:
        view = View(crop, rng.uniform(0.01, 1), height, width, box=(16, 300), margin=rng.uniform(0, 2), fit=fit)
        seen = look(image, view, (left, top, max(right, left + 1), max(bottom, top + 1)))
        colours = {tuple(pixel) for pixel in seen.reshape(-1, 3).tolist()}
        assert seen.shape == (height, width, 3)
        # What is removed as background is black, and its edge between.
        if CROPS[crop].paint is not None:
            continue
        assert (200, 100, 50) in colours
        assert colours <= {(200, 100, 50), (0, 0, 0)} if fit == "contain" else colours == {(200, 100, 50)}


def test_a_box_is_that_many_pixels_around_the_middle():
    image = np.random.default_rng(0).integers(256, size=(61, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(look(Image.fromarray(image), View("box", 1.0, 21, 40, box=(21, 40))), image[20:41, 30:70])
    np.testing.assert_array_equal(look(Image.fromarray(image), View("box", 1.0, 20, 41, box=(20, 41))), image[20:40, 29:70])


@pytest.mark.parametrize(
    ("box", "rows", "columns"), [((400, 400), (0, 61), (0, 100)), ((400, 40), (0, 61), (30, 70)), ((21, 400), (20, 41), (0, 100))]
)
def test_a_box_larger_than_the_image_ends_where_the_image_ends(box, rows, columns):
    image = np.random.default_rng(0).integers(256, size=(61, 100, 3), dtype=np.uint8)
    part = image[slice(*rows), slice(*columns)]
    np.testing.assert_array_equal(look(Image.fromarray(image), View("box", 1.0, *part.shape[:2], box=box)), part)


@pytest.mark.parametrize(
    ("face", "margin", "rows", "columns"),
    [
        ((40, 20, 60, 40), 0.0, (20, 40), (40, 60)),
        ((40, 20, 60, 40), 0.5, (10, 50), (30, 70)),
        ((40, 20, 60, 40), 2.0, (0, 80), (0, 100)),
        ((10, 20, 30, 60), 0.5, (0, 80), (0, 40)),
        ((80, 50, 100, 80), 0.1, (47, 80), (78, 100)),
    ],
)
def test_a_face_is_shown_with_its_margin_as_far_as_the_image_reaches(face, margin, rows, columns):
    image = np.random.default_rng(0).integers(256, size=(80, 100, 3), dtype=np.uint8)
    part = image[slice(*rows), slice(*columns)]
    np.testing.assert_array_equal(look(Image.fromarray(image), View("face", 0.5, *part.shape[:2], margin=margin), face), part)


@pytest.mark.parametrize("fit", FITS)
def test_without_a_face_the_centre_is_shown(quarters, fit):
    view = View("face", 0.6, 40, 32, margin=0.3, fit=fit)
    np.testing.assert_array_equal(look(quarters, view, None), look(quarters, View("center", 0.6, 40, 32, fit=fit)))


# Faces


def no_face(image: Image.Image) -> Box | None:
    return None


class Finder:
    """A detector that always sees a face in the upper left, and counts."""

    def __init__(self):
        self.asked = 0

    def __call__(self, image: Image.Image) -> Box:
        self.asked += 1
        return 0, 0, image.width // 2, image.height // 2


def faces_of(folder: Path) -> list:
    return [json.loads(line) for file in folder.glob("faces-*.jsonl") for line in file.read_text().splitlines()]


def test_in_training_and_inference_a_face_is_found_alike(some, tmp_path):
    for name in some.ids[:4]:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(some.root / name, tmp_path / "images" / name)
    Image.new("RGB", (72, 96), "gray").save(tmp_path / "images" / "wall.png")
    some = Unlabelled(tmp_path / "images", (*some.ids[:4], "wall.png"))
    built = build_views(some, [FACE], tmp_path / "views")
    boxes = {name: find_face(read_image(some.root / name)) for name in some.ids if name not in built.bad}
    assert built.without_face == tuple(name for name, box in boxes.items() if box is None)
    assert 0 < len(built.without_face) < len(boxes)
    for image, name in zip(pixels(built, FACE, some.ids), some.ids, strict=True):
        if name in boxes:
            np.testing.assert_array_equal(image, look(read_image(some.root / name), FACE, boxes[name]))


def test_images_without_a_face_are_named_and_show_their_centre(some, tmp_path):
    centre = View("center", 0.5, 32, 32)
    built = build_views(some, [FACE, centre], tmp_path, find=no_face)
    assert built.without_face == tuple(name for name in some.ids if name not in built.bad)
    np.testing.assert_array_equal(pixels(built, FACE), pixels(built, centre))
    assert build_views(some, [FACE], tmp_path) == replace(built, files={FACE: built.files[FACE]})
    assert build_views(some, [centre], tmp_path).without_face == ()


def test_a_face_is_looked_for_once_however_many_views_want_it(some, tmp_path):
    find, seen = Finder(), []
    views = [FACE, replace(FACE, height=48), replace(FACE, margin=0.5), SQUARE]
    built = build_views(some, views, tmp_path, seen.append, find)
    good = len(some.ids) - len(built.bad)
    assert find.asked == len(faces_of(tmp_path)) == good and sum(seen) == len(some.ids) and built.without_face == ()
    build_views(some, [replace(FACE, width=16), replace(FACE, fraction=0.9)], tmp_path, find=find)
    assert find.asked == good


def test_faces_are_known_by_the_content_of_an_image_not_by_its_name(some, tmp_path):
    find, root = Finder(), tmp_path / "photos"
    root.mkdir()
    for name, pixels in (("a.png", COLOURS), ("b.png", 255 - COLOURS)):
        Image.fromarray(pixels).save(root / name)
    build_views(Unlabelled(root, ("a.png", "b.png")), [FACE], tmp_path / "cache", find=find)
    (root / "a.png").rename(root / "c.png")
    build_views(Unlabelled(root, ("c.png", "b.png")), [FACE], tmp_path / "cache", find=find)
    assert find.asked == 2
    Image.fromarray(COLOURS[::-1]).save(root / "b.png")
    build_views(Unlabelled(root, ("c.png", "b.png")), [FACE], tmp_path / "cache", find=find)
    assert find.asked == 3


def test_another_detector_finds_anew_and_only_for_views_that_want_a_face(some, tmp_path, monkeypatch):
    find = Finder()
    first = build_views(some, [FACE, SQUARE], tmp_path, find=find)
    monkeypatch.setitem(DETECTORS.data, "mtcnn", replace(DETECTORS["mtcnn"], version="another"))
    second = build_views(some, [FACE, SQUARE], tmp_path, find=no_face)
    assert rows_in(tmp_path, FACE) == find.asked and decoded(some, [SQUARE], tmp_path) == []
    assert not first.without_face and len(second.without_face) == find.asked


def test_views_that_want_no_face_look_for_none(some, tmp_path):
    find = Finder()
    build_views(some, [SQUARE, CENTRE, replace(SQUARE, crop="box", box=(20, 20))], tmp_path, find=find)
    assert find.asked == 0 and not faces_of(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b'["half', b"[]\n{}\n"])
def test_a_damaged_file_of_faces_is_healed_and_the_view_is_the_same(some, tmp_path, damage):
    first = build_views(some, [FACE], tmp_path)
    whole = sorted(faces_of(tmp_path))
    shutil.rmtree(store_folder(tmp_path, FACE))
    [faces] = tmp_path.glob("faces-*.jsonl")
    faces.write_bytes(damage)
    assert build_views(some, [FACE], tmp_path) == first and sorted(faces_of(tmp_path)) == whole


def test_interrupted_decoding_keeps_the_faces_that_were_found(some, tmp_path):
    find = Finder()
    with pytest.raises(KeyboardInterrupt):
        build_views(some, [FACE], tmp_path, stop, find)
    found = find.asked
    assert 0 < found == len(faces_of(tmp_path))
    built = build_views(some, [FACE], tmp_path, find=find)
    assert find.asked == len(some.ids) - len(built.bad)


def test_a_mistake_of_the_detector_is_not_taken_for_a_bad_image(some, tmp_path):
    def broken(image: Image.Image) -> Box | None:
        raise ValueError("out of order")

    with pytest.raises(ValueError, match="out of order"):
        build_views(some, [FACE], tmp_path, find=broken)
    assert rows_in(tmp_path, FACE) == 0 and not faces_of(tmp_path)


def test_who_has_no_face_is_known_without_looking_and_where_the_view_goes(some, tmp_path):
    built = build_views(some, [FACE, SQUARE], tmp_path, find=no_face)
    for file in tmp_path.glob("faces-*"):
        file.unlink()
    assert build_views(some, [FACE], tmp_path, find=Finder()).without_face == built.without_face
    assert build_views(some, [SQUARE], tmp_path, find=Finder()).without_face == ()


# Which view is meant


OTHER = {
    "fit": "cover",
    "size": (32, 48),
    "fraction": 0.3,
    "margin": 0.1,
    "box": (50, 60),
    "detector": "yunet",
    "detector_file": "yunet.onnx",
    "rounds": 7,
}


@pytest.mark.parametrize("crop", CROPS)
def test_every_setting_of_a_crop_distinguishes_views(crop):
    config = section("view", crop=crop)
    for name in CROPS[crop].settings.model_fields.keys() - {"crop"}:
        assert View.of(config.model_copy(update={name: OTHER[name]})) != View.of(config), name


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("crop", CROPS)
def test_a_view_survives_being_a_key_a_pickle_and_a_record(crop, fit):
    own = {
        name: value
        for name, value in {"box": (64, 48), "margin": 0.25, "fraction": 0.7}.items()
        if name in CROPS[crop].settings.model_fields
    }
    config = section("view", crop=crop, fit=fit, size=(32, 40), **own)
    view = View.of(config)
    assert pickle.loads(pickle.dumps(view)) == view
    assert {view: 1}[View.of(section("view", **json.loads(config.model_dump_json())))] == 1


@pytest.mark.parametrize(
    ("view", "folder"),
    [
        (View("face", 0.8, 64, 48, margin=0.4), "face-64x48-4afce35c145e"),
        (View("box", 1.0, 32, 32, box=(320, 256), fit="cover"), "box-32x32-a1d1724657bb"),
    ],
)
def test_a_view_of_before_detectors_could_be_chosen_is_found_where_it_was_kept(view, folder):
    assert store_folder(Path(), view) == Path(folder)


def test_settings_that_mean_the_same_geometry_are_one_view():
    assert View.of(section("view", size=32)) == View.of(section("view", size=(32, 32))) == SQUARE
    assert View.of(section("view", size=32, crop="center", fraction=0.7)) == CENTRE
    assert View.of(section("view", size=(24, 40))) == WIDE


def test_views_are_named_by_all_that_distinguishes_them():
    views = [SQUARE, CENTRE, WIDE, View("box", 1.0, 32, 32, box=(320, 256), fit="cover"), replace(FACE, fit="contain")]
    assert [str(view) for view in views] == [
        "32x32",
        "32x32, center 0.7",
        "24x40",
        "32x32, box 320x256, cover",
        "32x32, face with margin 0.2 or center 0.5, contain",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_channel_statistics_are_mean_and_true_standard_deviation(seed):
    rng = np.random.default_rng(seed)
    view = rng.normal(rng.uniform(60, 200, 3), rng.uniform(1, 40, 3), size=(300, 6, 5, 3)).clip(0, 255).astype(np.uint8)
    rows = rng.permutation(300)[:270]
    mean, std = channel_statistics(view, rows)
    scaled = view[rows].astype(float) / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)))
    assert (np.array(std) < 0.5 * np.sqrt((scaled**2).mean(axis=(0, 1, 2)))).all()


def test_the_cache_is_where_the_environment_says(cache, monkeypatch, tmp_path):
    assert cache_folder() == cache
    monkeypatch.delenv("SWEEPVOTE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sweepvote"


def test_a_view_of_the_cache_cannot_be_written_by_accident(some, tmp_path):
    array = open_view(build_views(some, [SQUARE], tmp_path).files[SQUARE]).images
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


SECTIONS = [
    {"size": 32},
    {"size": [24, 40], "fit": "contain"},
    {"size": 32, "crop": "center", "fraction": 0.6},
    {"size": 32, "crop": "box", "box": [64, 48], "fit": "cover"},
    {"size": 32, "crop": "face", "margin": 0.2},
]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_input_of_an_image_is_the_same_in_validation_in_analysis_and_after_a_checkpoint(images, split, make_config, tmp_path, section):
    config = make_config(view=section)
    card = Card(config, images.scheme, epoch=1)
    model = build_model(config, card.task, IMAGENET)
    (tmp_path / "model.safetensors").write_bytes(pack_model(model, card))
    reloaded = load_model(tmp_path / "model.safetensors")[1].view

    view = View.of(config.view)
    shown = images.take(split.valid[::20])
    seen = open_view(build_views(shown, [view], tmp_path).files[view])
    trained_on = torch.cat(list(plain_batches(seen.images, seen.rows(shown.ids), 64))).numpy()
    for name, row in zip(shown.ids, trained_on, strict=True):
        image = read_image(images.root / name)
        face = find_face(image) if reloaded.needs_face else None
        assert reloaded == view and row.tobytes() == look(image, reloaded, face).tobytes()
