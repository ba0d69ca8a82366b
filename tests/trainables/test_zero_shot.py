"""Heads made of texts by a CLIP with random weights: what open_clip itself answers, and what cannot be made."""

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.clips import BACKBONE, TINY, clip, logits_of, saved, tiny_tower
from tests.trainables.test_kinds import KINDS, SIDES, with_targets
from trainables import zero_shot
from trainables.build import build_parts
from trainables.checkpoint import load_model
from trainables.data.settings import DataConfig
from trainables.data.splits import split_groups
from trainables.models.backbone import build_backbone
from trainables.models.clip import HEAD
from trainables.probe import epochs_of
from trainables.record import read_predictions, read_record, trial_folder
from trainables.registry import ConfigError
from trainables.trial import Job, train

CPU = torch.device("cpu")
TEMPLATES = ["a photo of a {class}.", "a drawing of {class}"]
FROZEN = {"backbone": BACKBONE, "heads": "zero_shot", "freeze": "backbone"}


@pytest.fixture(scope="module", autouse=True)
def small():
    with tiny_tower():
        yield


@pytest.fixture(scope="module")
def model():
    return clip(**TINY)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return saved(model, tmp_path_factory.mktemp("clip") / "open_clip_model.pt")


@pytest.fixture
def make(file, make_config):
    """The settings of a zero-shot trial."""

    def settings(model: dict | None = None, **changes):
        return make_config(**{"normalize": "backbone", "model": {**FROZEN, "weights": str(file), **(model or {})}, **changes})

    return settings


def centred(logits):
    return logits - logits.mean(dim=1, keepdim=True)


def answers(parts, images):
    with torch.inference_mode():
        return parts.model.eval()(images).logits


@pytest.mark.parametrize("task", ["joint", "heads"])
def test_logits_are_open_clips_own_but_for_what_all_classes_share(model, data, make, task):
    parts = build_parts(make(task=task, model={"texts": TEMPLATES}), data, CPU)
    images = torch.rand(5, 3, 32, 32) * 255
    normalised = (images - parts.model.mean) / parts.model.std
    own = {
        target.name: centred(
            logits_of(model, normalised, [[one.replace("{class}", value) for one in TEMPLATES] for value in target.values])
        )
        for target in data.images.scheme.targets
    }
    for scheme, logits in zip(parts.task.head_schemes, answers(parts, images), strict=True):
        ids = torch.from_numpy(scheme.split(np.arange(scheme.classes)))
        expected = sum(own[name][:, column] for name, column in zip(scheme.names, ids.T, strict=True))
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.05, "there is something to compare"


@pytest.mark.nightly
def test_a_convnext_of_open_clips_answers_as_it_does_there(data, make, tmp_path):
    other = clip(timm_model_name="convnext_atto", timm_pool="", timm_proj="linear")
    name = data.images.scheme.names[0]
    weights = str(saved(other, tmp_path / "clip.pt"))
    parts = build_parts(make(task=name, model={"backbone": "convnext_atto", "weights": weights, "texts": TEMPLATES}), data, CPU)
    images = torch.rand(3, 3, 32, 32) * 255
    texts = [[one.replace("{class}", value) for one in TEMPLATES] for value in data.images.scheme.targets[0].values]
    expected = logits_of(other, (images - parts.model.mean) / parts.model.std, texts)
    torch.testing.assert_close(centred(answers(parts, images)[0]), centred(expected), atol=1e-4, rtol=1e-4)


def test_openais_approximation_of_gelu_is_that_of_the_backbone(data, make, tmp_path):
    quick = clip(quick_gelu=True, **TINY)
    tower = zero_shot.text_tower(quick.state_dict(), tmp_path, quick=True)
    with torch.inference_mode():
        expected = quick.encode_text(open_clip.tokenize(["a fish"]), normalize=True)
    torch.testing.assert_close(tower.embed(["a fish"]), expected)
    other = zero_shot.text_tower(quick.state_dict(), tmp_path, quick=False)
    assert not torch.allclose(other.embed(["a fish"]), expected, atol=1e-4)


