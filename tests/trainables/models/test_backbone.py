import pickle

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from tests.conftest import nightly_after
from tests.messages import missing, mistaken
from trainables.models.backbone import build_backbone, pretrained_statistics
from trainables.models.settings import ModelConfig
from trainables.registry import ConfigError

NAMES = ["test_efficientnet", "test_resnet", "test_vit"]


def build(name: str, size: tuple[int, int] = (32, 32), weights: object = "none", seed: int = 0, **settings) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_backbone(ModelConfig(backbone=name, weights=str(weights), **settings), size)[0]


def refused(*args, **settings) -> str:
    with pytest.raises(ConfigError) as caught:
        build(*args, **settings)
    return str(caught.value)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", [*NAMES, "test_convnext", "test_nfnet", "test_maxvit", "mobilenetv3_small_050", "levit_128s"])
@pytest.mark.parametrize("size", [(32, 32), (64, 32)])
def test_every_kind_of_network_gives_as_many_features_as_it_says(name, size):
    if name == "test_maxvit" and size == (64, 32):
        size = (64, 64)  # its windows are squares
    backbone, features = build_backbone(ModelConfig(backbone=name, weights="none"), size)
    assert backbone.training
    assert backbone(torch.rand(2, 3, *size)).shape == (2, features)


@pytest.mark.parametrize("name", NAMES)
def test_one_weights_setting_serves_several_backbones(name, tmp_path):
    expected = build(name, seed=1).state_dict()
    save_file(expected, tmp_path / f"{name}-mine.safetensors")
    assert same(build(name, weights=tmp_path / "{backbone}-mine.safetensors").state_dict(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_building_looks_at_the_network_without_changing_it(name):
    plain = {"img_size": (32, 32)} if name == "test_vit" else {}
    torch.manual_seed(0)
    expected = timm.create_model(name, num_classes=0, **plain)
    after = torch.rand(1)
    assert same(build(name).state_dict(), expected.state_dict())
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("test_vit", (40, 40), (32, 32)),
        ("test_vit", (32, 41), (32, 48)),
        ("test_vit", (70, 100), (64, 96)),
        ("test_maxvit", (16, 16), (32, 32)),
        ("test_convnext", (16, 16), (32, 32)),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_with_the_nearest_that_it_takes(name, size, near):
    message = refused(name, size)
    assert not mistaken([message], [(f"view/size: {name} ", f"{size[0]}x{size[1]} pixels", f"[{near[0]}, {near[1]}]")])
    assert build(name, near)(torch.rand(2, 3, *near)).ndim == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("test_efficentnet", "did you mean test_efficientnet"),
        ("zzzzzzzz", "timm.list_models() lists them"),
        ("test_resnet.r160_in1", "did you mean test_resnet.r160_in1k?"),
    ],
)
def test_an_unknown_backbone_is_refused_with_the_nearest_names(name, hint):
    message = refused(name)
    assert message.startswith("model/backbone: ") and not missing(message, repr(name), hint)
    assert refused("test_resnet", second=name) == message.replace("model/backbone", "model/second")
    assert refused(name, second=name).splitlines() == [message, refused("test_resnet", second=name)]


def test_a_backbone_may_name_its_weights_after_a_dot():
    assert same(build("test_resnet.r160_in1k").state_dict(), build("test_resnet").state_dict())


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", [*NAMES, "test_convnext"])
def test_features_of_two_backbones_stand_side_by_side(first, second):
    backbone, features = build_backbone(ModelConfig(backbone=first, second=second, weights="none"), (32, 32))
    backbone.eval()
    images = torch.rand(2, 3, 32, 32)
    together = backbone(images)
    assert together.shape == (2, features)
    assert torch.equal(together, torch.cat([backbone.first(images), backbone.second(images)], dim=1))
    assert same(build(first).state_dict(), build(first, second=second).first.state_dict())


def test_one_weights_setting_serves_both_backbones_by_their_names(tmp_path):
    states = {name: build(name, seed=1).state_dict() for name in ("test_resnet", "test_vit")}
    for name, state in states.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    backbone = build("test_resnet", weights=tmp_path / "{backbone}.safetensors", second="test_vit")
    assert same(backbone.first.state_dict(), states["test_resnet"]) and same(backbone.second.state_dict(), states["test_vit"])
    (tmp_path / "test_vit.safetensors").unlink()
    assert "no such file" in refused("test_resnet", weights=tmp_path / "{backbone}.safetensors", second="test_vit")


def test_what_is_wrong_with_either_backbone_is_reported_at_once():
    message = refused("test_vit", (40, 40), second="test_maxvit").splitlines()
    assert [line.split(" cannot take")[0] for line in message] == ["view/size: test_vit", "view/size: test_maxvit"]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_nfnet", "test_maxvit", "mobilenetv3_small_050"])
