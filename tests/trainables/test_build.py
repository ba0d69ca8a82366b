import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.messages import mistaken
from trainables.build import build_parts
from trainables.data.decoding import read_image
from trainables.data.images import ImageError
from trainables.data.splits import NO_FOLD
from trainables.data.views import View, look, open_view
from trainables.models.backbone import pretrained_statistics
from trainables.registry import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize("task", ["joint", "heads", "gender", [["mask", "age"], ["gender"]]])
def test_training_sees_the_training_images_only_each_with_the_targets_of_its_task(data, make_config, task):
    parts = build_parts(make_config(task=task), data, CPU)
    train, images = data.split.train, parts.batches.images
    assert list(images.ids) == [data.images.ids[index] for index in train]
    for head, part in enumerate(parts.task.head_schemes):
        for labels, target in zip(data.images.labels[train], images.targets[head], strict=True):
            assert part.split(target).tolist() == [labels[data.images.scheme.names.index(name)] for name in part.names]


@pytest.mark.parametrize("threads", [0, 2])
def test_every_training_image_goes_by_its_own_name(data, make_config, threads):
    batches = build_parts(make_config(), data, CPU, threads=threads).batches
    [view], [images] = data.views, batches.views
    for name, row in list(zip(batches.images.ids, batches.rows, strict=True))[::20]:
        np.testing.assert_array_equal(images[row], look(read_image(data.images.root / name), view))


def test_images_that_are_neither_decoded_nor_there_are_named(data, make_config, tmp_path):
    [(view, file)] = data.views.items()
    elsewhere = replace(data, views={view: replace(file, cache=tmp_path / "cache", root=tmp_path)})
    with pytest.raises(ImageError, match=re.escape(str(tmp_path / "cache"))) as caught:
        build_parts(make_config(), elsewhere, CPU)
    assert data.images.ids[0] in str(caught.value)


def test_a_view_that_was_deleted_is_decoded_again(data, make_config, tmp_path):
    [(view, file)] = data.views.items()
    elsewhere = replace(data, views={view: replace(file, cache=tmp_path)})
    again, before = (build_parts(make_config(), one, CPU).batches for one in (elsewhere, data))
    np.testing.assert_array_equal(again.views[0][again.rows], before.views[0][before.rows])


def test_validation_has_the_true_classes_of_the_validation_images(data, make_config):
    validation = build_parts(make_config(), data, CPU).validation
    [file] = data.views.values()
    np.testing.assert_array_equal(validation.rows, open_view(file).rows(data.images.take(data.split.valid).ids))
    np.testing.assert_array_equal(validation.truth, data.images.scheme.joint(data.images.labels)[data.split.valid])


def test_normalisation_is_the_data_sets_where_asked_for(data, make_config):
    model = build_parts(make_config(normalize="dataset"), data, CPU).model
    mean, std = data.statistics[View.of(make_config().view)]
    np.testing.assert_allclose(model.mean.flatten() / 255, mean, rtol=1e-5)
    np.testing.assert_allclose(model.std.flatten() / 255, std, rtol=1e-5)
    np.testing.assert_allclose(build_parts(make_config(), data, CPU).model.mean.flatten() / 255, [0.485, 0.456, 0.406], rtol=1e-5)


def test_the_schedule_counts_optimizer_steps(data, make_config):
    config = make_config(epochs=3, train={"batch_size": 32, "accumulate": 2})
    span = build_parts(config, data, CPU).schedule.span
    assert (span.per_epoch, span.total, span.peak) == (3, 9, config.optimizer.lr)


def without_validation(data):
    return replace(data, split=replace(data.split, fold=NO_FOLD))


def test_without_a_validation_split_all_but_the_holdout_train(data, make_config):
    parts = build_parts(make_config(data={"fold": NO_FOLD}), without_validation(data), CPU)
    assert set(parts.batches.images.ids) == {data.images.ids[index] for index in (*data.split.train, *data.split.valid)}
    assert len(parts.validation.rows) == len(parts.validation.truth) == 0


def test_what_waits_for_scores_is_refused_without_a_validation_split_all_of_it_at_once(data, make_config):
    config = make_config(data={"fold": NO_FOLD}, train={"patience": 3}, schedule={"name": "plateau"})
    with pytest.raises(ConfigError) as caught:
        build_parts(config, without_validation(data), CPU)
    expected = [("train/patience: ", "data/fold -1", "0"), ("schedule/name: plateau ", "data/fold -1")]
    assert not mistaken(str(caught.value).splitlines(), expected)
    build_parts(config, data, CPU)


def test_numbers_are_predicted_only_where_the_loss_asks_for_them(data, make_config):
    with_numbers = build_parts(make_config(loss={"regression": 0.1}), data, CPU)
    without = build_parts(make_config(), data, CPU)
    images = torch.rand(2, 3, 32, 32) * 255
    assert with_numbers.regression == 0.1 and with_numbers.model(images).number.shape == (2,)
    assert without.regression == 0 and without.model(images).number is None


def test_numbers_to_predict_need_a_target_that_is_cut_from_one(data, make_config):
    with pytest.raises(ConfigError, match="^loss/regression: .*number"):
        build_parts(make_config(task="gender", loss={"regression": 0.1}), data, CPU)


def test_a_moving_average_is_kept_only_where_one_is_asked_for(data, make_config):
    assert build_parts(make_config(), data, CPU).average is None
    parts = build_parts(make_config(train={"ema": 0.9}), data, CPU)
    assert parts.evaluated is parts.average.module and parts.evaluated is not parts.model


def test_a_batch_larger_than_the_training_images_is_refused(data, make_config):
    with pytest.raises(ConfigError, match=f"train/batch_size: 500 .* {len(data.split.train)} training images"):
        build_parts(make_config(train={"batch_size": 500}), data, CPU)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"task": "hat"}, "task"),
        ({"model": {"backbone": "test_efficentnet"}}, "model/backbone"),
        ({"optimizer": {"name": "sgd", "nesterov": True, "momentum": 0.0}}, "optimizer/nesterov"),
    ],
)
def test_what_cannot_be_built_is_refused_at_its_setting(data, make_config, changes, path):
    with pytest.raises(ConfigError) as caught:
        build_parts(make_config(**changes), data, CPU)
    assert [mistake.path for mistake in caught.value.mistakes] == [path]


def test_two_backbones_whose_weights_need_other_statistics_are_not_normalised_by_one_of_them(data, make_config):
    pair = {"backbone": "test_resnet", "second": "test_vit"}
    assert pretrained_statistics("test_resnet") == pretrained_statistics("test_vit") == ((0.5,) * 3, (0.5,) * 3)
    model = build_parts(make_config(model=pair, normalize="backbone"), data, CPU).model
    np.testing.assert_allclose(model.mean.flatten(), [127.5] * 3)
    with pytest.raises(ConfigError, match="normalize: test_resnet and mobilenetv3_small_050 "):
        build_parts(make_config(model=pair | {"second": "mobilenetv3_small_050"}, normalize="backbone"), data, CPU)
