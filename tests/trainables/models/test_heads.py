import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import nightly_after
from trainables.data.layouts.contest import contest_scheme
from trainables.data.targets import read_task
from trainables.models.heads import Cosine, Heads, Number, Ordinal, build_heads

SCHEME = contest_scheme((30, 60))


def heads_for(config, features=6) -> Heads:
    torch.manual_seed(0)
    return build_heads(config, features, read_task(config.task, SCHEME), (0.0, 1.0))


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    nn.init.zeros_(layer.bias)
    layer.weight.data = torch.tensor(weight)
    return layer


def kinds(module: nn.Module) -> list[str]:
    return [type(part).__name__ for part in module]


def test_heads_are_linear_layers_side_by_side(make_config):
    heads = heads_for(make_config(task="heads"))
    features = torch.rand(4, 6)
    for logits, layer in zip(heads(features).logits, heads.layers, strict=True):
        torch.testing.assert_close(logits, features @ layer.weight.T + layer.bias)


def test_two_hidden_layers_with_dropout_between_stand_before_the_heads(make_config):
    heads = heads_for(make_config(model={"hidden": 5, "dropout": 0.3}))
    assert kinds(heads.trunk) == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"]
    assert [tuple(heads.trunk[index].weight.shape) for index in (0, 3)] == [(5, 6), (5, 5)]
    assert heads.layers[0].weight.shape == (18, 5) and heads.trunk[2].p == heads.dropout.p == 0.3


def test_the_neck_normalises_features_before_all_else(make_config):
    heads = heads_for(make_config(model={"neck": "batchnorm", "hidden": 5}))
    assert kinds(heads.trunk)[:2] == ["BatchNorm1d", "Linear"]
    features = torch.randn(50, 6) * 3 + 7
    normalised = heads.trunk[0](features)
    torch.testing.assert_close(normalised, (features - features.mean(0)) / features.std(0, unbiased=False), rtol=1e-4, atol=1e-4)


def test_dropout_drops_features_in_training_only():
    torch.manual_seed(0)
    heads = Heads(nn.Identity(), [linear([[1.0] * 1000])], dropout=0.3)
    kept = heads(torch.ones(50, 1000)).logits[0].detach() * 0.7 / 1000
    assert float(kept.mean()) == pytest.approx(0.7, abs=0.01)
    assert float(heads.eval()(torch.ones(1, 1000)).logits[0].detach()) == pytest.approx(1000, rel=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 5])
def test_answers_of_several_dropout_masks_are_averaged_in_training(samples):
    torch.manual_seed(0)
    layers, number = [nn.Linear(20, 3), nn.Linear(20, 2)], Number(20, 5.0, 2.0)
    several, one = (Heads(nn.Identity(), layers, number, dropout=0.4, samples=count) for count in (samples, 1))
    features = torch.rand(7, 20)
    torch.manual_seed(1)
    averaged = several(features)
    torch.manual_seed(1)
    answers = [one(features) for _ in range(samples)]
    for head in range(2):
        torch.testing.assert_close(averaged.logits[head], torch.stack([answer.logits[head] for answer in answers]).mean(0))
    torch.testing.assert_close(averaged.number, torch.stack([answer.number for answer in answers]).mean(0))
    assert samples == 1 or not torch.equal(answers[0].number, answers[1].number)


def test_several_dropout_masks_are_one_plain_pass_at_inference():
    layer = nn.Linear(20, 3)
    heads = Heads(nn.Identity(), [layer], dropout=0.4, samples=5).eval()
    features = torch.rand(7, 20)
    assert torch.equal(heads(features).logits[0], layer(features))


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_a_head_of_cosines_sees_directions_alone(seed):
    torch.manual_seed(seed)
    head = Cosine(8, 4, scale=30.0)
    features = torch.randn(5, 8)
    expected = [[30 * float(torch.cosine_similarity(one, weight, dim=0).detach()) for weight in head.weight] for one in features]
    torch.testing.assert_close(head(features), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head(features * 7), head(features))
    assert [name for name, _ in head.named_parameters()] == ["weight"]


