from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from tests.messages import missing
from trainables.config import section
from trainables.data.decoding import read_image
from trainables.data.faces import find_face
from trainables.data.images import Images
from trainables.data.views import View
from tuner.prepare import decode


@pytest.fixture(scope="module")
def kinds(images) -> tuple[np.ndarray, np.ndarray]:
    """Of the demo's first images: those in which the detector sees a face, and those in which it sees none."""
    seen = np.array([find_face(read_image(images.root / name)) is not None for name in images.ids[:120]])
    return np.flatnonzero(seen), np.flatnonzero(~seen)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the user is told while these images are decoded, in one line."""
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path))

    def tell(images: Images, crop: str) -> str:
        console = Console(file=StringIO(), width=10_000)
        decode(images, [View.of(section("view", crop=crop, size=32))], False, console)
        return console.file.getvalue()

    return tell


def test_images_without_a_face_are_counted_and_named(images, kinds, told):
    some = images.take(np.concatenate([kinds[0][:5], kinds[1][:2]]))
    for _ in range(2):
        assert not missing(told(some, "face"), "no face detected in 2 of 7 images (28.6%)", f": {some.ids[5]}, {some.ids[6]}")
        assert "view/crop" not in told(some, "face")


def test_where_most_images_have_no_face_the_crop_is_called_unfit(images, kinds, told):
    some = images.take(np.concatenate([kinds[0][:2], kinds[1][:7]]))
    said = told(some, "face")
    assert "no face detected in 7 of 9 images (77.8%)" in said and f"{some.ids[6]} and 2 more\n" in said
    assert "view/crop: face" in said


def test_nothing_is_shown_of_faces_where_all_have_one_or_no_view_needs_one(images, kinds, told):
    assert "no face" not in told(images.take(kinds[0][:5]), "face")
    assert "no face" not in told(images.take(kinds[1][:5]), "center")
