from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.images import TEST, TRAIN, VALID, DataError, Images
from trainables.data.layouts.image_files import is_image
from trainables.data.layouts.reading import read_images, read_unlabelled
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes
from trainables.data.views import View, ViewConfig, build_views


@pytest.fixture
def read(tmp_path):
    """The images of a tree with these files; an image's is named by what Pillow is to write it as."""

    def read(settings: DataConfig = DataConfig(), /, **files: str) -> Images:
        for name, kind in files.items():
            file = tmp_path / "tree" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if kind:
                mode, form = kind.split()
                Image.new(mode, (8, 8), 1).save(file, form)
            else:
                file.write_text("no image")
        return read_images(tmp_path / "tree", settings)

    return read


def left_out(images: Images) -> dict[str, tuple[str, ...]]:
    return {item.reason.split(",")[0]: item.names for item in images.left_out}


def test_a_class_is_a_folder_and_classes_are_in_the_order_of_their_names(read):
    images = read(**{"dog/1.jpg": "RGB JPEG", "cat/2.jpg": "RGB JPEG", "cat/1.jpg": "RGB JPEG", "ant/3.jpg": "RGB JPEG"})
    assert images.scheme.targets == (Classes("class", ("ant", "cat", "dog")),)
    assert images.ids == ("ant/3.jpg", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert images.labels.tolist() == [[0], [1], [1], [2]]


def test_every_image_is_a_group_of_its_own_and_that_is_shown(read):
    images = read(**{"a/1.png": "RGB PNG", "b/1.png": "RGB PNG", "b/2.png": "RGB PNG"})
    assert images.groups.tolist() == [0, 1, 2]
    assert images.names == () and images.numbers is None and images.given is None
    assert any("--group" in line for line in images.read_as)


def test_images_of_every_kind_and_name_are_read_and_decoded(read, tmp_path):
    kinds = {
        "a/alpha.png": "RGBA PNG",
        "a/palette.PNG": "P PNG",
        "a/grey.JPEG": "L JPEG",
        "a/big.jpg_1088Wx1632H": "RGB JPEG",
        "b/two words (1).webp": "RGB WEBP",
        "b/마스크 œ¬‘ÿ.png": "RGB PNG",
        "b/really.jpg": "RGBA PNG",
        "b/scan.TIFF": "RGB TIFF",
        "b/moving.gif": "P GIF",
    }
    images = read(**kinds)
    assert set(images.ids) == kinds.keys()
    assert build_views(images, [View.of(ViewConfig(size=32))], tmp_path / "cache").bad == {}


def test_what_is_no_image_of_a_class_is_left_out_and_named(read):
    kinds = {
        "a/1.png": "RGB PNG",
        "b/1.png": "RGB PNG",
        "beside.png": "RGB PNG",
        ".hidden/1.png": "RGB PNG",
        "a/._1.png": "RGB PNG",
        "__MACOSX/a/1.png": "RGB PNG",
        "a/notes.txt": "",
        "empty/notes.txt": "",
        "README.md": "",
    }
    images = read(**kinds)
    assert images.ids == ("a/1.png", "b/1.png") and images.scheme.classes == 2
    named = left_out(images)
    assert named["hidden files and folders"] == (".hidden", "__MACOSX", "a/._1.png")
    assert named["files that are not images"] == ("README.md", "a/notes.txt", "empty/notes.txt")
    assert named["folders that hold no image"] == ("empty",)
    assert named["images outside of the class folders"] == ("beside.png",)


def test_a_class_has_the_images_of_its_folder_whatever_their_number(read):
    rng = np.random.default_rng(0)
    counts = {f"class {number}": int(count) for number, count in enumerate(rng.integers(1, 6, size=12))}
    images = read(**{f"{name}/{index}.png": "L PNG" for name, count in counts.items() for index in range(count)})
    values = images.scheme.targets[0].values
    assert {name: int((images.labels[:, 0] == index).sum()) for index, name in enumerate(values)} == counts
    assert all(Path(name).parent.name == values[label] for name, (label,) in zip(images.ids, images.labels, strict=True))


# Content


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", "", ".dat", ".avif", ".jp2", ".pgm", ".tif", ".bmp", ".gif", ".webp"])
def test_an_image_is_known_by_its_content_where_its_suffix_says_nothing(read, suffix):
    kind = {".avif": "AVIF", ".jp2": "JPEG2000", ".pgm": "PPM", ".tif": "TIFF", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
    files = {f"{name}/{index}{end}": f"RGB {kind.get(end, 'JPEG')}" for name, end in (("a", ".jpg"), ("b", suffix)) for index in range(2)}
    assert read(**files).scheme.targets[0].values == ("a", "b")


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_every_format_is_known_without_a_suffix(tmp_path, kind):
    Image.new("RGB", (8, 8), (9, 99, 199)).save(tmp_path / "image", kind)
    assert is_image(tmp_path / "image")
    (tmp_path / "text").write_text("BMW drivers, and II* or P5x")
    assert not is_image(tmp_path / "text")


# Folders in folders

NESTED = {f"{folder}/{index}.png": "RGB PNG" for folder in ("cat", "dog", "cat/persian", "fox/red", "fox/arctic") for index in range(2)}


@pytest.mark.parametrize(
    ("folders", "classes", "count"),
    [
        ("", ("cat", "cat/persian", "dog", "fox/arctic", "fox/red"), 10),
        ("path", ("cat", "cat/persian", "dog", "fox/arctic", "fox/red"), 10),
        ("top", ("cat", "dog", "fox"), 10),
        ("flat", ("cat", "dog"), 4),
    ],
)
def test_class_folders_in_class_folders_are_classes_by_path_or_by_their_top_folder(read, folders, classes, count):
    images = read(DataConfig(folders=folders), **NESTED)
    assert images.scheme.targets[0].values == classes and len(images) == count
    if folders == "flat":
        assert len(left_out(images)["images deeper than a class folder"]) == 6
    else:
        assert any("data/folders=" in line for line in images.read_as)


def test_images_of_one_folder_can_be_kept_together(read):
    images = read(DataConfig(folders="top", group="folder"), **NESTED)
    assert set(images.names) == {"cat", "dog", "cat/persian", "fox/red", "fox/arctic"}


def test_folders_around_the_class_folders_are_passed(read):
    images = read(**{f"archive/set-1.0/{name}/{index}.png": "RGB PNG" for name in ("a", "b") for index in range(2)})
    assert images.scheme.targets[0].values == ("a", "b")


def test_folders_that_only_look_alike_are_one_class(read):
    images = read(**{f"{name}/{index}.png": "RGB PNG" for name in ("cat", "cat ", "dog") for index in range(2)})
    assert images.scheme.targets[0].values == ("cat", "dog") and len(images) == 6


# Splits of one's own


@pytest.mark.parametrize("valid", ["val", "valid", "validation", "dev", "Val"])
@pytest.mark.parametrize("test", ["test", "holdout"])
def test_class_folders_below_folders_of_parts(read, valid, test):
    files = {f"{part}/{name}/{index}.png": "RGB PNG" for part in ("train", valid, test) for name in ("a", "b") for index in range(2)}
    images = read(**files)
    assert images.scheme.targets[0].values == ("a", "b")
    part = {"train": TRAIN, valid: VALID, test: TEST}
    assert images.given.tolist() == [part[name.split("/")[0]] for name in images.ids]


def test_a_word_can_stand_for_another_part_and_parts_can_be_overlooked(read):
    files = {f"{part}/{name}/{index}.png": "RGB PNG" for part in ("train", "val") for name in ("a", "b") for index in range(2)}
    assert set(read(DataConfig(split="val=test"), **files).given.tolist()) == {TRAIN, TEST}
    assert read(DataConfig(split="none"), **files).scheme.targets[0].values == ("train/a", "train/b", "val/a", "val/b")


@pytest.mark.parametrize("above", ["", "train/"])
def test_a_folder_test_with_images_alone_is_to_be_answered_and_is_no_class(read, tmp_path, above):
    files = {f"{above}{name}/{index}.png": "RGB PNG" for name in ("a", "b") for index in range(2)}
    images = read(**files, **{f"test/{index}.png": "RGB PNG" for index in range(3)})
    assert images.scheme.targets[0].values == ("a", "b") and len(images) == 4
    assert read_unlabelled(tmp_path / "tree", DataConfig()).ids == ("test/0.png", "test/1.png", "test/2.png")
    assert images.left_out == ()


def test_a_folder_test_with_class_folders_beside_the_classes_is_the_test_part(read):
    files = {f"{above}{name}/{index}.png": "RGB PNG" for above in ("", "test/") for name in ("a", "b") for index in range(2)}
    images = read(**files)
    assert images.scheme.classes == 2 and np.bincount(images.given, minlength=3).tolist() == [4, 0, 4]


@pytest.mark.parametrize("names", [("train_images", "test_images"), ("images", "masks"), ("images",), ("train/images", "train/labels")])
def test_folders_that_are_called_after_what_they_hold_are_no_classes(read, names):
    with pytest.raises(DataError, match="could be classes"):
        read(**{f"{name}/{index}.png": "RGB PNG" for name in names for index in range(2)})


def test_one_image_in_a_class_refuses_nothing(read):
    images = read(**{"a/1.png": "RGB PNG", "b/1.png": "RGB PNG", "b/2.png": "RGB PNG", "c/1.png": "RGB PNG"})
    assert images.scheme.classes == 3
