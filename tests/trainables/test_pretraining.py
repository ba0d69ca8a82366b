from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.pretraining import Pretraining, batches_to_paint, build_painter, hide, images_to_paint, patch_of, pretrain
from trainables.registry import ConfigError

CPU = torch.device("cpu")
SIZE = (64, 48)
VIEW = np.random.default_rng(0).integers(256, size=(40, *SIZE, 3), dtype=np.uint8)
VIEW[:, : SIZE[0] // 2] //= 4  # the upper half is dark: something that can be learned from the rest
SETTINGS = Pretraining("test_vit", "none", epochs=3, batch_size=8, lr=1e-3)
NETWORKS = ["test_vit", "test_efficientnet", "test_resnet", "swin_s3_tiny_224", "convnext_atto"]


def trained(settings: Pretraining, size: tuple[int, int] = SIZE):
    painter = build_painter(settings, size)
    batches = batches_to_paint(settings, [VIEW[:, : size[0], : size[1]]], np.arange(40), images_to_paint([list("x" * 40)]))
    return painter, list(pretrain(painter, settings, batches, CPU))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("patch", [(8, 8), (16, 16), (10, 7)])
def test_every_image_has_the_asked_share_of_whole_patches_hidden_and_each_its_own(share, patch):
    hidden = hide(20, SIZE, patch, share, np.random.default_rng(0))
    rows, columns = -(-SIZE[0] // patch[0]), -(-SIZE[1] // patch[1])
    assert hidden.shape == (20, 1, *SIZE)
    wanted = min(rows * columns - 1, max(1, round(share * rows * columns)))
    for image in hidden[:, 0]:
        cells = [image[r * patch[0] : (r + 1) * patch[0], c * patch[1] : (c + 1) * patch[1]] for r in range(rows) for c in range(columns)]
        assert all(cell.all() or not cell.any() for cell in cells)
        assert sum(cell.all() for cell in cells) == wanted
    assert len({image.tobytes() for image in hidden}) > 1


@pytest.mark.parametrize("name", NETWORKS)
def test_painted_images_have_the_size_of_the_images(name):
    size = (64, 64)
    painter = build_painter(replace(SETTINGS, backbone=name), size)
    painted = painter(torch.zeros(2, 3, *size))
    assert painted.shape == (2, 3, *size)


def test_each_cell_of_the_features_paints_its_own_place():
    painter = build_painter(replace(SETTINGS, backbone="test_resnet"), (64, 64)).eval()
    with torch.no_grad():
        painter.to_pixels.weight.zero_()
        high, wide = painter.cell
        # Every place of a cell gets its own number, in reading order.
        painter.to_pixels.bias.copy_(torch.arange(3 * high * wide).float())
        painted = painter(torch.zeros(1, 3, 64, 64))[0]
    cell = torch.arange(3 * high * wide).float().view(3, high, wide)
    assert torch.equal(painted, cell.tile(1, 64 // high, 64 // wide))


def test_a_vit_hides_its_own_patches_and_a_cnn_eighths():
    vit, cnn = (build_painter(replace(SETTINGS, backbone=name), (64, 64)).backbone for name in ("test_vit", "test_resnet"))
    assert patch_of(vit, (64, 64)) == tuple(vit.patch_embed.patch_size)
    assert patch_of(cnn, (64, 48)) == (8, 6)


def test_a_hidden_patch_is_embedded_alike_wherever_it_is():
    vit = build_painter(SETTINGS, (64, 64)).backbone.eval()
    images = torch.randn(1, 3, 64, 64)
    hidden = torch.from_numpy(hide(1, (64, 64), patch_of(vit, (64, 64)), 0.5, np.random.default_rng(0)))
    with torch.no_grad():
        tokens = vit.patch_embed(images.masked_fill(hidden, 0.0)).flatten(0, -2)
    high, wide = patch_of(vit, (64, 64))
    covered = hidden[0, 0, ::high, ::wide].flatten()
    torch.testing.assert_close(tokens[covered], vit.patch_embed.proj.bias.expand(int(covered.sum()), -1))
    assert (tokens[~covered] - vit.patch_embed.proj.bias).abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_the_error_of_hidden_pixels_falls_and_the_backbone_changes(name):
    settings = replace(SETTINGS, backbone=name, epochs=6)
    before = {key: value.clone() for key, value in build_painter(settings, SIZE).backbone.state_dict().items()}
    painter, epochs = trained(settings)
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert any(not torch.equal(value, before[key]) for key, value in painter.backbone.state_dict().items())


def test_two_pretrainings_of_one_seed_agree_bitwise_and_another_seed_differs():
    (one, first), (two, second), (_, other) = trained(SETTINGS), trained(SETTINGS), trained(replace(SETTINGS, seed=1))
    assert [epoch.loss for epoch in first] == [epoch.loss for epoch in second] != [epoch.loss for epoch in other]
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


def test_an_unknown_network_and_a_size_that_it_cannot_take_are_refused_in_words():
    with pytest.raises(ConfigError, match="model/backbone: .*'tset_vit'.*did you mean test_vit"):
        build_painter(replace(SETTINGS, backbone="tset_vit"), SIZE)
    with pytest.raises(ConfigError, match="view/size: .* 17x17 pixels"):
        build_painter(SETTINGS, (17, 17))
