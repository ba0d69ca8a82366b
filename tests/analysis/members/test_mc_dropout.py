from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from analysis.members.mc_dropout import dropout_layers, dropping, has_passes, pass_number, passes, spread
from analysis.members.predictions import TrialModels, load_once, predict_transforms
from analysis.members.trials import load_runs
from trainables.data.views import View

CPU = torch.device("cpu")
DROPPING = {"backbone": "test_efficientnet", "weights": "none", "dropout": 0.5, "hidden": 16, "neck": "batchnorm"}


class Shown:
    """Random images, in memory."""

    def __init__(self, count: int, chosen: slice = slice(None)):
        self.images = np.random.default_rng(0).integers(256, size=(count, 32, 32, 3), dtype=np.uint8)[chosen]
        self.ids = [str(number) for number in range(len(self.images))]

    def seen(self, view: View):
        return self.images, np.arange(len(self.images))


@pytest.fixture(scope="module")
def trial(make_run, tmp_path_factory) -> TrialModels:
    """A trial whose hidden layers and heads have dropout."""
    made = make_run(tmp_path_factory.mktemp("runs"), "dropping", [{"model": DROPPING}])
    return TrialModels.of(load_runs([made.folder]).trials[0])


def predicted(trial, images, looks, batch=64):
    found = predict_transforms([replace(trial, largest_pass=batch)], images, CPU, looks)
    return {look: one[trial.name] for look, one in found.items()}


def test_names_of_passes_stand_beside_those_of_transforms():
    assert passes(2) == ("dropout 1", "dropout 2") and [*map(pass_number, passes(12))] == [*range(1, 13)]
    assert not any(map(pass_number, ("plain", "flip", "dropout 0", "dropout", "dropout 1x")))
    assert has_passes(("plain", "dropout 3")) and not has_passes(("plain", "flip"))


def test_a_pass_is_the_same_again_and_for_any_batch_and_other_passes_differ(trial):
    images, looks = Shown(10), ("plain", *passes(3))
    found = predicted(trial, images, looks)
    again = predicted(trial, images, looks)
    for look in looks:
        np.testing.assert_array_equal(found[look], again[look])
        for batch in (3, 5):
            np.testing.assert_allclose(predicted(trial, images, [look], batch)[look], found[look], rtol=1e-5)
        np.testing.assert_allclose(predicted(trial, Shown(10, slice(6, 9)), [look])[look], found[look][6:9], rtol=1e-5)
        assert sum(np.allclose(found[look], found[other]) for other in looks) == 1
    np.testing.assert_array_equal(found["plain"], predicted(trial, images, ["plain"])["plain"])


@pytest.mark.parametrize(
    "layer, shape", [(nn.Dropout(0.3), (4, 2000)), (nn.Dropout(0.3), (4, 40, 50)), (nn.Dropout2d(0.3), (4, 2000, 2, 3))], ids=str
)
def test_units_or_whole_channels_are_left_out_for_all_images_alike_and_the_rest_makes_up_for_them(layer, shape):
    model = nn.Sequential(layer).eval()
    with torch.inference_mode(), dropping(model, 1):
        seen = model(torch.ones(shape))
    assert torch.equal(seen, seen[:1].expand(shape)) and seen.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (seen == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
    if len(shape) == 4:
        assert torch.equal(seen, seen[:, :, :1, :1].expand(shape))
    assert torch.equal(model(torch.ones(shape)), torch.ones(shape)), "behind the block it is as it was"


def test_all_but_dropout_stays_in_eval_mode(trial):
    model, _ = load_once(trial.models[0], CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode(), dropping(model, 1):
        model(torch.rand(4, 3, 32, 32) * 255)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [*dropout_layers(model)] == ["heads.trunk.3", "heads.dropout"]


@pytest.mark.parametrize("number", [1, 7])
def test_a_pass_is_what_a_network_without_those_units_answers(trial, number):
    model, _ = load_once(trial.models[0], CPU)
    images = torch.rand(4, 3, 32, 32) * 255
    with torch.inference_mode():
        with dropping(model, number):
            (found,) = model(images).logits
            kept = model.heads.dropout(torch.ones(1, 16)) != 0
        with dropping(model, number):
            features = model.heads.trunk(model.features(images))
        layer = model.heads.layers[0]
        expected = 2 * features[:, kept[0]] @ layer.weight[:, kept[0]].T + layer.bias
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_spread_of_passes_is_their_mutual_information_or_their_deviation(seed):
    answers = np.random.default_rng(seed).dirichlet(np.full(4, 0.3), size=(5, 7))
    expected = entropy(answers.mean(axis=0), axis=-1) - entropy(answers, axis=-1).mean(axis=0)
    np.testing.assert_allclose(spread(answers, "classes"), expected, atol=1e-12)
    assert (spread(np.repeat(answers[:1], 3, axis=0), "classes") < 1e-12).all(), "passes that agree, however unsure"
    sure = np.zeros((2, 1, 2))
    sure[[0, 1], 0, [0, 1]] = 1
    assert spread(sure, "classes") == pytest.approx(np.log(2)) and spread(sure, "tags") == pytest.approx(2 * np.log(2))
    numbers = 40 + answers[..., :1]
    np.testing.assert_array_equal(spread(numbers, "number"), numbers[..., 0].std(axis=0))
