from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.images import Images
from trainables.data.layouts.reading import read_images
from trainables.data.settings import DataConfig
from trainables.data.targets import Classes
from trainables.data.views import View, ViewConfig, build_views


@pytest.fixture
def read(tmp_path):
    """The images of a tree with these files; an image's is named by what Pillow is to write it as."""

    def read(**files: str) -> Images:
        for name, kind in files.items():
            file = tmp_path / "tree" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if kind:
                mode, form = kind.split()
                Image.new(mode, (8, 8), 1).save(file, form)
            else:
                file.write_text("no image")
        return read_images(tmp_path / "tree", DataConfig())

    return read


def left_out(images: Images) -> dict[str, tuple[str, ...]]:
    return {item.reason.split(",")[0]: item.names for item in images.left_out}


def test_a_class_is_a_folder_and_classes_are_in_the_order_of_their_names(read):
    images = read(**{"dog/1.jpg": "RGB JPEG", "cat/2.jpg": "RGB JPEG", "cat/1.jpg": "RGB JPEG", "ant/3.jpg": "RGB JPEG"})
    assert images.scheme.targets == (Classes("class", ("ant", "cat", "dog")),)
    assert images.ids == ("ant/3.jpg", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    assert images.labels.tolist() == [[0], [1], [1], [2]]


def test_every_image_is_a_group_of_its_own_and_that_is_noted(read):
    images = read(**{"a/1.png": "RGB PNG", "b/1.png": "RGB PNG", "b/2.png": "RGB PNG"})
    assert images.groups.tolist() == [0, 1, 2]
    assert images.names == () and images.numbers is None
    (note,) = images.left_out
    assert str(note) == f"3 images, each taken for a group of its own: the folders do not say who is on them: {', '.join(images.ids)}"


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
        "a/notes.txt": "",
        "b/deeper/2.png": "RGB PNG",
        "empty/notes.txt": "",
        "README.md": "",
    }
    images = read(**kinds)
    assert images.ids == ("a/1.png", "b/1.png") and images.scheme.classes == 2
    named = left_out(images)
    assert named["hidden files and folders"] == (".hidden", "a/._1.png")
    assert named["others that are no image and hold none"] == ("README.md", "a/notes.txt", "b/deeper", "beside.png", "empty")


def test_a_class_has_the_images_of_its_folder_whatever_their_number(read):
    rng = np.random.default_rng(0)
    counts = {f"class {number}": int(count) for number, count in enumerate(rng.integers(1, 6, size=12))}
    images = read(**{f"{name}/{index}.png": "L PNG" for name, count in counts.items() for index in range(count)})
    values = images.scheme.targets[0].values
    assert {name: int((images.labels[:, 0] == index).sum()) for index, name in enumerate(values)} == counts
    assert all(Path(name).parent.name == values[label] for name, (label,) in zip(images.ids, images.labels, strict=True))
