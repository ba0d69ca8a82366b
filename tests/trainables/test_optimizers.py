import pytest
import timm
import torch
from torch import nn

from trainables.config import ConfigError, OptimizerConfig, Watched
from trainables.optimizers import OPTIMIZERS, build_optimizer

SETTINGS = {
    "sgd": {"name", "lr", "weight_decay", "momentum"},
    "adam": {"name", "lr", "weight_decay"},
    "adamw": {"name", "lr", "weight_decay"},
}


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_vit"])
def test_norms_and_biases_have_no_weight_decay_and_every_other_parameter_has(backbone):
    model = timm.create_model(backbone, num_classes=18)
    decay = {
        parameter: group["weight_decay"]
        for group in build_optimizer(OptimizerConfig(lr=1e-3, weight_decay=0.05), model).param_groups
        for parameter in group["params"]
    }
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    free = {p for module in model.modules() if isinstance(module, norms) for p in module.parameters()}
    free |= {p for name, p in model.named_parameters() if name.endswith("bias")}
    assert free
    assert decay == {parameter: 0.0 if parameter in free else 0.05 for parameter in model.parameters()}


def test_parameters_that_need_no_gradient_are_left_out():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(OptimizerConfig(lr=1e-3), model)
    assert [group["params"] for group in optimizer.param_groups] == [[model[1].weight], [model[1].bias]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name):
    model = nn.Linear(5, 3)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(OptimizerConfig(name=name, lr=0.01), model)
    values = []
    for _ in range(300):
        value = sum(parameter.square().sum() for parameter in model.parameters())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.01 * values[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_gradient_from_the_data_only_decayed_weights_shrink(name):
    model = nn.Linear(5, 3)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(OptimizerConfig(name=name, lr=0.01, weight_decay=0.1), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # adam's decay passes through its normalisation as any gradient does, so its first step is lr whatever the decay
    expected = 1 - 0.01 if name == "adam" else 1 - 0.01 * 0.1
    torch.testing.assert_close(model.weight, torch.full((3, 5), expected))
    assert torch.equal(model.bias, torch.ones(3))


def test_sgd_builds_up_speed_by_its_momentum():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build_optimizer(OptimizerConfig(name="sgd", lr=1.0, momentum=0.5, weight_decay=0.0), model)
    for _ in range(3):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert model.weight.item() == -(1 + 1.5 + 1.75)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reads_its_own_settings_and_no_others(name):
    read = set()
    build_optimizer(Watched(OptimizerConfig(name=name, lr=1e-3), read), nn.Linear(2, 2))
    assert read == SETTINGS[name]


def test_an_unknown_optimizer_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="optimizer/name: 'adamv' does not exist; did you mean adam.*adam, adamw, sgd"):
        build_optimizer(OptimizerConfig(name="adamv", lr=1e-3), nn.Linear(2, 2))
