import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from trainables.averaging import moving_average
from trainables.build import build_parts
from trainables.card import Card
from trainables.checkpoint import pack_model, pack_progress, unpack_progress
from trainables.loop import fit

CPU = torch.device("cpu")


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def stir(model: nn.Module, seed: int) -> None:
    """Change weights and statistics as a training step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    model.train()(torch.randn(8, 4, generator=generator))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_the_average_follows_weights_and_statistics_with_a_decay_that_climbs_to_its_value(decay):
    model = network(0)
    average = moving_average(model, decay)
    expected = None
    for step in range(30):
        stir(model, step)
        average.update_parameters(model)
        now = {name: value.double().numpy() for name, value in model.state_dict().items()}
        keep = min(decay, (1 + step) / (10 + step))
        # The first step stands alone: what was before it has no part in the average.
        expected = now if expected is None else {name: keep * expected[name] + (1 - keep) * value for name, value in now.items()}
    for name, value in average.module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 30
        else:
            np.testing.assert_allclose(value.numpy(), expected[name], rtol=1e-4, atol=1e-5)


def test_an_average_of_weights_that_stand_still_is_those_weights_bitwise():
    model = network(1)
    average = moving_average(model, 0.99)
    for _ in range(20):
        average.update_parameters(model)
    assert all(torch.equal(value, average.module.state_dict()[name]) for name, value in model.state_dict().items())


def test_following_leaves_the_model_itself_alone():
    model = network(2)
    average = moving_average(model, 0.9)
    for step in range(3):
        stir(model, step)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        average.update_parameters(model)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_average_is_what_a_trial_validates_and_its_checkpoint_holds(data, make_config):
    config = make_config(epochs=1, train={"ema": 0.9})
    parts, plain = build_parts(config, data, CPU), build_parts(make_config(epochs=1), data, CPU)
    [epoch] = fit(parts, config.train, epochs=1, seed=0)
    [without] = fit(plain, config.train, epochs=1, seed=0)
    for one, other in zip(parts.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)  # what is trained is the same
    assert parts.evaluated is parts.average.module and plain.evaluated is plain.model
    assert not np.array_equal(epoch.probabilities[0], without.probabilities[0])
    with torch.no_grad():
        images = torch.from_numpy(parts.validation.view[parts.validation.rows]).permute(0, 3, 1, 2).float()
        expected = parts.average.module.eval()(images).logits[0].softmax(dim=1)
    np.testing.assert_allclose(epoch.probabilities[0], expected, atol=1e-5)
    kept = load(pack_model(parts.evaluated, Card(config, data.images.scheme, 1)))
    assert kept.keys() == plain.model.state_dict().keys()
    assert all(torch.equal(value, parts.average.module.state_dict()[name]) for name, value in kept.items())


def test_a_slow_average_of_the_weights_after_each_step_equals_that_of_a_trial(data, make_config):
    config = make_config(epochs=2, train={"ema": 0.8, "accumulate": 2})
    parts = build_parts(config, data, CPU)
    after = []
    parts.optimizer.register_step_post_hook(lambda *_: after.append(weights(parts.model)))
    list(fit(parts, config.train, epochs=2, seed=0))
    assert len(after) == 6
    expected = after[0]
    for step, now in enumerate(after[1:], start=1):
        keep = min(0.8, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * now
    torch.testing.assert_close(weights(parts.average.module), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stop", [1, 2])
def test_the_average_of_a_trial_that_resumes_is_that_of_an_uninterrupted_one_bitwise(data, make_config, stop):
    config = make_config(epochs=3, train={"ema": 0.9})
    whole, first, second = (build_parts(config, data, CPU) for _ in range(3))
    expected = [epoch.probabilities[0].tobytes() for epoch in fit(whole, config.train, epochs=3, seed=0)]
    epochs = fit(first, config.train, epochs=3, seed=0)
    before = [next(epochs) for _ in range(stop)]
    progress = unpack_progress(pack_progress(first, before[-1].progress), second)
    after = list(fit(second, config.train, epochs=3, seed=0, progress=progress))
    assert [epoch.probabilities[0].tobytes() for epoch in (*before, *after)] == expected
    states = [parts.average.state_dict() for parts in (whole, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
