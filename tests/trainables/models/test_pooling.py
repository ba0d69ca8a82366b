"""Pooling that is learned with the heads: what it computes, of which backbones, and with which other settings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.backbones import backbones_of
from search_spaces.read import FOLDER, shipped_spaces
from tests.conftest import nightly_after
from trainables.build import build_parts
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import Classes, Number, Scheme, Tags, read_task
from trainables.features import features_of
from trainables.models.assemble import IMAGENET, build_model
from trainables.models.attention import ResidualAttention
from trainables.models.pooling import Positions, build_pool
from trainables.models.settings import POOLS
from trainables.models.spatial import spatial_layers
from trainables.registry import ConfigError

LEARNED = {"attention": {"attention_heads": 2}, "residual_attention": {}}
TINY = ["test_efficientnet", "test_resnet", "test_vit", "test_vit2", "test_convnext", "test_nfnet"]
NO_MAP = {"deit_base_distilled_patch16_224"}  # it takes the mean of two tokens, neither of which is a position


def model_of(make_config, pool: str, scheme: Scheme | None = None, **sections):
    config = make_config(pool={"name": pool, **LEARNED[pool]}, **sections)
    return build_model(config, read_task(config.task, scheme or contest_scheme((30, 60))), IMAGENET)


def images(side=32, count=3, channels=3) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0)) * 255


def test_every_learned_pooling_is_among_those_that_are_tested():
    assert set(POOLS) == {"own", *LEARNED}


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_residual_attention_is_what_the_formula_of_the_paper_gives(seed):
    torch.manual_seed(seed)
    found = ResidualAttention(6, 4, residual=0.3, temperature=2.0)
    given = torch.randn(5, 9, 6)
    convolution = nn.Conv2d(6, 4, 1, bias=False)
    convolution.weight.data = found.weight.detach()[:, :, None, None]
    # As in the paper's code: scores of a 1x1 convolution by the lengths of its weights, their mean, and their softmax over positions.
    scores = convolution(given.transpose(1, 2).reshape(5, 6, 3, 3)) / convolution.weight.norm(dim=1, keepdim=True).transpose(0, 1)
    scores = scores.flatten(2)
    expected = scores.mean(dim=2) + 0.3 * (scores * F.softmax(2.0 * scores, dim=2)).sum(dim=2)
    torch.testing.assert_close(found(given), expected)


def test_without_its_attention_a_head_sees_the_mean_and_at_a_high_temperature_the_strongest_position():
    torch.manual_seed(0)
    given = torch.randn(5, 9, 6)
    plain, peak = ResidualAttention(6, 4, 0.0, 1.0), ResidualAttention(6, 4, 1.0, 1e4)
    torch.testing.assert_close(plain(given), F.linear(given.mean(dim=1), F.normalize(plain.weight)))
    scores = F.linear(given, F.normalize(peak.weight))
    torch.testing.assert_close(peak(given), scores.mean(dim=1) + scores.amax(dim=1), rtol=1e-4, atol=1e-4)


def test_positions_are_read_from_maps_and_from_tokens():
    given = torch.rand(2, 5, 3, 4)
    rows = torch.stack([given[:, :, row, column] for row in range(3) for column in range(4)], dim=1)
    torch.testing.assert_close(Positions()(given), rows)
    torch.testing.assert_close(Positions(channels_last=True)(given.permute(0, 2, 3, 1)), rows)
    torch.testing.assert_close(Positions(prefix=2)(torch.cat([torch.zeros(2, 2, 5), rows], dim=1)), rows)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_the_mean_over_the_positions_is_what_the_backbone_would_have_pooled(name, make_config):
    plain = build_model(make_config(model={"backbone": name}), read_task("joint", contest_scheme((30, 60))), IMAGENET).eval()
    found = model_of(make_config, "residual_attention", model={"backbone": name}).eval()
    given, weights = found.features(images()), plain.backbone.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in found.backbone.state_dict().items())
    if name != "test_convnext":  # whose last norm is behind its pooling
        torch.testing.assert_close(given.mean(dim=1), plain.features(images()), rtol=1e-4, atol=1e-5)


def test_the_class_token_is_no_position(make_config):
    model = model_of(make_config, "residual_attention", model={"backbone": "test_vit"}).eval()
    grid = 32 // 16
    assert model.features(images()).shape[1] == grid * grid


def shipped() -> list[str]:
    return sorted({name for space in shipped_spaces() for name in backbones_of(str(FOLDER / space))[0]})


@pytest.mark.parametrize("name", nightly_after(len(TINY), [*TINY, *(name for name in shipped() if name not in TINY)]))
def test_every_backbone_gives_positions_or_is_refused_by_name(name, make_config):
    sections = {"model": {"backbone": name}, "view": {"size": 64 if name in TINY else 224}}
    # Shapes are all that is asked, of networks with hundreds of megabytes.
    with torch.device("meta"):
        if name in NO_MAP:
            with pytest.raises(ConfigError, match=f"pool/name: .*{name}"):
                model_of(make_config, "attention", **sections)
            return
        model = model_of(make_config, "residual_attention", **sections).eval()
        features = model.features(torch.zeros(2, 3, *2 * [sections["view"]["size"]]))
    assert features.shape[1] >= 4 and features.shape[::2] == (2, model.heads.layers[0].weight.shape[1])


@pytest.mark.parametrize("pool", LEARNED)
def test_tags_and_numbers_have_heads_too(pool, make_config):
    scheme = Scheme((Classes("shape", ("round", "square")), Tags("tags", ("a", "b", "c")), Number("weight")))
    model = model_of(make_config, pool, scheme, task="heads")
    assert [tuple(head.shape) for head in model(images()).logits] == [(3, 2), (3, 3), (3, 1)]


@pytest.mark.parametrize("pool", LEARNED)
def test_with_a_frozen_backbone_the_pooling_and_the_heads_train(pool, make_config):
    model = model_of(make_config, pool, model={"freeze": "backbone"})
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == ({"pool", "heads"} if pool == "attention" else {"heads"})


@pytest.mark.parametrize("pool", LEARNED)
def test_features_of_the_cache_are_one_vector_an_image(pool, data, make_config):
    config = make_config(pool={"name": pool, **LEARNED[pool]})
    parts = build_parts(config, data, torch.device("cpu"))
    found = features_of(parts.model, parts.views[0], np.arange(1, 4), torch.device("cpu"), torch.float32).values
    assert found.shape == (3, parts.model.features(images()).shape[-1])


@pytest.mark.parametrize("pool", LEARNED)
@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_heat_maps_find_a_layer_that_is_a_map(pool, name, make_config):
    model = model_of(make_config, pool, model={"backbone": name}, view={"size": 64}).eval()
    (layer,) = spatial_layers(model.backbone, (3, 64, 64))
    assert layer.size == (4, 4)


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"pool": {"name": "residual_attention"}, "model": {"hidden": 8, "neck": "batchnorm"}}, ["model/hidden", "model/neck"]),
        ({"pool": {"name": "residual_attention"}, "loss": {"ordinal": "coral"}, "task": "age"}, ["loss/ordinal"]),
        ({"pool": {"name": "residual_attention"}, "loss": {"name": "arcface"}}, ["loss/name"]),
        ({"pool": {"name": "attention"}, "model": {"heads": "probe"}}, ["pool/name"]),
        ({"pool": {"name": "residual_attention"}, "model": {"heads": "probe", "freeze": "backbone"}}, ["pool/name"]),
        ({"pool": {"name": "attention", "attention_heads": 7}}, ["pool/attention_heads"]),
        ({"pool": {"name": "attention"}, "model": {"second": "test_resnet"}}, ["pool/name"]),
    ],
)
def test_what_does_not_fit_a_pooling_is_refused_at_its_path(changes, paths, data, make_config):
    with pytest.raises(ConfigError) as error:
        build_parts(make_config(**changes), data, torch.device("cpu"))
    assert [mistake.path for mistake in error.value.mistakes] == paths


def test_a_backbone_that_only_pools_is_refused_by_name(make_config):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ConfigError, match="pool/name: .*test_efficientnet"):
        build_pool(make_config(pool={"name": "attention"}), plain, 4)
