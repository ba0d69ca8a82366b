"""Heat maps: what they are of, where they lie on the image, whose count, and that they mean something."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from analysis.evaluation.fitted_ensemble import Pipeline
from analysis.evaluation.heatmaps import evaluated_by, shares_of, whom_to_ask
from analysis.members.compose import Member, Part
from analysis.members.heatmaps import Asked, Place, Question, grad_cam, heat_maps, on_image, output_of
from analysis.members.predictions import Source, wanted_views
from analysis.members.trials import load_runs
from analysis.votes.voting import Mean, Votes
from trainables.data.targets import Classes, Number, Scheme, Tags, Task
from trainables.data.views import View, build_views, look
from trainables.models.assemble import IMAGENET, Classifier
from trainables.models.heads import Heads
from trainables.models.spatial import spatial_layers

SHAPE, SIZE = Classes("shape", ("round", "square")), Classes("size", ("s", "m", "l"))
CPU = torch.device("cpu")


class Blobs(nn.Module):
    """A backbone whose channels are the bright and the dark parts of an image: what its map has to be is plain."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).repeat(1, 3, 1, 1)

    def forward(self, images):
        return torch.relu(self.conv(images)).mean(dim=(2, 3))


def blobs(head: torch.Tensor) -> Classifier:
    """A classifier of the bright and the dark share of an image."""
    layer = nn.Linear(2, len(head), bias=False)
    layer.weight.data = head
    return Classifier(Blobs(), Heads(nn.Identity(), [layer]), IMAGENET).eval()


def test_a_map_lies_where_that_is_which_raises_the_output_and_where_nothing_does_it_is_empty():
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[:, 4:8, 8:12] = 255
    model = blobs(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    layers = spatial_layers(model.backbone, (3, 16, 16))
    (there,) = grad_cam(model, layers, pixels, [lambda outputs: outputs[0]], CPU)
    assert there.shape == (16, 16) and there.max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_array_equal(there > 0.5, pixels[0, :, :, 0] == 255)
    (elsewhere,) = grad_cam(model, layers, pixels, [lambda outputs: outputs[1]], CPU)
    assert elsewhere[5, 9] == 0


def test_of_a_head_of_several_targets_the_logit_of_one_is_what_its_marginal_probability_is_the_softmax_of():
    task = Task(Scheme((SHAPE, SIZE)), (("shape", "size"),))
    logits = torch.randn(task.scheme.classes)
    for target in task.scheme.targets:
        found = torch.stack([output_of(task, Question("", target.name, value))(logits) for value in range(len(target.values))])
        marginal = task.scheme.marginal((target.name,), logits.softmax(0)[None].numpy())[0]
        np.testing.assert_allclose(found.softmax(0).numpy(), marginal, rtol=1e-5)


def test_each_head_has_columns_of_its_own_a_tag_one_and_a_number_one():
    tags, number = Tags("tags", ("a", "b")), Number("weight")
    task = Task(Scheme((SHAPE, SIZE, tags, number)), (("size",), ("tags",), ("weight",), ("shape",)))
    logits = torch.arange(8.0)
    asked = [("size", 2), ("tags", 1), ("weight", 0), ("shape", 0)]
    assert [float(output_of(task, Question("", *one))(logits)) for one in asked] == [2, 4, 5, 6]


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
@pytest.mark.parametrize("crop", ["none", "center"])
def test_on_the_image_a_map_lies_where_its_view_shows_the_image(crop, fit):
    view = View(crop, 0.6 if crop == "center" else 1.0, 32, 48, fit=fit)
    pixels = np.zeros((80, 60, 3), np.uint8)
    pixels[30:42, 20:35] = 255
    seen = look(Image.fromarray(pixels), view)[:, :, 0] / 255
    laid = on_image(seen, view, Place((60, 80), {view: None}), side=80)
    assert laid.shape == (80, 60)
    np.testing.assert_allclose(laid[32:40, 22:33], 1, atol=0.15)
    rim = np.ones((80, 60), bool)
    rim[26:46, 16:39] = False
    assert np.abs(laid[rim]).max() < 0.1


def test_a_trial_counts_as_its_members_do_and_members_of_a_vote_by_heads_count_alike():
    whole, shape, size = Scheme((SHAPE, SIZE)), Scheme((SHAPE,)), Scheme((SIZE,))
    members = (
        Member(whole, (Part("a", whole, whole.names),)),
        Member(whole, (Part("b", shape, ("shape",)), Part("a", whole, ("size",))), advisors=(Part("c", size, ("size",)),)),
    )
    assert shares_of(Pipeline(whole, members, Mean((0.75, 0.25)))) == {"shape": {"a": 0.75, "b": 0.25}, "size": {"a": 1.0}}
    assert shares_of(Pipeline(whole, members, Mean((1.0, 0.0)))) == {"shape": {"a": 1.0}, "size": {"a": 1.0}}
    assert shares_of(Pipeline(whole, members, Votes())) == {"shape": {"a": 0.5, "b": 0.5}, "size": {"a": 1.0}}


@pytest.fixture(scope="module")
def asked(faces, cache):
    """A question to every trial of a run that differ in task, view, backbone and channels, and what they are asked about."""
    runs = load_runs([faces.folder])
    names = [trial.name for trial in runs.trials if "mask" in trial.task.scheme.names]
    questions = [Question(image, "mask", 1) for image in runs.valid.ids[:2]]
    found = whom_to_ask(questions, {"mask": dict.fromkeys(names, 1 / len(names))}, evaluated_by(runs.trials, runs.valid))
    wanted = faces.images.take(np.flatnonzero([name in runs.valid.ids[:2] for name in faces.images.ids]))
    source = Source(build_views(wanted, wanted_views(runs.trials), cache), wanted.ids)
    places = {}
    for name in wanted.ids:
        with Image.open(wanted.root / name) as image:
            places[name] = Place(image.size, dict.fromkeys(wanted_views(runs.trials)))
    return questions, found, source, places


def test_the_map_of_several_models_is_the_mean_of_theirs(asked):
    questions, models, source, places = asked
    assert len(models) == 4
    whole = heat_maps(models, source, places, 48, CPU)
    assert whole.problems == () and set(whole.maps) == set(questions)
    alone = [heat_maps([Asked(one.trial, one.file, dict.fromkeys(one.questions, 1.0))], source, places, 48, CPU) for one in models[:2]]
    pair = heat_maps(models[:2], source, places, 48, CPU).maps[questions[0]]
    assert pair.shape == (48, 36) and pair.max() == pytest.approx(1)
    assert all(one.maps[questions[0]].max() == pytest.approx(1) for one in alone)


def test_a_model_that_is_gone_or_no_model_is_named_and_the_others_count(asked, tmp_path):
    questions, models, source, places = asked
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    bad = [Asked("gone/1", tmp_path / "gone.safetensors", models[0].questions), Asked("broken/2", broken, models[0].questions)]
    found = heat_maps([*bad, models[0]], source, places, 48, CPU)
    assert [problem.split(":")[0] for problem in found.problems] == ["gone/1", "broken/2"] and str(
        tmp_path / "gone.safetensors"
    ) in found.problems[0]
    alone = heat_maps(models[:1], source, places, 48, CPU)
    for question in questions:
        np.testing.assert_allclose(found.maps[question], alone.maps[question], atol=1e-6)
    assert heat_maps(bad, source, places, 48, CPU).maps == {}
