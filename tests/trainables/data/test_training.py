from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.messages import mistaken
from trainables.config import section
from trainables.data.images import Images
from trainables.data.layouts.contest import contest_scheme
from trainables.data.sampling import build_sampler
from trainables.data.settings import LabelsConfig
from trainables.data.splits import HOLDOUT, Split
from trainables.data.targets import Classes, Scheme, read_task
from trainables.data.training import Data, Extra, TrainingImages, jittered, training_images
from trainables.registry import ConfigError

SCHEME = contest_scheme((30, 60))
TASKS = ("joint", "heads", "age", [["mask", "gender"], ["age"]], [["age", "mask"]])
SEEDS = range(20)

every_task = pytest.mark.parametrize("task", TASKS, ids=str)


def draw_images(rng: np.random.Generator, groups: int) -> Images:
    """Three images of each group, of random gender and years, in random order."""
    years, gender = rng.integers(18, 61, size=groups), rng.integers(2, size=groups)
    group = rng.permutation(np.repeat(np.arange(groups), 3))
    labels = np.stack([rng.integers(3, size=3 * groups), gender[group], np.digitize(years[group], (30, 60))], axis=-1)
    ids = tuple(f"{p}/{index}.jpg" for index, p in enumerate(group))
    return Images(Path("root"), ids, group, labels, SCHEME, numbers=years[group].astype(np.float32))


