import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import nightly_after
from tests.messages import missing
from trainables.data import faces
from trainables.data.decoding import read_image
from trainables.data.faces import SIDE, SMALLEST, Box, Faces, find_face, find_points, one_thread_each
from trainables.data.images import DataError
from tuner.demo.writing import write_people

GREY = (90, 100, 110)
DIGESTS = tuple(f"{number:016x}" for number in range(6))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory) -> Image.Image:
    """A drawn person of 144 x 192 pixels in which the detector finds a face."""
    people = write_people(tmp_path_factory.mktemp("people") / "drawn", people=4, eval_people=0, seed=0, size=(144, 192))
    images = [read_image(file) for file in sorted(people.glob("train/images/*/normal.jpg"))]
    return next(image for image in images if find_face(image))


def on_grey(size: tuple[int, int], *placed: tuple[Image.Image, tuple[int, int]]) -> Image.Image:
    image = Image.new("RGB", size, GREY)
    for piece, corner in placed:
        image.paste(piece, corner)
    return image


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, counted pixel by pixel."""
    covered = np.zeros((2, 2000, 2000), bool)
    for mask, (left, top, right, bottom) in zip(covered, (one, other), strict=True):
        mask[top:bottom, left:right] = True
    return covered.all(axis=0).sum() / covered.any(axis=0).sum()


def finder(box: Box | None) -> tuple[Callable[[Image.Image], Box | None], list[Image.Image]]:
    """A detector that always finds this, and the images it was asked about."""
    asked = []

    def find(image: Image.Image) -> Box | None:
        asked.append(image)
        return box

    return find, asked


def test_the_box_of_a_face_holds_its_middle_and_neither_hair_nor_shoulders_alone(portrait):
    left, top, right, bottom = find_face(portrait)
    assert left < 72 < right and top < 96 < bottom
    assert 40 < right - left < 130 and 50 < bottom - top < 150


@pytest.mark.parametrize("corner", [(0, 0), (30, 10), (112, 64)])
def test_a_box_moves_with_its_face(portrait, corner):
    left, top, right, bottom = find_face(portrait)
    expected = (left + corner[0], top + corner[1], right + corner[0], bottom + corner[1])
    assert overlap(find_face(on_grey((256, 256), (portrait, corner))), expected) > 0.75


@pytest.mark.parametrize("scale", [2, 4, 7])
def test_a_box_is_in_the_pixels_of_the_image_however_large_that_is(portrait, scale):
    large = portrait.resize((144 * scale, 192 * scale), Image.Resampling.BICUBIC)
    assert overlap(find_face(large), tuple(scale * end for end in find_face(portrait))) > 0.75


def test_of_several_faces_the_largest_is_found(portrait):
    small = portrait.resize((72, 96))
    assert find_face(on_grey((256, 192), (small, (0, 0)), (portrait, (100, 0))))[0] > 100
    assert find_face(on_grey((256, 192), (portrait, (0, 0)), (small, (150, 0))))[2] < 150


def test_a_face_at_the_edge_has_a_box_within_the_image(portrait):
    left, top, right, bottom = find_face(portrait)
    across, down = (right - left) // 5, (bottom - top) // 8
    cuts = [(left + across, 0, 144, 192), (0, 0, right - across, 192), (0, top + down, 144, 192), (0, 0, 144, bottom - down)]
    found = [(find_face(part := portrait.crop(cut)), part.size) for cut in cuts]
    assert any(box for box, _ in found)
    for box, size in found:
        assert box is None or (0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1])


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (SMALLEST - 1, SMALLEST - 1), (SMALLEST, SMALLEST), (3000, 20), (SIDE, SIDE), (900, 700)]
)
def test_an_image_without_a_face_has_no_box_whatever_its_shape(size):
    assert find_face(Image.new("RGB", size, GREY)) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_face(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 400, size=2)
    assert find_face(Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8))) is None


def test_a_face_is_found_alike_by_one_thread_and_by_many_at_once(portrait):
    images = [on_grey((256, 200), (portrait, (x, 4))) for x in range(0, 112, 16)]
    alone = [find_face(image) for image in images]
    with one_thread_each(), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find_face, images)) == alone
    assert any(alone)


def test_torch_gets_its_threads_back_even_after_a_mistake():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread_each():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("box", [(1, 2, 3, 4), None])
def test_an_image_is_looked_at_once_and_known_to_the_next_process(tmp_path, box):
    find, asked = finder(box)
    image = Image.new("RGB", (10, 10))
    first = Faces(tmp_path / "faces", find)
    assert [first.of(image, digest) for digest in DIGESTS + DIGESTS] == [box] * 12 and len(asked) == 6
    assert [Faces(tmp_path / "faces", find).of(image, digest) for digest in DIGESTS] == [box] * 6 and len(asked) == 6


def test_what_was_found_is_kept_at_once_not_at_the_end(tmp_path):
    find, asked = finder((1, 2, 3, 4))
    image, killed = Image.new("RGB", (10, 10)), Faces(tmp_path / "faces", find)
    killed.of(image, DIGESTS[0])
    Faces(tmp_path / "faces", find).of(image, DIGESTS[0])
    assert len(asked) == 1


def test_processes_that_find_at_the_same_time_keep_all(tmp_path):
    find, asked = finder((1, 2, 3, 4))
    image = Image.new("RGB", (10, 10))
    one, other = Faces(tmp_path / "faces", find), Faces(tmp_path / "faces", find)
    for digest in DIGESTS:
        one.of(image, digest)
        other.of(image, digest[::-1])
    asked.clear()
    third = Faces(tmp_path / "faces", find)
    assert {third.of(image, digest) for digest in DIGESTS + tuple(digest[::-1] for digest in DIGESTS)} == {(1, 2, 3, 4)} and not asked


@pytest.mark.parametrize("seed", nightly_after(4, range(60)))
def test_whatever_happens_to_the_bytes_of_the_file_boxes_are_right_again_and_the_file_is_complete(tmp_path, seed):
    rng = np.random.default_rng(seed)
    image, truth = Image.new("RGB", (10, 10)), {digest: (1, 2, 3 + number, 4) for number, digest in enumerate(DIGESTS)}
    file = tmp_path / "faces"
    for digest, box in truth.items():
        Faces(file, finder(box)[0]).of(image, digest)
    whole = file.read_bytes()
    # Torn off in mid-write, or filled with what a crash leaves: letters that are no boxes.
    broken = bytearray(whole[: rng.integers(len(whole))] if seed % 2 else whole)
    for place in rng.integers(len(broken), size=3 if len(broken) else 0):
        broken[place] = rng.choice([0, 10, 34, 44, 91, 93, 120, 255])
    file.write_bytes(broken)
    for digest, box in truth.items():
        found = Faces(file, finder(box)[0]).of(image, digest)
        assert found is not None and 0 <= found[0] < found[2] <= 10 and 0 <= found[1] < found[3] <= 10
    content = file.read_bytes()
    find, asked = finder(None)
    healed = Faces(file, find)
    assert all(healed.of(image, digest) for digest in truth) and not asked
    assert file.read_bytes() == content and content.endswith(b"\n")


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[]", "7", '["0000000000000000"]', '["0000000000000000", 5]', '["0000000000000000", [1, 2, 3]]']
    + ['["0000000000000000", [1, 2, 3, 4.5]]', '["0000000000000000", ["1", 2, 3, 4]]', '[["0000000000000000"], null]', "\xff"],
)
def test_a_line_that_is_no_box_is_forgotten_and_the_others_hold(tmp_path, line):
    (tmp_path / "faces").write_bytes(f'["{DIGESTS[1]}", null]\n{line}\n["{DIGESTS[2]}", [5, 6, 7, 8]]'.encode("latin-1"))
    find, asked = finder((1, 2, 3, 4))
    faces, image = Faces(tmp_path / "faces", find), Image.new("RGB", (10, 10))
    assert [faces.of(image, digest) for digest in DIGESTS[:3]] == [(1, 2, 3, 4), None, (5, 6, 7, 8)] and len(asked) == 1
    healed = {f'["{DIGESTS[1]}", null]', f'["{DIGESTS[2]}", [5, 6, 7, 8]]', f'["{DIGESTS[0]}", [1, 2, 3, 4]]'}
    assert set((tmp_path / "faces").read_text().splitlines()) == healed


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 11, 5), (0, 0, 5, 11), (5, 0, 5, 5), (0, 6, 5, 5)])
def test_a_box_that_does_not_lie_in_its_image_is_not_believed(tmp_path, box):
    image = Image.new("RGB", (10, 10))
    Faces(tmp_path / "faces", finder(box)[0]).of(image, DIGESTS[0])
    for _ in range(2):
        assert Faces(tmp_path / "faces", finder((1, 2, 3, 4))[0]).of(image, DIGESTS[0]) == (1, 2, 3, 4)
    assert len((tmp_path / "faces").read_text().splitlines()) == 1


def test_a_file_that_cannot_be_written_is_named_with_the_fix(tmp_path):
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(DataError, match=f"{tmp_path / 'folder' / 'faces'}: .*SWEEPVOTE_CACHE"):
        Faces(tmp_path / "folder" / "faces", finder(None)[0]).of(Image.new("RGB", (10, 10)), DIGESTS[0])


@pytest.mark.nightly
def test_the_detector_is_imported_by_those_alone_who_look_for_an_unknown_face(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    code = """
import sys
from pathlib import Path
from trainables.config import section
from trainables.data.images import Unlabelled
from trainables.data.views import View, build_views
images, cache = Unlabelled(Path(sys.argv[1]), ("photo.png",)), Path(sys.argv[1]) / "cache"
for crops in sys.argv[2:]:
    build_views(images, [View.of(section("view", crop=crop, size=32)) for crop in crops.split()], cache)
    print("facenet_pytorch" in sys.modules)
"""
    root = Path(__file__).parents[3]
    # The second process finds the face that the first has looked for.
    commands = [[sys.executable, "-c", code, str(tmp_path), *tries] for tries in (["none", "none face"], ["none center face", "face"])]
    said = [subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split() for command in commands]
    assert said == [["False", "True"], ["False", "False"]]


def test_without_its_package_a_crop_of_faces_is_refused_with_the_command_that_installs_it(monkeypatch):
    faces._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(DataError) as caught:
        find_face(Image.new("RGB", (40, 40)))
    assert not missing(str(caught.value), "view/crop", f"pip install --no-deps {faces.PACKAGE}")


@pytest.mark.nightly
def test_the_five_points_lie_on_the_face_in_the_order_of_a_face(portrait):
    large = portrait.resize([2 * side for side in portrait.size])
    eye, other_eye, nose, mouth, other_mouth = find_points(large)
    assert eye[0] < nose[0] < other_eye[0] and mouth[0] < other_mouth[0] and eye[1] < nose[1] < mouth[1]
    left, top, right, bottom = find_face(large)
    assert all(left < x < right and top < y < bottom for x, y in (eye, other_eye, nose, mouth, other_mouth))
    assert find_points(Image.new("RGB", (80, 80))) is None
