"""Where a backbone is still a map of the image: every shipped family has a layer, and words tell where a network has none."""

import pytest
import timm
import torch
from torch import nn

from search_spaces.read import FOLDER, read_space, shipped_spaces
from tests.conftest import nightly_after
from trainables.models.backbone import TwoBackbones
from trainables.models.spatial import LEAST, NoMapError, spatial_layers
from tuner.preflight import values_of

TINY = ["test_efficientnet", "test_vit", "test_convnext", "test_nfnet"]  # convolutions and tokens, small enough for every push


def shipped_backbones() -> list[str]:
    """Every backbone that a space of the package may draw, with a GPU or without."""
    spaces = [read_space(FOLDER / name, on_cpu=on_cpu) for name in shipped_spaces() for on_cpu in (False, True)]
    return sorted({backbone for space in spaces for backbone in values_of(space)["model/backbone"]})


def network_of(name: str, size: tuple[int, int] = (64, 64)) -> nn.Module:
    grid = {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    return timm.create_model(name, num_classes=0, **grid).eval()


@pytest.mark.parametrize("name", nightly_after(len(TINY), [*TINY, *(name for name in shipped_backbones() if name not in TINY)]))
def test_every_backbone_of_a_shipped_space_has_a_layer_that_is_a_map_with_channels_in_front(name):
    network = network_of(name)
    (layer,) = spatial_layers(network, (3, 64, 64))
    seen = []
    hook = layer.module.register_forward_hook(lambda module, inputs, output: seen.append(layer.to_map(output)))
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    hook.remove()
    images, channels, height, width = seen[-1].shape
    assert (images, height, width) == (2, *layer.size) and channels > max(height, width)
    assert height == width and height * width >= LEAST


def test_a_map_of_an_image_that_is_no_square_is_as_high_and_wide_as_the_image():
    for name in ("test_efficientnet", "test_vit"):
        (layer,) = spatial_layers(network_of(name, (128, 64)), (3, 128, 64))
        assert layer.size == (8, 4)


def test_behind_the_last_block_of_a_vit_only_the_class_token_counts_so_the_one_before_is_taken():
    vit = network_of("test_vit")
    (layer,) = spatial_layers(vit, (3, 64, 64))
    assert layer.name == f"blocks.{len(vit.blocks) - 2}"
    vit.global_pool = "avg"
    (layer,) = spatial_layers(vit, (3, 64, 64))
    assert layer.name == f"blocks.{len(vit.blocks) - 1}"


def test_a_layer_of_few_positions_is_taken_only_where_none_before_it_has_more():
    network = network_of("test_resnet")
    assert [spatial_layers(network, (3, side, side))[0].name for side in (64, 128)] == ["layer3", "layer4"]


def test_two_backbones_have_a_layer_each():
    both = TwoBackbones(network_of("test_efficientnet"), network_of("test_convnext"))
    assert [layer.name for layer in spatial_layers(both, (3, 64, 64))] == ["first.blocks.3", "second.stages.2"]


def test_of_a_network_that_does_not_name_its_stages_it_is_the_last_convolution_and_of_one_without_there_is_none():
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
    plain = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    (layer,) = spatial_layers(plain, (3, 32, 24))
    assert (layer.module, layer.size) == (layers[3], (7, 5))
    with pytest.raises(NoMapError, match="Sequential"):
        spatial_layers(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 24, 4)), (3, 32, 24))
