import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.checkpoint import Card, load_model, pack_model
from trainables.config import ConfigError, ViewConfig
from trainables.data.batches import plain_batches
from trainables.data.photos import Unlabelled, read_photos
from trainables.data.synthetic import PLANTED
from trainables.data.views import (
    CROPS,
    LARGEST,
    UNREADABLE,
    View,
    build_views,
    cache_folder,
    channel_statistics,
    count_missing,
    look,
    open_view,
    read_photo,
)
from trainables.models.assemble import IMAGENET, build_model

SQUARE, CENTRE, WIDE = View("none", 1.0, 32, 32), View("center", 0.7, 32, 32), View("none", 1.0, 24, 40)
COLOURS = np.random.default_rng(0).integers(256, size=(30, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def some(demo) -> Unlabelled:
    """A few of the demo's photos, the truncated one among them."""
    ids = read_photos(demo, (30, 60)).ids
    return Unlabelled(demo / "train" / "images", (*ids[:10], *(name for name in ids if PLANTED["truncated"] in name)))


def bytes_of(photos: Unlabelled, views: list[View], folder: Path, view: View) -> bytes:
    return build_views(photos, views, folder).files[view].read_bytes()


def files_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("view", [SQUARE, CENTRE, WIDE])
def test_a_view_is_the_same_bytes_whatever_else_is_decoded(some, tmp_path, view):
    alone = bytes_of(some, [view], tmp_path / "alone", view)
    assert bytes_of(some, [SQUARE, CENTRE, WIDE], tmp_path / "first", view) == alone
    assert bytes_of(some, [WIDE, CENTRE, SQUARE], tmp_path / "turned", view) == alone
    bytes_of(some, [SQUARE], tmp_path / "later", SQUARE)
    assert bytes_of(some, [SQUARE, CENTRE, WIDE], tmp_path / "later", view) == alone


def test_a_file_has_a_row_for_every_photo_in_order(some, tmp_path):
    built = build_views(some, [WIDE], tmp_path)
    array = open_view(built.files[WIDE])
    assert array.shape == (len(some.ids), 24, 40, 3) and array.dtype == np.uint8
    for row, name in enumerate(some.ids):
        expected = np.zeros((24, 40, 3)) if name in built.bad else look(read_photo(some.root / name), WIDE)
        np.testing.assert_array_equal(array[row], expected)


def test_a_second_call_decodes_nothing(some, tmp_path):
    seen = []
    first = build_views(some, [SQUARE], tmp_path, seen.append)
    assert sum(seen) == len(some.ids) == count_missing(some, [SQUARE, WIDE], tmp_path)
    seen.clear()
    again = build_views(some, [SQUARE], tmp_path, seen.append)
    assert again == first and not seen and count_missing(some, [SQUARE], tmp_path) == 0


def test_a_changed_photo_or_another_order_is_decoded_anew(some, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(COLOURS).save(root / name)
    first = build_views(Unlabelled(root, ("a.png", "b.png")), [SQUARE], tmp_path / "cache").files[SQUARE]
    turned = build_views(Unlabelled(root, ("b.png", "a.png")), [SQUARE], tmp_path / "cache").files[SQUARE]
    Image.fromarray(255 - COLOURS).save(root / "a.png")
    changed = build_views(Unlabelled(root, ("a.png", "b.png")), [SQUARE], tmp_path / "cache").files[SQUARE]
    assert len({first, turned, changed}) == 3
    assert (open_view(changed)[0] != open_view(first)[0]).any() and (open_view(changed)[1] == open_view(first)[1]).all()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_photo_and_every_view_is_known_by_its_hash(some, tmp_path):
    expected = {name: sha256(some.root / name)[:16] for name in some.ids}
    built = build_views(some, [SQUARE, WIDE], tmp_path)
    assert built.digests == expected and list(built.digests) == list(some.ids)
    assert built.sums == {view: sha256(file) for view, file in built.files.items()} and len(set(built.sums.values())) == 2
    assert build_views(some, [WIDE, CENTRE], tmp_path).digests == expected
    assert build_views(some, [WIDE], tmp_path).sums == {WIDE: built.sums[WIDE]}


def test_a_photo_that_cannot_be_decoded_has_a_hash_and_one_that_cannot_be_opened_has_none(tmp_path):
    (tmp_path / "text.jpg").write_text("id,gender,age")
    (tmp_path / "folder.jpg").mkdir()
    built = build_views(Unlabelled(tmp_path, ("text.jpg", "folder.jpg")), [SQUARE], tmp_path / "cache")
    assert built.digests == {"text.jpg": sha256(tmp_path / "text.jpg")[:16]} and list(built.bad) == ["text.jpg", "folder.jpg"]


def test_another_byte_gives_another_hash_and_another_date_does_not(tmp_path):
    photos = Unlabelled(tmp_path, ("a.png", "b.png"))
    for name in photos.ids:
        Image.fromarray(COLOURS).save(tmp_path / name)
    first = build_views(photos, [SQUARE], tmp_path / "cache")
    os.utime(tmp_path / "a.png", (1, 1))
    touched = build_views(photos, [SQUARE], tmp_path / "cache")
    assert (touched.digests, touched.sums) == (first.digests, first.sums) and touched.files != first.files
    with (tmp_path / "b.png").open("ab") as file:
        file.write(b"!")
    changed = build_views(photos, [SQUARE], tmp_path / "cache")
    assert changed.digests["a.png"] == first.digests["a.png"] and changed.digests["b.png"] != first.digests["b.png"]
    assert changed.sums == first.sums


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"bad": {}}', b'{"bad": {}, "photos": {}, "sha256": "0"}'])
def test_a_view_about_whose_photos_nothing_is_known_is_decoded_anew(some, tmp_path, damage):
    first = build_views(some, [SQUARE], tmp_path)
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.unlink() if damage is None else sidecar.write_bytes(damage)
    assert count_missing(some, [SQUARE], tmp_path) == len(some.ids)
    assert build_views(some, [SQUARE], tmp_path) == first and count_missing(some, [SQUARE], tmp_path) == 0
    assert len(files_in(tmp_path)) == 2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_and_absurd_files_end_in_bad_and_the_rest_is_unharmed(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    photo = Image.fromarray(COLOURS)
    photo.save(root / "good.png")
    photo.save(root / "whole.jpg")
    jpeg = (root / "whole.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("id,gender,age")
    (root / "folder.jpg").mkdir()
    Image.new("1", (LARGEST // 1000 + 1, 1000)).save(root / "huge.png")
    names = ("good.png", "truncated.jpg", "empty.jpg", "text.jpg", "folder.jpg", "huge.png", "whole.jpg")
    built = build_views(Unlabelled(root, names), [SQUARE], tmp_path / "cache")
    assert list(built.bad) == list(names[1:6]) and all(built.bad.values())
    assert built.bad["text.jpg"] == "not an image of a known format"
    assert "100001 x 1000 pixels; at most 100,000,000 are read" in built.bad["huge.png"]
    array = open_view(built.files[SQUARE])
    np.testing.assert_array_equal(array[0], look(photo, SQUARE))
    assert array[6].any() and not array[1:6].any()
    assert build_views(Unlabelled(root, names), [SQUARE, WIDE], tmp_path / "cache").bad == built.bad


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_its_bytes_a_photo_is_read_or_refused(tmp_path, suffix, seed):
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOURS).save(tmp_path / f"photo.{suffix}", **({} if suffix == "bmp" else {"exif": exif}))
    whole = (tmp_path / f"photo.{suffix}").read_bytes()
    shapes = set()
    for _ in range(50):
        broken = bytearray(whole[: rng.integers(20, len(whole) + 1)])
        for place in rng.integers(min(len(broken), 200), size=3):
            broken[place] = rng.integers(256)
        (tmp_path / f"photo.{suffix}").write_bytes(broken)
        try:
            shapes.add(look(read_photo(tmp_path / f"photo.{suffix}"), SQUARE).shape)
        except UNREADABLE:
            shapes.add("refused")
    assert shapes <= {(32, 32, 3), "refused"} and "refused" in shapes


def test_interrupted_decoding_leaves_nothing_behind(some, tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_views(some, [SQUARE, WIDE], tmp_path, stop)
    assert files_in(tmp_path) == set()
    assert count_missing(some, [SQUARE], tmp_path) == len(some.ids)


def test_interrupted_decoding_leaves_earlier_views_alone(some, tmp_path):
    before = bytes_of(some, [SQUARE], tmp_path, SQUARE)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_views(some, [SQUARE, WIDE], tmp_path, stop)
    assert bytes_of(some, [SQUARE], tmp_path, SQUARE) == before


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


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photo_is_turned_as_its_camera_was_held(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](COLOURS))).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png")), COLOURS)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("P", "png"), ("L", "png"), ("LA", "png"), ("1", "png"), ("CMYK", "jpg")])
def test_photos_of_every_mode_become_rgb(tmp_path, mode, suffix):
    photo = Image.fromarray(COLOURS).convert(mode)
    photo.save(tmp_path / f"photo.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    read = read_photo(tmp_path / f"photo.{suffix}")
    assert read.mode == "RGB" and read.size == (20, 30)
    np.testing.assert_allclose(np.asarray(read, float), np.asarray(photo.convert("RGB"), float), atol=80 if suffix == "jpg" else 0)


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(grey * 257).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png"))[..., 0], grey)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (1000, 20)])
def test_photos_of_every_shape_fill_every_view(size):
    for view in (SQUARE, WIDE, View("center", 0.01, 16, 48)):
        assert look(Image.new("RGB", size, (10, 20, 30)), view).reshape(-1, 3).tolist() == [[10, 20, 30]] * view.height * view.width


def test_the_centre_is_what_lies_around_the_middle():
    pixels = np.zeros((100, 60, 3), np.uint8)
    pixels[25:75, 15:45] = 200
    assert (look(Image.fromarray(pixels), View("center", 0.5, 50, 30)) == 200).all()
    assert look(Image.fromarray(pixels), View("none", 1.0, 50, 30)).min() == 0


def test_settings_that_mean_the_same_geometry_are_one_view():
    assert View.of(ViewConfig(size=32, fraction=0.5)) == View.of(ViewConfig(size=(32, 32))) == SQUARE
    assert View.of(ViewConfig(size=32, crop="center", fraction=0.7)) == CENTRE
    assert View.of(ViewConfig(size=(24, 40))) == WIDE


@pytest.mark.parametrize("crop", CROPS)
def test_every_crop_makes_a_view(crop):
    assert View.of(ViewConfig(crop=crop, fraction=0.5)).fraction in (0.5, 1.0)


def test_an_unknown_crop_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="view/crop: 'centre' does not exist; did you mean center"):
        View.of(ViewConfig(crop="centre"))


def test_views_are_named_by_their_size_and_crop():
    assert [str(view) for view in (SQUARE, CENTRE, WIDE)] == ["32x32", "32x32, center 0.7", "24x40"]


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
    array = open_view(build_views(some, [SQUARE], tmp_path).files[SQUARE])
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


@pytest.mark.parametrize("section", [{"size": 32}, {"size": [24, 40]}, {"size": 32, "crop": "center", "fraction": 0.6}])
def test_the_input_of_a_photo_is_the_same_in_validation_in_analysis_and_after_a_checkpoint(photos, split, make_config, tmp_path, section):
    config = make_config(view=section)
    card = Card(config, photos.scheme, epoch=1)
    model = build_model(config.model, card.task, (card.view.height, card.view.width), IMAGENET, seed=0)
    (tmp_path / "model.safetensors").write_bytes(pack_model(model, card))
    reloaded = load_model(tmp_path / "model.safetensors")[1].view

    view = View.of(config.view)
    rows = photos.rows[split.valid]
    source = read_photos(photos.root.parents[1], (30, 60))
    trained_on = torch.cat(list(plain_batches(open_view(build_views(source, [view], tmp_path).files[view]), rows, 64))).numpy()
    for index, row in list(zip(split.valid, trained_on, strict=True))[::20]:
        file = photos.root / photos.ids[index]
        assert row.tobytes() == look(read_photo(file), view).tobytes() == look(read_photo(file), reloaded).tobytes()
