from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from trainables.build import build_parts
from trainables.config import section
from trainables.models.layers import layer_scales
from trainables.optimizers import OPTIMIZERS, build_optimizer, climbed
from trainables.registry import ConfigError

ENOUGH = {"adagrad": 0.5, "madgrad": 0.1, "radam": 0.05}  # learning rates that end within 300 steps; the others take 0.01


def linear() -> nn.Linear:
    model = nn.Linear(5, 3)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    return model


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "test_vit"])
def test_norms_and_biases_have_no_weight_decay_and_every_other_parameter_has(backbone):
    model = timm.create_model(backbone, num_classes=18)
    decay = {
        parameter: group["weight_decay"]
        for group in build_optimizer(section("optimizer", lr=1e-3, weight_decay=0.05), model).param_groups
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
    optimizer = build_optimizer(section("optimizer", lr=1e-3), model)
    assert [group["params"] for group in optimizer.param_groups] == [[model[1].weight], [model[1].bias]]


def test_layer_decay_gives_each_parameter_the_scale_of_its_layer_beside_its_own_weight_decay(data, make_config):
    config = make_config(optimizer={"layer_decay": 0.7, "weight_decay": 0.05})
    parts = build_parts(config, data, torch.device("cpu"))
    found = {p: (group["lr_scale"], group["weight_decay"]) for group in parts.optimizer.param_groups for p in group["params"]}
    scales = layer_scales(parts.model, 0.7)
    assert len(set(scales.values())) > 2 and scales["heads.layers.0.weight"] == 1
    assert found == {p: (scales[name], 0.05 if p.ndim > 1 else 0.0) for name, p in parts.model.named_parameters()}
    # A group for each pair, so that a step takes few kernels.
    assert len(parts.optimizer.param_groups) == len(set(found.values()))


def test_without_layer_decay_the_whole_model_trains_at_one_rate(data, make_config):
    parts = build_parts(make_config(), data, torch.device("cpu"))
    assert [group["lr_scale"] for group in parts.optimizer.param_groups] == [1.0, 1.0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name):
    model = linear()
    optimizer = build_optimizer(section("optimizer", name=name, lr=ENOUGH.get(name, 0.01)), model)
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
    lr, decay = 0.01, 0.1
    # Where the decay is part of the gradient, rules that divide by the gradient's size step by lr however small it is. madgrad divides
    # by the cube root of the weighted sum of squares and takes a tenth of that step; adamp decays a tenth where nothing moves.
    dual = (lr * decay) / np.cbrt(lr * decay**2)
    shrunk = {"adam": lr, "adagrad": lr, "madgrad": (1 - 0.9) * dual, "adamp": 0.1 * lr * decay}.get(name, lr * decay)
    model = linear()
    optimizer = build_optimizer(section("optimizer", name=name, lr=lr, weight_decay=decay), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.weight, torch.full((3, 5), 1 - shrunk), atol=2e-6, rtol=0)
    assert torch.equal(model.bias, torch.ones(3))


@pytest.mark.parametrize(("nesterov", "speeds"), [(False, [1, 1.5, 1.75]), (True, [1.5, 1.75, 1.875])])
def test_sgd_builds_up_speed_by_its_momentum_which_nesterov_looks_ahead_along(nesterov, speeds):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    config = section("optimizer", name="sgd", lr=1.0, momentum=0.5, nesterov=nesterov, weight_decay=0.0)
    optimizer = build_optimizer(config, model)
    for _ in range(3):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert model.weight.item() == -sum(speeds)


@pytest.mark.parametrize("name", ["sgd", "madgrad"])
def test_without_momentum_weights_stand_where_the_sums_of_gradients_put_them(name):
    # madgrad weighs gradients by lr * sqrt(step) and divides their sum by the cube root of that of their squares.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build_optimizer(section("optimizer", name=name, lr=0.1, momentum=0.0, weight_decay=0.0), model)
    for _ in range(2):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
    weights = 0.1 * np.sqrt([1, 2])
    expected = {"sgd": -0.2, "madgrad": -weights.sum() / np.cbrt(weights.sum())}[name]
    assert model.weight.item() == pytest.approx(expected, rel=1e-4)


def test_nesterov_without_momentum_is_refused_with_the_fix():
    with pytest.raises(ConfigError) as caught:
        build_optimizer(section("optimizer", name="sgd", lr=0.1, momentum=0.0, nesterov=True), linear())
    assert str(caught.value).startswith("optimizer/nesterov: ") and "optimizer/momentum is 0" in str(caught.value)


# Sharpness-aware minimization


def small_network(seed: int) -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, torch.randn(16, 6, dtype=torch.double), torch.randint(3, (16,))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("radius", [0.01, 0.05, 2.0])
@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_the_climb_goes_its_radius_along_the_gradient_however_that_is_scaled_and_is_undone_bitwise(seed, radius, scale):
    model, inputs, ids = small_network(seed)
    (scale * nn.functional.cross_entropy(model(inputs), ids)).backward()
    before = deepcopy(model.state_dict())
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone()
    start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    with climbed(model, radius):
        moved = nn.utils.parameters_to_vector(model.parameters()).detach() - start
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs), ids).backward()
    torch.testing.assert_close(moved, radius * gradient / gradient.norm())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_of_a_quadratic_climb_to_where_its_gradient_is_known():
    # f(w) = w' diag(1, 10) w / 2 has the gradient diag(1, 10) w everywhere.
    curvature = torch.tensor([1.0, 10.0])
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 4.0]])
    (curvature * model.weight.square()).sum().div(2).backward()
    with climbed(model, 0.5):
        model.zero_grad()
        (curvature * model.weight.square()).sum().div(2).backward()
    way = torch.tensor([3.0, 40.0]) / np.hypot(3, 40)
    torch.testing.assert_close(model.weight.grad[0], curvature * (torch.tensor([3.0, 4.0]) + 0.5 * way))
    assert model.weight.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_an_overflowed_gradient_moves_no_weight(wrong):
    model, inputs, ids = small_network(0)
    nn.functional.cross_entropy(model(inputs), ids).backward()
    model[0].weight.grad[0, 0] = wrong
    before = deepcopy(model.state_dict())
    with climbed(model, 0.05):
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_come_back_when_the_second_pass_fails():
    model, inputs, ids = small_network(0)
    nn.functional.cross_entropy(model(inputs), ids).backward()
    before = deepcopy(model.state_dict())
    with pytest.raises(ArithmeticError), climbed(model, 0.05):
        raise ArithmeticError
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_parameters_without_a_gradient_do_not_climb():
    model, inputs, ids = small_network(0)
    model[0].requires_grad_(False)
    nn.functional.cross_entropy(model(inputs), ids).backward()
    before = deepcopy(model.state_dict())
    with climbed(model, 0.05):
        assert torch.equal(model[0].weight, before["0.weight"]) and not torch.equal(model[3].weight, before["3.weight"])
