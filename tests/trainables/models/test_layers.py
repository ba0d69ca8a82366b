import pytest
import torch

from tests.trainables.models.variants import FAMILIES
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import read_task
from trainables.models.assemble import IMAGENET, build_model
from trainables.models.backbone import build_backbone
from trainables.models.layers import layer_scales
from trainables.models.settings import ModelConfig
from trainables.models.stages import layers, stages

TASK = read_task("joint", contest_scheme((30, 60)))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_of_every_family_is_in_one_stage_and_in_one_layer(name):
    network, _ = build_backbone(ModelConfig(backbone=name, weights="none"), (32, 32))
    expected = sorted(path for path, _ in network.named_parameters())
    count, last = FAMILIES[name]
    for groups in (stages(network), layers(network)):
        assert all(groups) and sorted(sum(groups, [])) == expected
        # Neither a stem nor the norm behind the last stage stands for a stage of its own.
        assert any(network.get_parameter(path).ndim > 1 for path in groups[-1])
        first_conv = network.pretrained_cfg["first_conv"]
        assert any(path.startswith(first_conv) for path in groups[0])
    assert len(stages(network)) == count and any(path.startswith(last) for path in stages(network)[-1])
    assert len(layers(network)) >= count


def test_a_network_of_which_timm_knows_no_stages_is_one_stage():
    assert stages(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))) == [["0.weight", "0.bias", "1.weight", "1.bias"]]


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_each_layer_learns_slower_than_the_one_above_it(make_config, decay):
    model = build_model(make_config(model={"backbone": "test_vit", "neck": "batchnorm", "hidden": 8, "edges": "mix"}), TASK, IMAGENET)
    scales = layer_scales(model, decay)
    assert scales.keys() == {path for path, _ in model.named_parameters()}
    for path, scale in scales.items():
        if not path.startswith("backbone."):
            below = 0
        elif path.startswith("backbone.blocks."):
            below = 6 - int(path.split(".")[2])
        else:
            below = 1 if path.startswith("backbone.norm.") else 7
        assert scale == pytest.approx(decay**below), path


def test_each_of_two_backbones_is_counted_from_its_own_top(make_config):
    both = layer_scales(build_model(make_config(model={"backbone": "test_vit", "second": "test_resnet"}), TASK, IMAGENET), 0.5)
    for name, prefix in (("test_vit", "first"), ("test_resnet", "second")):
        alone = layer_scales(build_model(make_config(model={"backbone": name}), TASK, IMAGENET), 0.5)
        backbone = {path: scale for path, scale in alone.items() if path.startswith("backbone.")}
        assert backbone == {path.replace(f"{prefix}.", ""): both[path] for path in both if path.startswith(f"backbone.{prefix}.")}


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_without_decay_all_learn_alike(make_config, name):
    assert set(layer_scales(build_model(make_config(model={"backbone": name}), TASK, IMAGENET), 1.0).values()) == {1.0}
