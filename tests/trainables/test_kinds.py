"""Tags and numbers from the images to the record of a trial, alone and beside classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainables.conftest import thinned
from trainables.build import build_parts
from trainables.checkpoint import load_model
from trainables.data.images import Images, read_descriptions, strata_of
from trainables.data.settings import DataConfig
from trainables.data.splits import read_split, split_groups, split_table
from trainables.data.targets import Number, Scheme, Tags
from trainables.data.training import Data, training_images
from trainables.loop import fit, predict
from trainables.metrics import METRICS_OF, metric_of
from trainables.record import read_predictions, trial_folder
from trainables.registry import ConfigError
from trainables.trial import Job, train
from trainables.validation import validation_interval

SCENE = Tags("scene", ("worn", "female", "old, or not"))
YEARS = Number("years")
SIDES = {"holdout": 0.2, "folds": 2}
KINDS = {"tags": (SCENE,), "number": (YEARS,), "tags and number": (SCENE, YEARS)}


def with_targets(images: Images, targets: tuple) -> Images:
    """The demo's images with these in place of its age, or of all its classes where there are none."""
    tags = np.stack([images.labels[:, 0] == 0, images.labels[:, 1] == 1, images.labels[:, 2] == 2], axis=1)
    classes = [target for target in images.scheme.targets if target in targets]
    labels = images.labels[:, images.scheme.columns(tuple(target.name for target in classes))]
    numbers = images.numbers if YEARS in targets else None
    return replace(images, scheme=Scheme(targets), labels=labels, tags=tags if SCENE in targets else None, numbers=numbers)


@pytest.fixture(params=[*KINDS, "all three"])
def kinds(request, data) -> Data:
    targets = KINDS.get(request.param, (data.images.scheme.targets[0], SCENE, YEARS))
    images = with_targets(data.images, targets)
    return replace(data, images=images, split=split_groups(images, DataConfig(**SIDES), seed=0))


def test_what_is_true_of_an_image_comes_back_from_its_description(kinds):
    images = kinds.images
    for found, own in zip(read_descriptions(images.described(), images.scheme), (images.labels, images.tags, images.numbers), strict=True):
        np.testing.assert_array_equal(found, own) if own is not None else None
        assert (found is None) == (own is None)


def test_a_split_is_that_of_its_table_and_another_truth_makes_another_split(kinds):
    images, split = kinds.images, kinds.split
    digests = dict.fromkeys(images.ids, "0" * 16)
    table = split_table(images, split, digests)
    again = read_split(table, images, digests, split.fold)
    assert again.hash == split.hash and (again.part == split.part).all()
    changed = replace(images, tags=~images.tags) if images.tags is not None else replace(images, numbers=images.numbers + 1)
    with pytest.raises(ValueError, match="of another class"):
        read_split(table, changed, digests, split.fold)


def test_every_part_of_a_split_has_its_share_of_every_tag(data):
    images = with_targets(data.images, (SCENE,))
    split = split_groups(images, DataConfig(**SIDES), seed=0)
    whole = images.tags.mean(axis=0)
    for part in (split.train, split.valid, split.holdout):
        assert np.abs(images.tags[part].mean(axis=0) - whole).max() < 0.15


def test_strata_are_the_rarest_tag_of_an_image_and_the_fifths_of_numbers():
    tags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]], bool)
    assert len(set(strata_of(tags).tolist())) == 4 and strata_of(tags)[3] == strata_of(tags)[4]
    assert np.bincount(strata_of(np.arange(100.0))).tolist() == [20] * 5


def test_heads_are_taught_what_is_true(kinds, make_config):
    task_images = kinds.images
    taught = training_images(make_config().labels, kinds, build_parts(make_config(metric=default(kinds)), kinds, torch.device("cpu")).task)
    rows = kinds.split.train
    shapes = {"classes": (len(rows),), "tags": (len(rows), 3), "number": (len(rows), 1)}
    assert [target.shape for target in taught.targets] == [shapes[kind] for kind in task_images.scheme.kinds]


def default(data: Data) -> str:
    return {"classes": "f1_macro", "tags": "average_precision", "number": "neg_mean_absolute_error"}[data.images.scheme.kinds[0]]


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_a_trial_learns_and_is_recorded_and_its_weights_answer_as_its_record_says(kinds, small_batches, tmp_path, mix):
    kinds = thinned(kinds)
    mixing = {"name": mix} if mix == "none" else {"name": mix, "prob": 1.0}
    config = small_batches(metric=default(kinds), epochs=2, mix=mixing)
    reports = []
    train(0, config, Job(tmp_path / "run", kinds, "0.1+test", threads=1), report=reports.append)
    assert len(reports) == 2 and all(np.isfinite(report["train_loss"]) for report in reports)
    folder = trial_folder(tmp_path / "run", 0)
    found = read_predictions(folder)
    metric = metric_of(config.metric, kinds.images.scheme)
    model, card = load_model(folder / "model.safetensors", torch.device("cpu"))
    assert card.scheme == kinds.images.scheme
    parts = build_parts(config, kinds, torch.device("cpu"))
    answered = predict(model, [torch.from_numpy(parts.validation.view[parts.validation.rows])], torch.device("cpu"), torch.float32)
    for head, recorded in zip(answered, found.heads, strict=True):
        np.testing.assert_allclose(head, recorded, atol=1e-4)
    score = metric.score(parts.validation.truth, card.task.answer(found.heads, metric.target))
    assert max(report["score"] for report in reports) == pytest.approx(score, abs=1e-9)
    low, high = validation_interval(config, found, kinds.images, kinds.split)
    assert low <= score <= high


@pytest.mark.parametrize("name", [*METRICS_OF["tags"], *METRICS_OF["number"]])
def test_every_metric_of_tags_and_numbers_scores_an_epoch(data, small_batches, name):
    images = with_targets(data.images, (SCENE, YEARS))
    data = thinned(replace(data, images=images, split=split_groups(images, DataConfig(**SIDES), seed=0)))
    config = small_batches(metric=name, epochs=1)
    (epoch,) = fit(build_parts(config, data, torch.device("cpu")), config.train, epochs=1, seed=0)
    target = images.scheme.of_kind(metric_of(name, images.scheme).target)
    assert np.isfinite(epoch.report.score) and tuple(epoch.report.target_scores) == target.names


def test_a_number_is_predicted_in_its_own_units(data, make_config):
    images = with_targets(data.images, (YEARS,))
    data = replace(data, images=images, split=split_groups(images, DataConfig(**SIDES), seed=0))
    config = make_config(metric="neg_mean_absolute_error", epochs=6)
    *_, epoch = fit(build_parts(config, data, torch.device("cpu")), config.train, epochs=6, seed=0)
    spread = np.abs(images.numbers - images.numbers.mean()).mean()
    assert -1.6 * spread < epoch.report.score < 0


@pytest.mark.parametrize(("targets", "name"), [((SCENE,), "quadratic_kappa"), ((YEARS,), "f1_macro"), ((SCENE,), "r2")])
def test_a_metric_of_another_kind_is_refused_with_those_there_are(data, make_config, targets, name):
    images = with_targets(data.images, targets)
    with pytest.raises(ConfigError) as caught:
        build_parts(make_config(metric=name), replace(data, images=images), torch.device("cpu"))
    (mistake,) = caught.value.mistakes
    assert mistake.path == "run/metric" and name in mistake.message
    assert all(one in mistake.message for one in METRICS_OF[targets[0].kind])
