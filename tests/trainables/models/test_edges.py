import pytest
import timm
import torch

from trainables.build import build_parts
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import read_task
from trainables.loop import fit
from trainables.models.assemble import IMAGENET, build_model
from trainables.models.backbone import build_backbone
from trainables.models.settings import ModelConfig
from trainables.registry import ConfigError

CPU = torch.device("cpu")
TASK = read_task("joint", contest_scheme((30, 60)))
NAMES = ["test_efficientnet", "test_resnet", "test_vit", "test_convnext", "levit_128s"]


def images_with_edges(count=3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(count, 3, 32, 32, generator=generator) * 255
    edges = (torch.rand(count, 1, 32, 32, generator=generator) < 0.2) * 255.0
    return torch.cat([colours, edges], dim=1)


@pytest.mark.parametrize("way", ["mix", "stem"])
@pytest.mark.parametrize("second", ["", "test_vit"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_with_edges_answers_at_first_as_it_does_without(make_config, name, second, way):
    model = {"backbone": name, "second": second}
    plain, edged = (build_model(make_config(model=model | {"edges": edges}), TASK, IMAGENET, (0.0, 1.0)).eval() for edges in ("none", way))
    images = images_with_edges()
    torch.testing.assert_close(edged(images).logits, plain(images[:, :3]).logits, rtol=1e-4, atol=1e-5)
    images[:, 3] = 255 - images[:, 3]
    torch.testing.assert_close(edged(images).logits, plain(images[:, :3]).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", ["mix", "stem"])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_after_training_edges_count(data, make_config, name, way):
    config = make_config(model={"backbone": name, "edges": way})
    parts = build_parts(config, data, CPU)
    next(fit(parts, config.train, epochs=1, seed=0))
    model, images = parts.model.eval(), images_with_edges()
    blank = images.clone()
    blank[:, 3] = 0
    assert not torch.allclose(model(images).logits[0], model(blank).logits[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_widened_stem_has_zero_weights_for_edges_and_keeps_those_for_colours(name):
    torch.manual_seed(0)
    plain, _ = build_backbone(ModelConfig(backbone=name, weights="none"), (32, 32))
    torch.manual_seed(0)
    widened, _ = build_backbone(ModelConfig(backbone=name, weights="none", edges="stem"), (32, 32))
    stem = timm.get_pretrained_cfg(name).first_conv
    for path, parameter in widened.named_parameters():
        if path == f"{stem}.weight":
            assert parameter.shape[1] == 4 and parameter.requires_grad and not parameter[:, 3].any()
            parameter = parameter[:, :3]
        assert torch.equal(parameter, plain.get_parameter(path))


@pytest.mark.parametrize("name", ["test_nfnet", "eca_nfnet_l0"])
def test_a_stem_whose_answers_would_change_is_refused(name):
    # It standardises its weights over all channels: zeros beside them change them.
    with pytest.raises(ConfigError) as caught:
        build_backbone(ModelConfig(backbone=name, weights="none", edges="stem"), (32, 32))
    assert str(caught.value).startswith("model/edges: ") and name in str(caught.value) and "mix" in str(caught.value)


@pytest.mark.parametrize("freeze", ["backbone", "stages"])
def test_edges_in_a_stem_that_is_frozen_for_ever_are_refused(make_config, freeze):
    settings = {"backbone": "test_resnet", "edges": "stem", "freeze": freeze}
    with pytest.raises(ConfigError) as caught:
        build_model(make_config(model=settings), TASK, IMAGENET)
    assert str(caught.value).startswith("model/edges: stem has no effect")
    build_model(make_config(model=settings | {"unfreeze_epoch": 1}), TASK, IMAGENET)


@pytest.mark.parametrize("freeze", ["backbone", "stages"])
def test_mixing_edges_into_a_frozen_backbone_trains(data, make_config, freeze):
    config = make_config(model={"backbone": "test_resnet", "edges": "mix", "freeze": freeze})
    parts = build_parts(config, data, CPU)
    before = parts.model.edges.conv.weight.detach().clone()
    assert torch.equal(before, torch.eye(3, 4)[:, :, None, None])
    next(fit(parts, config.train, epochs=1, seed=0))
    assert (parts.model.edges.conv.weight != before).all()
