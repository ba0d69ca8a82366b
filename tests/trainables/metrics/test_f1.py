import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from trainables.data.layouts.contest import contest_scheme
from trainables.metrics.f1 import (
    accuracy,
    attribute_f1,
    bootstrap_f1,
    class_f1,
    confusion,
    f1_interval,
    interval,
    macro_f1,
    person_counts,
)

SEEDS = range(50)
SCHEME = contest_scheme((30, 60))


def draw(seed: int, classes: int = 18, photos: int | None = None):
    """True and predicted classes of photos, some classes absent from one or from both."""
    rng = np.random.default_rng(seed)
    photos = photos or int(rng.integers(1, 200))
    some = rng.permutation(classes)[: rng.integers(1, classes + 1)]
    truth = rng.choice(some, size=photos)
    return truth, np.where(rng.random(photos) < 0.6, truth, rng.integers(classes, size=photos))


def slow_f1(truth, predicted, classes: int) -> float:
    return f1_score(truth, predicted, average="macro", labels=range(classes), zero_division=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_macro_f1_accuracy_and_confusion_equal_scikit_learns(seed):
    truth, predicted = draw(seed)
    counts = confusion(truth, predicted, 18)
    np.testing.assert_array_equal(counts, confusion_matrix(truth, predicted, labels=range(18)))
    assert macro_f1(counts) == pytest.approx(slow_f1(truth, predicted, 18), abs=1e-12)
    assert accuracy(counts) == pytest.approx(accuracy_score(truth, predicted))


def test_a_class_absent_from_the_truth_counts_as_0():
    everything, one_less = np.arange(18), np.arange(17)
    assert macro_f1(confusion(everything, everything, 18)) == 1
    assert macro_f1(confusion(one_less, one_less, 18)) == pytest.approx(17 / 18)
    assert class_f1(confusion(one_less, one_less, 18)).tolist() == [1.0] * 17 + [0.0]


def test_no_photos_score_0():
    nothing = np.zeros((18, 18), int)
    assert macro_f1(nothing) == accuracy(nothing) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_attribute_f1_is_the_macro_f1_of_each_attribute_by_itself(seed):
    truth, predicted = draw(seed)
    found = attribute_f1(SCHEME, truth, predicted)
    assert list(found) == ["mask", "gender", "age"]
    labels = {"mask": lambda c: c // 6, "gender": lambda c: c // 3 % 2, "age": lambda c: c % 3}
    for name, size in zip(SCHEME.names, SCHEME.sizes, strict=True):
        assert found[name] == pytest.approx(slow_f1(labels[name](truth), labels[name](predicted), size), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_counts_per_person_are_the_confusion_of_each_persons_photos(seed):
    truth, predicted = draw(seed, classes=6)
    people = np.random.default_rng(seed).choice([7, 3, 1000, 12], size=len(truth))
    counts = person_counts(truth, predicted, people, 6)
    for row, person in zip(counts, np.unique(people), strict=True):
        np.testing.assert_array_equal(row, confusion(truth[people == person], predicted[people == person], 6))
    np.testing.assert_array_equal(counts.sum(axis=0), confusion(truth, predicted, 6))


@pytest.mark.parametrize("seed", range(10))
def test_the_bootstrap_equals_a_slow_one_with_the_same_draws(seed):
    truth, predicted = draw(seed, classes=4, photos=60)
    people = np.repeat(np.arange(12), 5)
    fast = bootstrap_f1(person_counts(truth, predicted, people, 4), np.random.default_rng(seed), draws=20)
    drawn = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=20)
    for score, times in zip(fast, drawn, strict=True):
        photos = np.concatenate([np.flatnonzero(people == person) for person in np.repeat(np.arange(12), times)])
        assert score == pytest.approx(slow_f1(truth[photos], predicted[photos], 4), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_several_answers_are_scored_on_the_same_people(seed):
    people = np.repeat(np.arange(12), 5)
    counts = np.stack([person_counts(*draw(2 * seed + other, classes=4, photos=60), people, 4) for other in (0, 1)])
    together = bootstrap_f1(counts, np.random.default_rng(seed), draws=20)
    assert together.shape == (2, 20)
    np.testing.assert_array_equal(together, [bootstrap_f1(one, np.random.default_rng(seed), draws=20) for one in counts])


def slow_standard_error(counts):
    """Of the macro F1 of people (people, classes, classes), from what little more of one of them changes."""
    total, step = counts.sum(axis=0).astype(float), 1e-5
    changes = [(macro_f1(total + step * one) - macro_f1(total - step * one)) / (2 * step) for one in counts]
    return np.sqrt(np.sum(np.square(changes)))


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_a_score_equals_a_slow_studentised_bootstrap(seed):
    truth, predicted = draw(seed, classes=4, photos=200)
    counts = person_counts(truth, predicted, np.repeat(np.arange(40), 5), 4)
    score, error = macro_f1(counts.sum(axis=0)), slow_standard_error(counts)
    distances = []
    for times in np.random.default_rng(seed).multinomial(40, np.full(40, 1 / 40), size=50):
        drawn = np.repeat(counts, times, axis=0)
        distances.append((macro_f1(drawn.sum(axis=0)) - score) / max(slow_standard_error(drawn), error / 4))
    low, high = np.percentile(distances, [2.5, 97.5])
    expected = (max(score - high * error, 0), min(score - low * error, 1))
    assert f1_interval(counts, np.random.default_rng(seed), draws=50) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("score", [0, 1])
def test_an_answer_that_is_always_right_or_always_wrong_has_no_width(score):
    truth = np.repeat(np.arange(3), 20)
    counts = person_counts(truth, truth if score else (truth + 1) % 3, np.repeat(np.arange(30), 2), 3)
    assert f1_interval(counts, np.random.default_rng(0)) == (score, score)


@pytest.mark.parametrize("mistakes", [1, 2, 5])
def test_few_mistakes_leave_a_short_interval_below_1(mistakes):
    truth = np.repeat(np.arange(3), 70)
    predicted = np.where(np.arange(210) < mistakes, 1, truth)
    low, high = f1_interval(person_counts(truth, predicted, np.repeat(np.arange(105), 2), 3), np.random.default_rng(0))
    assert 0.85 < low < macro_f1(confusion(truth, predicted, 3)) < high <= 1


@pytest.mark.parametrize("seed", range(20))
def test_the_intervals_cover_the_point_estimate_and_narrow_with_more_people(seed):
    widths = []
    for size in (40, 640):
        rng = np.random.default_rng(seed)
        truth = rng.integers(3, size=7 * size)
        predicted = np.where(rng.random(7 * size) < 0.8, truth, rng.integers(3, size=7 * size))
        counts = person_counts(truth, predicted, np.repeat(np.arange(size), 7), 3)
        found = np.array([interval(bootstrap_f1(counts, rng)), f1_interval(counts, rng)])
        assert (found[:, 0] < macro_f1(counts.sum(axis=0))).all() and (found[:, 1] > macro_f1(counts.sum(axis=0))).all()
        widths.append(found[:, 1] - found[:, 0])
    assert (widths[1] < widths[0] / 2).all()


def test_photos_of_one_person_are_no_independent_evidence():
    truth = np.repeat(np.arange(40) % 2, 7)
    predicted = np.where(np.repeat(np.random.default_rng(0).random(40) < 0.7, 7), truth, 1 - truth)
    alone, together = (
        np.std(bootstrap_f1(person_counts(truth, predicted, people, 2), np.random.default_rng(0)))
        for people in (np.arange(280), np.repeat(np.arange(40), 7))
    )
    assert together > 2 * alone


def test_the_interval_is_the_middle_95_percent():
    assert interval(np.arange(1001.0)) == (25.0, 975.0)