@pytest.mark.parametrize("make", [lambda: Cosine(8, 4, 30.0), lambda: Ordinal(8, 4)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fine_heads_answer_in_full_precision_whatever_the_features_are(make, dtype):
    torch.manual_seed(0)
    head = make()
    features = torch.randn(5, 8).to(dtype)
    with torch.autocast("cpu", dtype):
        inside = head(features)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, head(features.float()))


@pytest.mark.parametrize("loss", ["arcface", "cosface", "ldam"])
def test_margin_losses_have_heads_of_cosines_at_their_scale(make_config, loss):
    heads = heads_for(make_config(task="heads", loss={"name": loss, "scale": 12.0}))
    assert kinds(heads.layers) == ["Cosine"] * 3 and {layer.scale for layer in heads.layers} == {12.0}


def test_coral_changes_the_heads_of_an_ordinal_attribute_alone(make_config):
    assert kinds(heads_for(make_config(task="heads", loss={"ordinal": "coral"})).layers) == ["Linear", "Linear", "Ordinal"]
    mixed = make_config(task=[["mask", "gender"], ["age"]], loss={"ordinal": "coral", "name": "arcface"})
    assert kinds(heads_for(mixed).layers) == ["Cosine", "Ordinal"]
    assert kinds(heads_for(make_config(task="joint", loss={"ordinal": "coral"})).layers) == ["Linear"]


def test_a_number_that_decides_the_class_learns_from_its_distance_alone(make_config):
    heads = heads_for(make_config(task="heads", loss={"ordinal": "number", "regression": 0.1}))
    assert kinds(heads.layers) == ["Linear", "Linear", "Cuts"]
    features = torch.randn(6, heads.number.layer.in_features, requires_grad=True)
    answer = heads(features)
    assert answer.logits[2].shape == (6, 3) and not answer.logits[2].requires_grad and answer.number.requires_grad
    torch.testing.assert_close(answer.logits[2], heads.cuts(answer.number.detach()))
    assert heads.eval()(features).logits[2].requires_grad, "a heat map asks what it depends on"


def ordinal_head(classes: int, seed: int, spread: float = 2.0) -> Ordinal:
    """A head over one feature, which is the score."""
    head = Ordinal(1, classes)
    nn.init.ones_(head.score.weight)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.first.copy_(torch.randn(1, generator=generator) * spread)
        head.distances.copy_(torch.randn(classes - 2, generator=generator) * spread)
    return head


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_probabilities_of_ordered_classes_are_differences_of_sigmoids(classes, seed):
    head = ordinal_head(classes, seed)
    scores = torch.linspace(-8, 8, 33)
    logits = head(scores[:, None]).detach()
    thresholds = head.thresholds().detach().double().numpy()
    beyond = 1 / (1 + np.exp(thresholds - scores.double().numpy()[:, None]))
    beyond = np.concatenate([np.ones((33, 1)), beyond, np.zeros((33, 1))], axis=1)
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), beyond[:, :-1] - beyond[:, 1:], atol=1e-6)
    np.testing.assert_allclose(logits.logsumexp(dim=1).numpy(), 0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("spread", [0.0, 2.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_ordered_classes_never_answer_with_no_number(classes, spread, dtype):
    for seed in range(10):
        head = ordinal_head(classes, seed, spread)
        scores = torch.linspace(-50, 50, 101).to(dtype)[:, None].requires_grad_()
        logits = head(scores)
        assert logits.dtype == torch.float32 and logits.isfinite().all()
        # As a loss would: the gradient of the least likely class counts too.
        logits.sum().backward()
        found = [scores.grad, *(parameter.grad for parameter in head.parameters())]
        assert all(gradient.isfinite().all() for gradient in found)
        assert head.thresholds().diff().gt(0).all()


def test_thresholds_begin_one_apart_around_zero():
    for classes in (2, 3, 6):
        expected = [index - (classes - 2) / 2 for index in range(classes - 1)]
        torch.testing.assert_close(Ordinal(1, classes).thresholds(), torch.tensor(expected), atol=2e-2 * classes, rtol=0)


def test_ordered_classes_learn_their_thresholds_from_a_score():
    torch.manual_seed(0)
    numbers = torch.rand(400, 1) * 90
    classes = torch.bucketize(numbers[:, 0], torch.tensor([30.0, 60.0]), right=True)
    head = Ordinal(1, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head((numbers - 45) / 26), classes).backward()
        optimizer.step()
    with torch.no_grad():
        learnt = 45 + 26 * head.thresholds() / head.score.weight.squeeze()
    assert learnt.tolist() == pytest.approx([30, 60], abs=2)


def test_a_number_is_a_linear_function_on_the_scale_of_what_it_predicts():
    number = Number(2, mean=40.0, std=10.0)
    number.layer.weight.data, number.layer.bias.data = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
    answered = number(torch.tensor([[0.0, 0.0], [3.0, 1.0]]))
    assert answered.tolist() == [45.0, 55.0] and set(number.state_dict()) == {"mean", "std", "layer.weight", "layer.bias"}
    with torch.autocast("cpu", torch.bfloat16):
        assert number(torch.zeros(1, 2)).dtype == torch.float32