def test_drop_path_reaches_the_blocks_and_changes_answers_in_training_alone(name):
    images = torch.rand(8, 3, 32, 32)
    plain, dropping = build(name), build(name, drop_path=0.5)
    assert same(plain.state_dict(), dropping.state_dict())
    assert torch.equal(plain.eval()(images), dropping.eval()(images))
    rates = [module.drop_prob for module in dropping.modules() if type(module).__name__ == "DropPath"]
    assert 0 < max(rates) <= 0.5 + 1e-6 and rates == sorted(rates)
    for parameter in dropping.parameters():
        if parameter.ndim <= 1:
            # Many networks begin with blocks that add nothing.
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    answers = [dropping.train()(images) for _ in range(2)]
    assert not torch.equal(*answers)


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "test_efficientnet"])
def test_drop_path_is_refused_where_no_block_can_be_left_out(name):
    message = refused(name, drop_path=0.1)
    assert message == refused("test_vit", second=name, drop_path=0.1) and message.startswith(f"model/drop_path: {name} ")


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("test_resnet", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet18.a1_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_base_patch16_clip_224.openai", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ],
)
def test_statistics_are_those_that_the_pretrained_weights_saw(name, mean, std):
    assert pretrained_statistics(name) == (mean, std)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "wrapped.pt"])
def test_weights_are_loaded_from_a_file_key_by_key_and_a_classifier_in_it_is_left_out(tmp_path, name, suffix):
    plain = {"img_size": (32, 32)} if name == "test_vit" else {}
    state = timm.create_model(name, num_classes=7, **plain).state_dict()
    file = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state} if "wrapped" in suffix else state, file)
    loaded = build(name, weights=file).state_dict()
    assert loaded and all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize(
    ("name", "whole", "side"),
    nightly_after(1, [("googlenet", torchvision.models.GoogLeNet, 32), ("inception_v3", torchvision.models.Inception3, 80)]),
)
def test_a_file_with_auxiliary_classifiers_gives_a_network_without_them_that_answers_the_same(name, whole, side, tmp_path):
    network = whole(init_weights=False)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    network.fc = torch.nn.Identity()
    images = torch.rand(2, 3, side, side)
    backbone = build(name, (side, side), weights=tmp_path / "weights.safetensors").eval()
    torch.testing.assert_close(backbone(images), network.eval()(images))


def test_googlenet_is_refused_what_it_has_not():
    assert not missing(refused("googlenet", weights="imagenet"), "model/weights: ", "googlenet", "file")
    assert refused("googlenet", drop_path=0.1).startswith("model/drop_path: googlenet ")
    assert pretrained_statistics("googlenet") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_missing_unknown_and_misshapen_keys_are_named(tmp_path):
    state = build("test_resnet").state_dict()
    del state["conv1.0.weight"]
    state |= {"stem.weight": torch.zeros(1), "conv1.1.bias": torch.zeros(3)}
    save_file(state, tmp_path / "weights.safetensors")
    message = refused("test_resnet", weights=tmp_path / "weights.safetensors")
    keys = "missing conv1.0.weight", "unknown stem.weight", "conv1.1.bias is (3,), not (16,)"
    assert not mistaken([message], [(f"model/weights: {tmp_path / 'weights.safetensors'} ", *keys)])


def test_weights_of_another_network_are_refused_with_the_first_few_keys(tmp_path):
    save_file(build("test_vit").state_dict(), tmp_path / "weights.safetensors")
    message = refused("test_resnet", weights=tmp_path / "weights.safetensors")
    assert "missing conv1.0.weight" in message and " more" in message and message.count("missing") == 5


def test_a_vision_transformers_weights_of_another_size_are_refused_by_their_shape(tmp_path):
    save_file(build("test_vit", (32, 32)).state_dict(), tmp_path / "weights.safetensors")
    assert "pos_embed is (1, 5, 64), not (1, 17, 64)" in refused("test_vit", (64, 64), weights=tmp_path / "weights.safetensors")


class Harmful:
    """Unpickling one makes the file that it names."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [lambda value, file: torch.save(value, file), lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, save):
    save({"conv1.weight": Harmful(tmp_path / "harm")}, tmp_path / "weights.pt")
    assert not missing(refused("test_resnet", weights=tmp_path / "weights.pt"), f"{tmp_path / 'weights.pt'} ", "tensors only")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken", bytes(64)])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert refused("test_resnet", weights=tmp_path / name).startswith(f"model/weights: {tmp_path / name} ")


@pytest.mark.parametrize("value", [torch.zeros(3), [torch.zeros(3)], {"state_dict": 3}, {"conv1.weight": 3}])
def test_a_torch_file_of_something_else_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "weights.pt")
    assert refused("test_resnet", weights=tmp_path / "weights.pt").startswith(f"model/weights: {tmp_path / 'weights.pt'} ")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    message = refused("test_resnet", weights=tmp_path / "gone.pt")
    assert not mistaken([message], [("model/weights: ", str(tmp_path / "gone.pt"), "imagenet, none")])


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_without_a_network_is_explained(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refused(name, weights="imagenet")
    fixes = "HF_HOME", "--set model/weights=FILE", "--set model/weights=none"
    assert not mistaken([message], [("model/weights: ", f"imagenet weights of {name} ", *fixes)])


def test_imagenet_weights_are_asked_for_each_of_two_backbones(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    lines = refused("test_resnet", weights="imagenet", second="test_vit").splitlines()
    assert not mistaken(lines, [("model/weights: ", f"imagenet weights of {name} ") for name in ("test_resnet", "test_vit")])
