"""Detectors of faces other than MTCNN. YuNet's own weights are not part of this project: a network of its inputs and outputs stands in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.messages import missing
from trainables.config import section
from trainables.data.faces import yunet
from trainables.data.images import DataError, Unlabelled
from trainables.data.views import View, build_views, faces_of, look, open_view, store_folder
from trainables.registry import ConfigError


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A network with YuNet's outputs that takes every white square of 32 pixels for the middle of a face of 64 pixels."""
    nodes, outputs, constants = [], [], [numpy_helper.from_array(np.array([1, -1, 1]), "one")]
    for stride in (8, 16, 32):
        nodes.append(helper.make_node("AveragePool", ["input"], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2))
        for name, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            white = np.full((columns, 3, 1, 1), 1 / 765 if name in ("cls", "obj") and stride == 32 else 0, np.float32)
            bias = np.array([0, 0, np.log(2), np.log(2)] if name == "bbox" else [0] * columns, np.float32)
            own, shape = f"{name}_{stride}", numpy_helper.from_array(np.array([1, -1, columns]), f"shape_{name}_{stride}")
            constants += [numpy_helper.from_array(white, f"w_{own}"), numpy_helper.from_array(bias, f"b_{own}"), shape]
            nodes += [
                helper.make_node("Conv", [f"mean{stride}", f"w_{own}", f"b_{own}"], [f"c_{own}"]),
                helper.make_node("Transpose", [f"c_{own}"], [f"t_{own}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"t_{own}", f"shape_{own}"], [own]),
            ]
            outputs.append(helper.make_tensor_value_info(own, TensorProto.FLOAT, [1, None, columns]))
    outputs.sort(key=lambda one: (("cls", "obj", "bbox", "kps").index(one.name.split("_")[0]), int(one.name.split("_")[1])))
    size = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 256, 256])
    graph = helper.make_graph(nodes, "yunet", [size], outputs, constants[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file = tmp_path_factory.mktemp("yunet") / "face_detection_yunet.onnx"
    onnx.save(model, file)
    return file


@pytest.fixture
def image() -> Image.Image:
    """A white square of 32 pixels on black."""
    image = Image.new("RGB", (256, 256))
    image.paste((255, 255, 255), (96, 64, 128, 96))
    return image


def view_of(weights: Path) -> View:
    return View.of(section("view", crop="face", margin=0.0, size=32, detector="yunet", detector_file=str(weights)))


def test_yunet_finds_a_face_in_the_pixels_of_the_image(weights, image):
    find = yunet(str(weights))
    assert find(image) == (64, 32, 128, 96)
    assert find(image.resize((512, 512))) == (128, 64, 256, 192)
    assert find(image.crop((0, 0, 256, 192))) == (64, 32, 128, 96)
    assert find(Image.new("RGB", (200, 100))) is find(Image.new("RGB", (8, 300))) is None


def test_views_are_cut_around_what_their_own_detector_finds_and_remembered_apart(weights, image, tmp_path):
    image.save(tmp_path / "a.png")
    view, other = view_of(weights), View.of(section("view", crop="face", margin=0.0, size=32))
    built = build_views(Unlabelled(tmp_path, ("a.png",)), [view, other], tmp_path / "cache")
    seen = open_view(built.files[view])
    assert faces_of(image, [view, other]) == {view: (64, 32, 128, 96), other: None}
    np.testing.assert_array_equal(seen.images[seen.rows(["a.png"])[0]], look(image, view, (64, 32, 128, 96)))
    assert built.without_face == ("a.png",) and len(list((tmp_path / "cache").glob("faces-*.jsonl"))) == 2


def test_the_images_of_a_detector_are_kept_by_the_content_of_its_file(weights, tmp_path):
    copy, changed = tmp_path / "copy.onnx", tmp_path / "changed.onnx"
    copy.write_bytes(weights.read_bytes())
    changed.write_bytes(weights.read_bytes() + b"\0")
    one, other = (store_folder(tmp_path, replace(view_of(weights), detector_file=str(file))) for file in (copy, changed))
    assert one != other


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"detector": "yunet"}, ("detector_file",)),
        ({"detector_file": "weights.onnx"}, ("mtcnn", "detector_file")),
        ({"detector": "haar"}, ("view/detector", "haar", "mtcnn", "yunet")),
    ],
)
def test_a_detector_without_its_file_or_with_anothers_is_refused(values, words):
    with pytest.raises(ConfigError) as caught:
        section("view", crop="face", **values)
    assert not missing(str(caught.value), "view", *words)


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_a_file_that_is_gone_or_no_yunet_is_refused_with_the_fix(tmp_path, content):
    file = tmp_path / "weights.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        yunet(str(file))
    assert not missing(str(caught.value), "view/detector_file", str(file))