def draw_data(seed: int, groups: int = 300, extra: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    images = draw_images(rng, groups)
    part = rng.choice([HOLDOUT, 0, 1, 2], size=groups)[images.groups]
    others = tuple(Extra(draw_images(rng, 20), {}) for _ in range(extra))
    return Data(images, Split(part, 0, "hash"), {}, {}, extra=others)


def pseudo(seed: int, count: int = 40) -> Extra:
    """Images with soft labels of which some are sure."""
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet(np.full(18, 0.05), size=count).astype(np.float32)
    index = np.arange(count)
    images = Images(Path("eval"), tuple(f"{i}.jpg" for i in index), index, SCHEME.split(soft.argmax(axis=1)), SCHEME)
    return Extra(images, {}, soft)


def trained(data: Data, task="joint", **settings) -> TrainingImages:
    return training_images(LabelsConfig(**settings), data, read_task(task, SCHEME))


def ages(found: TrainingImages) -> dict[str, int]:
    """The age class that each image is taught, where the task is age alone."""
    return dict(zip(found.ids, found.targets[0].tolist(), strict=True))


def slow_targets(labels: np.ndarray, task) -> list[list[int]]:
    """Per image the class of every head, by mixed radix."""
    rows = []
    for label in labels.tolist():
        row = []
        for head in task.heads:
            number = 0
            for name, value, size in zip(SCHEME.names, label, SCHEME.sizes, strict=True):
                number = number * size + value if name in head else number
            row.append(number)
        rows.append(row)
    return rows


@every_task
@pytest.mark.parametrize("seed", range(5))
def test_the_training_part_trains_with_its_own_labels(task, seed):
    data = draw_data(seed)
    found, images, train = trained(data, task), data.images, data.split.train
    assert found.ids.tolist() == [images.ids[index] for index in train]
    for name in ("groups", "numbers"):
        np.testing.assert_array_equal(getattr(found, name), getattr(images, name)[train])
    assert set(found.source.tolist()) == {0} and set(found.weights.tolist()) == {1.0}
    assert np.stack(found.targets, axis=-1).tolist() == slow_targets(images.labels[train], read_task(task, SCHEME))
    assert len(found) == len(train)


@pytest.mark.parametrize("seed", SEEDS)
def test_removed_ranges_leave_the_training_part_and_that_alone(seed):
    data = draw_data(seed)
    before = (data.images.labels.copy(), data.split.part.copy())
    found = trained(data, remove=[[27, 29], [57, 59]])
    years = dict(zip(data.images.ids, data.images.numbers.tolist(), strict=True))
    stay = [
        name for name in (data.images.ids[index] for index in data.split.train) if not (27 <= years[name] <= 29 or 57 <= years[name] <= 59)
    ]
    assert found.ids.tolist() == stay and len(stay) < len(data.split.train)
    assert (data.images.labels == before[0]).all() and (data.split.part == before[1]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_other_cuts_class_the_training_images_again(seed):
    data = draw_data(seed, extra=1)
    found = trained(data, "age", cuts=[28, 55])
    assert [(years >= 28) + (years >= 55) for years in found.numbers.tolist()] == found.targets[0].tolist()
    assert (data.images.labels[:, 2] == np.digitize(data.images.numbers, (30, 60))).all()


def test_corrected_labels_are_taught_and_those_of_validation_and_holdout_are_not_touched():
    data = draw_data(0)
    other = data.images.labels.copy()
    other[:, 1] = 1 - other[:, 1]
    data = replace(data, relabelled={"mine.csv": other})
    assert trained(data, "gender", relabel="mine.csv").targets[0].tolist() == other[data.split.train, 1].tolist()
    assert trained(data, "gender").targets[0].tolist() == data.images.labels[data.split.train, 1].tolist()


def test_a_corrected_class_stays_whatever_the_number_says_and_the_number_counts_as_unknown():
    data = draw_data(0)
    chosen = data.split.train[data.images.numbers[data.split.train] == 58][0]
    other = data.images.labels.copy()
    other[chosen, 2] = 2
    data = replace(data, relabelled={"mine.csv": other})
    name = data.images.ids[chosen]
    for settings in ({}, {"cuts": [28, 59]}, {"remove": [[57, 59]]}):
        found = trained(data, "age", relabel="mine.csv", **settings)
        assert ages(found)[name] == 2
        assert np.isnan(found.numbers[found.ids == name]).all() and np.isnan(found.numbers).sum() == 1


def test_numbers_are_asked_for_only_where_there_are_some():
    data = draw_data(0)
    scheme = Scheme((*SCHEME.targets[:2], Classes("age", SCHEME.targets[2].values)))
    data = replace(data, images=replace(data.images, numbers=None, scheme=scheme))
    task = read_task("joint", scheme)
    assert np.isnan(training_images(LabelsConfig(), data, task).numbers).all()
    with pytest.raises(ConfigError) as caught:
        training_images(LabelsConfig(cuts=(28, 59), remove=((27, 29),)), data, task)
    assert not mistaken(str(caught.value).splitlines(), [("labels/cuts: ", "number"), ("labels/remove: ", "number")])


def test_another_number_of_cuts_is_refused():
    with pytest.raises(ConfigError, match="labels/cuts: .*3 cuts.*data/cuts has 2"):
        trained(draw_data(0), cuts=[20, 30, 60])


@pytest.mark.parametrize(
    ("settings", "path"),
    [({"remove": [[60, 60]]}, "labels/remove"), ({"cuts": [30, 70]}, "labels/cuts"), ({"relabel": "x"}, "labels/relabel")],
)
def test_settings_that_leave_a_class_without_images_are_refused(settings, path):
    data = draw_data(0)
    labels = data.images.labels.copy()
    labels[:, 2] = np.minimum(labels[:, 2], 1)
    data = replace(data, relabelled={"x": labels})
    with pytest.raises(ConfigError, match=f"{path}: .*>=60"):
        trained(data, "age", **settings)
    assert len(trained(data, "gender", **settings))


def test_weights_go_with_their_images():
    data = draw_data(0)
    data = replace(data, weights=np.random.default_rng(0).random(len(data.images)))
    found = trained(data, remove=[[20, 40]])
    weight_of = dict(zip(data.images.ids, data.weights.tolist(), strict=True))
    assert found.weights.tolist() == [weight_of[name] for name in found.ids]


# Extra images


@every_task
def test_extra_images_train_after_the_own_ones_with_their_labels(task):
    data = draw_data(0, extra=2)
    own, found = trained(replace(data, extra=()), task), trained(data, task)
    assert len(found) == len(own) + 2 * 60
    assert found.take(slice(len(own))).ids.tolist() == own.ids.tolist()
    for source, extra in enumerate(data.extra, start=1):
        chosen = found.take(np.flatnonzero(found.source == source))
        assert chosen.ids.tolist() == list(extra.images.ids)
        assert np.stack(chosen.targets, axis=-1).tolist() == slow_targets(extra.images.labels, read_task(task, SCHEME))
    assert len(trained(data, task, extra=False)) == len(own)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_of_different_sources_are_never_the_same(seed):
    data = draw_data(seed, extra=2)
    data = replace(data, extra=(*data.extra, pseudo(seed)))
    found = trained(data, confidence=0.5)
    sources_of = {}
    for group, source in zip(found.groups.tolist(), found.source.tolist(), strict=True):
        sources_of.setdefault(group, set()).add(source)
    assert all(len(sources) == 1 for sources in sources_of.values())
    for source, images in enumerate((data.images, *(extra.images for extra in data.extra))):
        chosen = found.take(found.source == source)
        group_of = dict(zip(images.ids, images.groups.tolist(), strict=True))
        assert len({(new, group_of[name]) for new, name in zip(chosen.groups.tolist(), chosen.ids, strict=True)}) == len(set(chosen.groups))


@every_task
@pytest.mark.parametrize("seed", range(5))
def test_soft_labels_of_a_head_are_the_sums_over_all_that_it_does_not_predict(task, seed):
    data = replace(draw_data(seed), extra=(pseudo(seed),))
    read, found = read_task(task, SCHEME), trained(data, task, confidence=0.0)
    own, soft = found.take(found.source == 0), found.take(found.source == 1)
    for head, target in enumerate(soft.targets):
        slow = np.zeros_like(target)
        for number, row in enumerate(slow_targets(SCHEME.split(np.arange(18)), read)):
            slow[:, row[head]] += data.extra[0].soft[:, number]
        np.testing.assert_allclose(target, slow, rtol=1e-5)
        assert target.dtype == np.float32
        # Beside soft labels the others are rows that are certain.
        plain = trained(replace(data, extra=()), task).targets[head]
        np.testing.assert_array_equal(own.targets[head], np.eye(target.shape[1])[plain])


@pytest.mark.parametrize("least", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_only_images_with_a_sure_label_train(least):
    data = replace(draw_data(0), extra=(pseudo(0),))
    found = trained(data, confidence=least)
    sure = [name for name, row in zip(data.extra[0].images.ids, data.extra[0].soft, strict=True) if row.max() >= least]
    assert found.ids[found.source == 1].tolist() == sure
    assert found.targets[0].ndim == 2


def test_the_sampler_takes_an_image_with_soft_labels_for_the_most_probable_class_of_the_task():
    data = replace(draw_data(0), extra=(pseudo(0),))
    found = trained(data, "age", confidence=0.0)
    soft = found.take(found.source == 1)
    assert soft.classes.tolist() == soft.targets[0].argmax(axis=1).tolist()


def test_cuts_and_removed_ranges_hold_for_labelled_extra_images_too():
    data = draw_data(0, extra=1)
    found = trained(data, "age", cuts=[28, 59], remove=[[27, 29]])
    extra = found.take(found.source == 1)
    assert 0 < len(extra) < 60 and not ((found.numbers >= 27) & (found.numbers <= 29)).any()
    assert extra.targets[0].tolist() == np.digitize(extra.numbers, (28, 59)).tolist()


def test_extra_images_without_numbers_train_as_they_are():
    data = draw_data(0, extra=1)
    data = replace(data, extra=(replace(data.extra[0], images=replace(data.extra[0].images, numbers=None)),))
    found = trained(data, "age", cuts=[28, 59], remove=[[27, 29]])
    extra = found.take(found.source == 1)
    assert extra.targets[0].tolist() == data.extra[0].images.labels[:, 2].tolist() and np.isnan(extra.numbers).all()


@pytest.mark.parametrize("extra", [(), (pseudo(0),)], ids=["ids", "rows"])
def test_taken_images_keep_all_that_is_known_of_them(extra):
    found = trained(replace(draw_data(0), extra=extra), "heads", confidence=0.0)
    positions = np.random.default_rng(0).integers(len(found), size=30)
    taken = found.take(positions)
    for place, position in enumerate(positions):
        one, same = taken.take(slice(place, place + 1)), found.take(slice(position, position + 1))
        assert all(np.array_equal(getattr(one, name), getattr(same, name)) for name in ("ids", "source", "groups", "classes", "weights"))
        assert all(np.array_equal(target, other) for target, other in zip(one.targets, same.targets, strict=True))


# Jitter


@pytest.mark.parametrize("seed", SEEDS)
def test_only_numbers_at_the_cap_move_and_alike_for_all_images_of_a_group(seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(50), 3))
    numbers = rng.integers(55, 61, size=50)[groups].astype(np.float32)
    numbers[groups == 7] = np.nan
    moved = jittered(numbers, groups, 5.0, np.random.default_rng(seed))
    below = numbers < 60
    np.testing.assert_array_equal(moved[below], numbers[below])
    assert np.isnan(moved[groups == 7]).all() and not np.isnan(moved[groups != 7]).any()
    assert (moved[numbers == 60] >= 60).all() and moved.dtype == np.float32
    assert all(len(set(moved[groups == group].tolist())) == 1 for group in range(50) if group != 7)
    np.testing.assert_array_equal(moved, jittered(numbers, groups, 5.0, np.random.default_rng(seed)))


@pytest.mark.parametrize("mean", [1.0, 5.0, 20.0])
def test_numbers_at_the_cap_move_by_the_mean_that_was_asked_for(mean):
    groups = np.arange(20_000)
    moved = jittered(np.full(20_000, 60.0), groups, mean, np.random.default_rng(0)) - 60
    assert moved.mean() == pytest.approx(mean, rel=0.05) and moved.var() == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize(("task", "classes"), [("age<30", 2), ("age>=60", 2), ([["gender", "age<30"]], 4), ("age", 3)], ids=str)
def test_oversampling_evens_out_the_classes_of_the_trials_own_task(task, classes):
    found = trained(draw_data(0), task)
    taught = found.classes
    sampler = build_sampler(section("sampler", name="oversample"))
    shown = np.bincount(taught[sampler.draw(found, np.random.default_rng(0))])
    assert shown.tolist() == [np.bincount(taught).max()] * classes
