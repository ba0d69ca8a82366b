"""Linear probes: heads that are fitted at once, as trials and as where training begins; and the cache of features behind them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from tests.trainables.conftest import thinned
from tests.trainables.test_kinds import KINDS, SIDES, default, with_targets
from trainables import features as feature_cache
from trainables import probe
from trainables.build import build_parts
from trainables.checkpoint import load_model
from trainables.data.settings import DataConfig
from trainables.data.splits import split_groups
from trainables.data.view_store import features_folder
from trainables.features import features_of
from trainables.loop import predict
from trainables.probe import ALPHAS, STRENGTHS, answers_of, epochs_of, fit_classes, fit_tags, inner_folds, probe_features
from trainables.record import read_predictions, read_record, trial_folder
from trainables.registry import ConfigError
from trainables.trial import Job, train

CPU = torch.device("cpu")
PROBE = {"heads": "probe", "freeze": "backbone"}


@pytest.fixture(params=["classes", *KINDS])
def kinds(request, data):
    if request.param == "classes":
        return data
    images = with_targets(data.images, KINDS[request.param])
    return replace(data, images=images, split=split_groups(images, DataConfig(**SIDES), seed=0))


@pytest.fixture
def parts_of(make_config):
    """The parts of a probe, fitted."""

    def build(data, **changes):
        parts = build_parts(make_config(**{"model": PROBE, "metric": default(data), **changes}), data, CPU)
        return parts, list(epochs_of(make_config(**{"model": PROBE, "metric": default(data), **changes}), parts))

    return build


def standardised(features):
    train, valid = (one.values.astype(np.float64) for one in features)
    middle, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale < 1e-9] = 1.0
    return (train - middle) / scale, (valid - middle) / scale


def chances(strength, train, ids, valid):
    return LogisticRegression(C=strength, max_iter=300).fit(train, ids).predict_proba(valid)


def test_a_probe_answers_what_scikit_learn_does_on_the_same_features(kinds, parts_of):
    parts, (epoch,) = parts_of(kinds)
    train, valid = standardised(probe_features(parts))
    for kind, target, answer in zip(parts.model.heads.kinds, parts.batches.images.targets, epoch.probabilities, strict=True):
        if kind == "classes":
            present = np.unique(target)
            expected = [np.zeros_like(answer) for _ in STRENGTHS]
            for one, strength in zip(expected, STRENGTHS, strict=True):
                one[:, present] = chances(strength, train, target, valid)
        elif kind == "tags":
            expected = [np.stack([chances(one, train, tag, valid)[:, 1] for tag in target.T], axis=1) for one in STRENGTHS]
        else:
            middle, std = target.mean(), target.std()
            models = [Ridge(alpha=one, solver="cholesky").fit(train, (target[:, 0] - middle) / std) for one in ALPHAS]
            expected = [middle + std * model.predict(valid)[:, None] for model in models]
        tolerance = 1e-5 if kind != "number" else 1e-5 * target.std()
        assert min(np.abs(one - answer).max() for one in expected) < tolerance, "one of the strengths that may be chosen"


def test_a_probe_is_a_trial_of_one_epoch_whose_weights_answer_as_its_record_says(kinds, make_config, tmp_path):
    config = make_config(model=PROBE, metric=default(kinds), epochs=7)
    reports = []
    for number in range(2):
        train(number, config, Job(tmp_path, kinds, "0.1+test", threads=1), report=reports.append)
    first, again = reports
    assert (first["epoch"], first["last"], first["photos"]) == (1, True, len(kinds.split.train)) and np.isfinite(first["train_loss"])
    record = read_record(trial_folder(tmp_path, 0))
    assert (record.result.state, record.result.reason) == ("finished", "fitted its heads to frozen features")
    found = [read_predictions(trial_folder(tmp_path, number)).heads for number in range(2)]
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True)) and first["score"] == again["score"]
    model, card = load_model(record.model, CPU)
    assert card.config == config
    parts = build_parts(config, kinds, CPU)
    answered = predict(model, [torch.from_numpy(parts.validation.view[parts.validation.rows])], CPU, torch.float32)
    for head, recorded in zip(answered, found[0], strict=True):
        np.testing.assert_allclose(head, recorded, atol=1e-4, rtol=1e-4)


def test_a_backbone_that_is_not_frozen_begins_with_the_probes_heads_and_trains_on(few, make_config):
    config = make_config(model={"heads": "probe"}, train={"batch_size": 8, "ema": 0.9}, optimizer={"lr": 1e-9, "weight_decay": 0.0})
    parts, fitted = (build_parts(config, few, CPU) for _ in range(2))
    probe.fit_heads(fitted, probe_features(fitted))
    before = {name: value.clone() for name, value in fitted.model.state_dict().items()}
    assert all(torch.equal(value, fitted.evaluated.state_dict()[name]) for name, value in before.items()), "the average begins there too"
    epochs = list(epochs_of(config, parts))
    assert len(epochs) == config.epochs
    moved = {name: (value - before[name]).abs().max() for name, value in parts.model.named_parameters()}
    assert max(moved.values()) < 1e-6, "and not from somewhere else"
    assert any(moved[name] > 0 for name in moved if name.startswith("backbone."))


def test_a_resumed_trial_goes_on_from_its_state_and_not_from_the_probe(few, make_config):
    config = make_config(model={"heads": "probe"}, train={"batch_size": 8})
    parts = build_parts(config, few, CPU)
    before = [value.clone() for value in parts.model.heads.parameters()]
    epochs = list(epochs_of(config, parts, progress=replace(probe.Progress(), epoch=config.epochs)))
    assert not epochs and all(map(torch.equal, before, parts.model.heads.parameters()))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model": {**PROBE, "hidden": 8}}, "model/hidden"),
        ({"model": {**PROBE, "neck": "batchnorm"}}, "model/neck"),
        ({"model": PROBE, "task": "heads", "loss": {"ordinal": "coral"}}, "loss/ordinal"),
        ({"model": PROBE, "loss": {"name": "arcface"}}, "loss/name"),
        ({"model": PROBE, "loss": {"regression": 0.1}}, "loss/regression"),
    ],
)
def test_heads_that_no_probe_fits_are_refused(data, make_config, changes, path):
    with pytest.raises(ConfigError) as caught:
        build_parts(make_config(**changes), data, CPU)
    assert [mistake.path for mistake in caught.value.mistakes] == [path]


# What the training images lack


@pytest.mark.parametrize("seed", range(3))
def test_classes_without_images_are_never_predicted_and_few_groups_choose_nothing(seed):
    rng = np.random.default_rng(seed)
    features, weights = rng.normal(size=(40, 6)), np.ones(40)
    for present in ([2], [1, 3], [0, 1, 3]):
        ids = rng.choice(present, 40)
        slopes, biases = fit_classes(features, ids, 5, inner_folds(np.arange(40) % 8), weights)
        logits = features @ slopes.T + biases
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert shares[:, present].sum(axis=1).min() > 1 - 1e-5
    assert inner_folds(np.zeros(40, int)) == []
    slopes, biases = fit_tags(features, np.tile([1, 0], (40, 1)), 2, [], weights)
    assert not slopes.any() and biases[0] == -biases[1] == pytest.approx(np.log(41))


def test_a_number_that_is_unknown_of_some_images_is_learned_from_the_others():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    target = features @ [1.0, 2.0, 0.0, -1.0]
    target[::7] = np.nan
    slopes, _ = probe.fit_number(features, target[:, None], 1, inner_folds(np.arange(60)), np.ones(60))
    np.testing.assert_allclose(slopes[0], [1, 2, 0, -1], atol=0.1)


# The cache


@pytest.fixture
def counted(monkeypatch):
    """How often a network went over images."""
    passes = []
    forward = feature_cache._forward
    monkeypatch.setattr(feature_cache, "_forward", lambda *given: passes.append(1) or forward(*given))
    return passes


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVOTE_CACHE", str(tmp_path / "cache"))


def features_in(parts, rows):
    return features_of(parts.model, parts.views[0], rows, CPU, torch.float32).values


def test_features_are_computed_once_for_the_same_images_weights_and_view(data, make_config, own_cache, counted):
    parts = build_parts(make_config(model=PROBE), data, CPU)
    rows = parts.batches.rows[:9]
    first = features_in(parts, rows)
    again = build_parts(make_config(model=PROBE, seed=0, optimizer={"lr": 1.0}), data, CPU)
    assert np.array_equal(features_in(again, rows[::-1]), first[::-1]) and len(counted) == 1
    assert np.array_equal(features_in(parts, np.concatenate([rows, rows[:2]])), np.concatenate([first, first[:2]]))
    other = build_parts(make_config(model=PROBE, seed=1), data, CPU)
    assert not np.array_equal(features_in(other, rows), first) and len(counted) == 2, "other weights"
    features_in(parts, rows[:5])
    assert len(counted) == 3, "other images"


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2], lambda content: flipped(content)])
def test_a_damaged_file_of_features_is_computed_again(data, make_config, own_cache, counted, damage):
    parts = build_parts(make_config(model=PROBE), data, CPU)
    rows = parts.batches.rows[:9]
    first = features_in(parts, rows)
    (file,) = features_folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert np.array_equal(features_in(parts, rows), first) and len(counted) == 2
    assert len(file.read_bytes()) == len(whole)


def flipped(content):
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_cache_that_cannot_be_written_costs_time_only(data, make_config, own_cache, counted):
    features_folder().parent.mkdir(parents=True, exist_ok=True)
    features_folder().write_text("in the way")
    parts = build_parts(make_config(model=PROBE), data, CPU)
    rows = parts.batches.rows[:9]
    assert np.array_equal(features_in(parts, rows), features_in(parts, rows)) and len(counted) == 2


def test_other_folds_and_extra_images_have_their_features(data, make_config):
    few = thinned(data)
    parts = build_parts(make_config(model=PROBE, train={"batch_size": 8}), few, CPU)
    train_features, valid_features = probe_features(parts)
    whole = parts.model.eval()
    with torch.inference_mode():
        for found, rows in ((train_features, parts.batches.rows), (valid_features, parts.validation.rows)):
            images = torch.from_numpy(parts.validation.view[rows]).permute(0, 3, 1, 2).float()
            np.testing.assert_allclose(found.values, whole.features(images).numpy(), atol=1e-4)
    assert [answer.shape for answer in answers_of(parts, valid_features)] == [(len(parts.validation.rows), 18)]


def test_heads_are_fitted_once_for_the_same_features_and_targets_with_the_same_bits(data, make_config, own_cache, monkeypatch):
    fits, fit = [], probe.FITS["classes"]
    monkeypatch.setitem(probe.FITS, "classes", lambda *given: fits.append(1) or fit(*given))

    def weights(**changes) -> np.ndarray:
        parts = build_parts(make_config(model=PROBE, **changes), data, CPU)
        probe.fit_heads(parts, probe_features(parts))
        return probe.linear_of(parts.model.heads.layers[0]).weight.detach().numpy().copy()

    first = weights()
    assert np.array_equal(weights(), first) and len(fits) == 1
    assert not np.array_equal(weights(seed=1), first) and len(fits) == 2, "other weights, other features"

    for file in features_folder().iterdir():
        file.write_bytes(file.read_bytes()[:40])
    assert np.array_equal(weights(), first) and len(fits) == 3, "damaged files are computed again"
