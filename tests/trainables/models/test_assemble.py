import numpy as np
import pytest
import torch

from trainables.config import ModelConfig
from trainables.data.labels import contest_scheme, read_task
from trainables.models.assemble import IMAGENET, build_model, to_input
from trainables.models.heads import Heads

SCHEME = contest_scheme((30, 60))
NAMES = ["test_efficientnet", "test_resnet", "test_vit"]


def build(name="test_resnet", *, task="joint", seed=0, dropout=0.0, statistics=IMAGENET):
    return build_model(ModelConfig(backbone=name, weights="none", dropout=dropout), read_task(task, SCHEME), (32, 32), statistics, seed)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_first_weights_depend_on_the_seed_alone_and_torchs_generator_is_left_alone(name):
    torch.manual_seed(1)
    first, after = build(name), torch.rand(1)
    torch.manual_seed(2)
    again = build(name)
    torch.manual_seed(1)
    assert same(first, again) and not same(first, build(name, seed=1))
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize(
    ("task", "classes"), [("joint", [18]), ("heads", [3, 2, 3]), ("age", [3]), ([["mask", "gender"], ["age"]], [6, 3])]
)
def test_a_model_has_a_head_of_logits_for_every_head_of_its_task(task, classes):
    logits = build(task=task)(torch.rand(4, 3, 32, 32) * 255)
    assert [tuple(head.shape) for head in logits] == [(4, count) for count in classes]


def test_normalisation_is_part_of_the_model():
    statistics = ((0.1, 0.5, 0.7), (0.2, 0.3, 0.4))
    model = build(statistics=statistics).eval()
    photos = torch.rand(2, 3, 32, 32) * 255
    by_hand = (photos / 255 - torch.tensor(statistics[0]).view(1, 3, 1, 1)) / torch.tensor(statistics[1]).view(1, 3, 1, 1)
    torch.testing.assert_close(model(photos), model.heads(model.backbone(by_hand)))
    assert {"mean", "std"} <= model.state_dict().keys()


def test_a_batch_becomes_float_channels_first_and_keeps_its_values():
    photos = np.random.default_rng(0).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)
    made = to_input(torch.from_numpy(photos), torch.device("cpu"))
    assert made.dtype == torch.float32 and made.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(made.numpy(), photos.transpose(0, 3, 1, 2))


def test_heads_are_linear_layers_side_by_side():
    heads = Heads(5, [3, 2], dropout=0.0)
    features = torch.rand(4, 5)
    for logits, layer in zip(heads(features), heads.layers, strict=True):
        torch.testing.assert_close(logits, features @ layer.weight.T + layer.bias)


def test_dropout_drops_features_in_training_only():
    torch.manual_seed(0)
    heads = Heads(1000, [1], dropout=0.3)
    torch.nn.init.ones_(heads.layers[0].weight)
    torch.nn.init.zeros_(heads.layers[0].bias)
    kept = heads(torch.ones(50, 1000))[0].detach() * 0.7 / 1000
    assert float(kept.mean()) == pytest.approx(0.7, abs=0.01)
    assert float(heads.eval()(torch.ones(1, 1000))[0].detach()) == pytest.approx(1000, rel=1e-5)