def test_a_class_with_texts_of_its_own_has_those_and_the_others_the_templates(model, data, make):
    first, second, *rest = data.images.scheme.targets[0].values
    name = data.images.scheme.targets[0].name
    own = ["a bare face", "nothing"]
    parts = build_parts(make(task=name, model={"texts": [TEMPLATES[0], [f"{name}={second}", *own]]}), data, CPU)
    images = torch.rand(3, 3, 32, 32) * 255
    texts = [own if value == second else [TEMPLATES[0].replace("{class}", value)] for value in (first, second, *rest)]
    expected = logits_of(model, (images - parts.model.mean) / parts.model.std, texts)
    torch.testing.assert_close(centred(answers(parts, images)[0]), centred(expected), atol=1e-4, rtol=1e-4)


def test_a_file_of_open_clips_gives_its_image_tower_to_any_heads_and_size(data, make):
    of_texts, fitted = (build_parts(make(model={"heads": heads}), data, CPU).model.backbone for heads in ("zero_shot", "probe"))
    assert all(map(torch.equal, of_texts.state_dict().values(), fitted.state_dict().values()))
    larger, features = build_backbone(make().model, (64, 48))
    assert larger(torch.rand(2, 3, 64, 48)).shape == (2, features)


def test_texts_are_read_once_for_the_same_tower_and_texts(data, make, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path / "cache"))
    read, embed = [], zero_shot.TextTower.embed
    monkeypatch.setattr(zero_shot.TextTower, "embed", lambda tower, texts: read.append(texts) or embed(tower, texts))
    first, again = (build_parts(make(task="heads"), data, CPU).model.heads.state_dict() for _ in range(2))
    assert len(read) == len(data.images.scheme.targets) and all(torch.equal(first[name], again[name]) for name in first)
    build_parts(make(task="heads", model={"texts": "{class}"}), data, CPU)
    assert len(read) == 2 * len(data.images.scheme.targets)


def test_the_rest_of_a_trial_draws_what_it_draws_without_texts(data, make):
    torch.manual_seed(3)
    build_parts(make(model={"heads": "random"}), data, CPU)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_parts(make(), data, CPU)
    assert torch.equal(torch.rand(4), expected)


def test_a_zero_shot_trial_has_one_epoch_and_weights_that_answer_as_its_record_says(few, make, tmp_path):
    reports = []
    train(0, make(epochs=7), Job(tmp_path, few, "0.1+test", threads=1), report=reports.append)
    (report,) = reports
    assert (report["epoch"], report["last"]) == (1, True) and np.isfinite(report["train_loss"])
    record = read_record(trial_folder(tmp_path, 0))
    assert (record.result.state, record.result.reason) == ("finished", "made its heads of texts")
    model, card = load_model(record.model, CPU)
    assert card.config == make(epochs=7)
    parts = build_parts(make(epochs=7), few, CPU)
    with torch.inference_mode():
        images = torch.from_numpy(parts.validation.view[parts.validation.rows]).permute(0, 3, 1, 2).float()
        expected = model(images).logits[0].softmax(dim=1).numpy()
    np.testing.assert_allclose(read_predictions(trial_folder(tmp_path, 0)).heads[0], expected, atol=1e-5)


def test_a_backbone_that_is_not_frozen_begins_with_what_texts_say_and_trains_on(few, make):
    config = make(
        model={"freeze": "none"}, train={"batch_size": 8, "ema": 0.9}, optimizer={"lr": 1e-9, "weight_decay": 0.0}, data=SIDES, epochs=1
    )
    parts = build_parts(config, few, CPU)
    before = {name: value.clone() for name, value in parts.model.named_parameters()}
    assert torch.equal(parts.evaluated.heads.layers[0].weight, before["heads.layers.0.weight"]), "the average begins there too"
    assert len(list(epochs_of(config, parts))) == 1
    moved = {name: (value - before[name]).abs().max() for name, value in parts.model.named_parameters()}
    assert 0 < max(moved.values()) < 1e-6 and moved["heads.layers.0.weight"] > 0


# Wrong input


def mistakes_of(config, data):
    with pytest.raises(ConfigError) as caught:
        build_parts(config, data, CPU)
    return [(mistake.path, mistake.message) for mistake in caught.value.mistakes]


