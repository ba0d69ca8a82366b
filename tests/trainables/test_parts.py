from dataclasses import replace

import numpy as np
import pytest
import torch

from trainables.config import ConfigError, Watched
from trainables.data.batches import PhotoError
from trainables.data.views import View, open_view
from trainables.parts import build_parts

CPU = torch.device("cpu")


@pytest.mark.parametrize("task", ["joint", "heads", "gender", [["mask", "age"], ["gender"]]])
def test_training_sees_the_training_photos_only_each_with_the_targets_of_its_task(data, make_config, task):
    parts = build_parts(make_config(task=task), data, CPU)
    train = data.split.train
    assert set(parts.batches.rows) == set(data.photos.rows[train])
    assert not set(parts.batches.rows) & set(data.photos.rows[[*data.split.valid, *data.split.holdout]])
    labels = dict(zip(data.photos.rows[train].tolist(), data.photos.labels[train], strict=True))
    for row, targets in zip(parts.batches.rows.tolist(), parts.batches.targets, strict=True):
        for target, part in zip(targets, parts.task.head_schemes, strict=True):
            assert part.split(target).tolist() == [labels[row][data.photos.scheme.names.index(name)] for name in part.names]


@pytest.mark.parametrize("threads", [0, 2])
def test_every_training_photo_goes_by_its_own_name(data, make_config, threads):
    batches = build_parts(make_config(), data, CPU, threads=threads).batches
    names = dict(zip(data.photos.rows.tolist(), data.photos.ids, strict=True))
    assert list(batches.ids) == [names[row] for row in batches.rows.tolist()]


def with_view(data, file):
    return replace(data, views=dict.fromkeys(data.views, file))


def test_a_view_without_rows_for_all_photos_names_the_first_that_is_missing(data, make_config, tmp_path):
    short = tmp_path / "short.npy"
    np.save(short, open_view(*data.views.values())[:100])
    first = int(np.argmax(data.photos.rows >= 100))
    with pytest.raises(PhotoError) as caught:
        build_parts(make_config(), with_view(data, short), CPU)
    place = f"photo {data.photos.ids[first]} is row {data.photos.rows[first]} of {short}, which has 100 rows"
    missing = int((data.photos.rows >= 100).sum())
    mend = "Delete that file: the next run decodes the photos again."
    assert str(caught.value) == f"{place}; {missing} photos are missing in all. {mend}"


@pytest.mark.parametrize("left", [0, 60, 5000])
def test_a_view_file_that_ends_early_is_named(data, make_config, tmp_path, left):
    cut = tmp_path / "cut.npy"
    [file] = data.views.values()
    cut.write_bytes(file.read_bytes()[:left])
    with pytest.raises(PhotoError, match=rf"^the decoded photos in {cut} cannot be read \(.+\). Delete that file"):
        build_parts(make_config(), with_view(data, cut), CPU)


def test_validation_has_the_true_classes_of_the_validation_photos(data, make_config):
    validation = build_parts(make_config(), data, CPU).validation
    np.testing.assert_array_equal(validation.rows, data.photos.rows[data.split.valid])
    np.testing.assert_array_equal(validation.truth, data.photos.scheme.joint(data.photos.labels)[data.split.valid])


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


def test_a_batch_larger_than_the_training_photos_is_refused(data, make_config):
    with pytest.raises(ConfigError, match=f"train/batch_size: 500 is more than the {len(data.split.train)} training photos; take fewer"):
        build_parts(make_config(train={"batch_size": 500}), data, CPU)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"task": "hat"}, "task"),
        ({"view": {"crop": "middle"}}, "view/crop"),
        ({"mix": {"name": "cutmax"}}, "mix/name"),
        ({"sampler": {"name": "random"}}, "sampler/name"),
        ({"model": {"backbone": "test_efficentnet"}}, "model/backbone"),
        ({"loss": {"name": "fokal"}}, "loss/name"),
        ({"optimizer": {"name": "adamax"}}, "optimizer/name"),
        ({"schedule": {"name": "cosinus"}}, "schedule/name"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_at_its_setting(data, make_config, changes, path):
    with pytest.raises(ConfigError) as caught:
        build_parts(make_config(**changes), data, CPU)
    assert [mistake.path for mistake in caught.value.mistakes] == [path]


@pytest.mark.parametrize(
    ("changes", "used", "unused"),
    [
        ({"loss": {"name": "focal"}}, {"loss/gamma"}, {"loss/smoothing"}),
        ({"loss": {"name": "cross_entropy"}}, {"loss/smoothing"}, {"loss/gamma"}),
        ({"mix": {"name": "none"}}, {"mix/name"}, {"mix/prob", "mix/alpha", "mix/low", "mix/high"}),
        ({"mix": {"name": "mixup"}}, {"mix/prob", "mix/alpha"}, {"mix/low", "mix/high"}),
        ({"optimizer": {"name": "adamw"}}, {"optimizer/lr", "optimizer/weight_decay"}, {"optimizer/momentum"}),
        ({"view": {"crop": "none"}}, {"view/size", "view/crop"}, {"view/fraction"}),
        ({"schedule": {"name": "plateau"}}, {"schedule/patience", "schedule/factor"}, {"schedule/every"}),
        ({"sampler": {"name": "shuffle"}}, {"sampler/name"}, {"sampler/power"}),
    ],
)
def test_a_trial_reads_the_settings_of_what_it_uses_and_no_others(data, make_config, changes, used, unused):
    read = set()
    parts = build_parts(Watched(make_config(**changes), read), data, CPU)
    parts.batches.make_augment()
    assert used <= read and not unused & read