@pytest.fixture
def changed(model, tmp_path):
    """The file with some tensors changed, or without those that are None."""

    def write(**tensors):
        state = {name.replace(".", "_"): (name, value) for name, value in model.state_dict().items()}
        kept = {name: tensors.get(key, value) for key, (name, value) in state.items()}
        save_file({name: value.contiguous() for name, value in kept.items() if value is not None}, tmp_path / "changed.safetensors")
        return str(tmp_path / "changed.safetensors")

    return write


def test_a_file_without_a_text_tower_is_named_with_what_is_missing(data, make, changed):
    weights = changed(text_projection=None, logit_scale=None)
    ((path, message),) = mistakes_of(make(model={"weights": weights}), data)
    assert path == "model/weights" and weights in message and "text_projection" in message and "logit_scale" in message


def test_another_text_tower_than_clips_is_refused(data, make, changed):
    ((path, message),) = mistakes_of(make(model={"weights": changed(transformer_resblocks_1_ln_2_bias=None)}), data)
    assert path == "model/weights" and "resblocks.1.ln_2.bias" in message


def test_towers_of_two_widths_are_refused_by_their_widths(data, make, changed):
    ((path, message),) = mistakes_of(make(model={"weights": changed(text_projection=torch.rand(64, 23))}), data)
    assert path == "model/weights" and "24" in message and "23" in message


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_weights_without_a_file_are_refused(data, make, weights):
    ((path, message),) = mistakes_of(make(model={"weights": weights}), data)
    assert path == "model/weights" and weights in message


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_backbone_that_is_no_clip_tower_is_named(data, make, backbone):
    ((path, message),) = mistakes_of(make(model={"backbone": backbone}), data)
    assert path == "model/backbone" and backbone in message


@pytest.mark.nightly
def test_clips_resnets_whose_embeddings_no_matrix_makes_are_refused(data, make, tmp_path):
    weights = str(saved(clip(layers=(3, 4, 6, 3), width=64), tmp_path / "RN50.pt"))
    ((path, message),) = mistakes_of(make(model={"backbone": "resnet50_clip", "weights": weights}), data)
    assert path == "model/backbone" and "resnet50_clip" in message


def test_an_image_tower_of_another_depth_is_refused_by_what_does_not_fit(data, make):
    ((path, message),) = mistakes_of(make(model={"backbone": "test_vit2"}), data)
    assert path == "model/weights" and "missing" in message


@pytest.mark.parametrize("kind", ["tags", "number"])
def test_what_is_no_class_is_refused_by_its_target(data, make, kind):
    images = with_targets(data.images, KINDS[kind])
    other = replace(data, images=images, split=split_groups(images, DataConfig(**SIDES), seed=0))
    (name,) = images.scheme.names
    ((path, message),) = mistakes_of(make(metric="auto"), other)
    assert path == "model/heads" and name in message


def test_all_that_is_wrong_is_said_at_once(data, make, changed, monkeypatch):
    monkeypatch.setattr("trainables.texts.find_spec", lambda name: None)
    model = {
        "backbone": "test_resnet",
        "second": "test_vit",
        "hidden": 8,
        "texts": ["a photo", ["cat", "a cat"]],
        "weights": changed(logit_scale=None),
    }
    found = mistakes_of(make(model=model), data)
    assert [path for path, _ in found] == [
        "model/hidden",
        "model/second",
        "model/texts",
        "model/texts",
        "model/heads",
        "model/weights",
        "model/backbone",
    ]
    assert "pip install open_clip_torch" in found[4][1]


def test_a_text_that_is_longer_than_its_tower_reads_is_refused(data, make):
    ((path, message),) = mistakes_of(make(model={"texts": "{class}" + 77 * " very"}, task=data.images.scheme.names[0]), data)[:1]
    assert path == "model/texts" and "77" in message


# What weights do not tell


def test_every_text_tower_that_open_clip_lays_out_so_has_heads_of_64_channels():
    configs = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    flat = [
        one["text_cfg"]
        for one in configs.values()
        if not one.get("custom_text") and not one["text_cfg"].keys() & {"hf_model_name", "hf_tokenizer_name"}
    ]
    assert len(flat) > 40 and version("open_clip_torch")
    assert all(one["heads"] == one["width"] // HEAD for one in flat)
