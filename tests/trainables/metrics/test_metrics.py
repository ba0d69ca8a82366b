"""Each metric against scikit-learn's scorer of the same name."""

import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    get_scorer_names,
    hamming_loss,
    log_loss,
    matthews_corrcoef,
    mean_absolute_error,
    mean_absolute_percentage_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
    top_k_accuracy_score,
)

from tests.conftest import nightly_after
from trainables.data.layouts.contest import contest_scheme
from trainables.metrics import METRICS, METRICS_OF, of_labels, probabilities_missing, target_scores
from trainables.metrics.confusion import confusion

SCHEME = contest_scheme((30, 60))
CLASSES = 18
SEEDS = range(30)


def area(truth, probabilities):
    """The mean area over the classes for which it is defined."""
    known = [one for one in range(probabilities.shape[1]) if 0 < (truth == one).sum() < len(truth)]
    return np.mean([roc_auc_score(truth == one, probabilities[:, one]) for one in known]) if known else 0.5


def precision(truth, probabilities):
    """The mean average precision over the classes that some image has."""
    return np.mean([average_precision_score(truth == one, probabilities[:, one]) for one in np.unique(truth)])


def kappa(truth, predicted, classes, weights=None):
    found = cohen_kappa_score(truth, predicted, weights=weights, labels=range(classes))
    return 0.0 if np.isnan(found) else found


SLOW = {
    "f1_macro": lambda t, p: f1_score(t, p.argmax(axis=1), average="macro", labels=range(p.shape[1]), zero_division=0),
    "f1_weighted": lambda t, p: f1_score(t, p.argmax(axis=1), average="weighted", zero_division=0),
    "accuracy": lambda t, p: accuracy_score(t, p.argmax(axis=1)),
    "balanced_accuracy": lambda t, p: balanced_accuracy_score(t, p.argmax(axis=1)),
    "cohen_kappa": lambda t, p: kappa(t, p.argmax(axis=1), p.shape[1]),
    "matthews_corrcoef": lambda t, p: matthews_corrcoef(t, p.argmax(axis=1)),
    "quadratic_kappa": lambda t, p: kappa(t, p.argmax(axis=1), p.shape[1], "quadratic"),
    "neg_brier_score": lambda t, p: -brier_score_loss(t, p, labels=range(p.shape[1]), scale_by_half=False),
    "top_2_accuracy": lambda t, p: top_k_accuracy_score(t, p, k=2, labels=range(p.shape[1])),
    "top_3_accuracy": lambda t, p: top_k_accuracy_score(t, p, k=3, labels=range(p.shape[1])),
    "top_5_accuracy": lambda t, p: top_k_accuracy_score(t, p, k=5, labels=range(p.shape[1])),
    "average_precision": precision,
    "neg_log_loss": lambda t, p: -log_loss(t, p, labels=range(p.shape[1])),
    "roc_auc_ovr": area,
}


def of_every_tag(score, truth, probabilities):
    """The mean over the tags for which a score is defined."""
    return np.mean([score(own, p) for own, p in zip(truth.T, probabilities.T, strict=True) if own.any() and not own.all()])


SLOW_OF_TAGS = {
    "average_precision": lambda t, p: of_every_tag(average_precision_score, t, p),
    "average_precision_micro": lambda t, p: average_precision_score(t, p, average="micro"),
    "f1_macro": lambda t, p: f1_score(t, p >= 0.5, average="macro", zero_division=0),
    "f1_micro": lambda t, p: f1_score(t, p >= 0.5, average="micro", zero_division=0),
    "f1_samples": lambda t, p: f1_score(t, p >= 0.5, average="samples", zero_division=0),
    "roc_auc": lambda t, p: of_every_tag(roc_auc_score, t, p),
    "accuracy": lambda t, p: accuracy_score(t, p >= 0.5),
    "neg_hamming_loss": lambda t, p: -hamming_loss(t, p >= 0.5),
}
SLOW_OF_NUMBERS = {
    "neg_mean_absolute_error": lambda t, p: -mean_absolute_error(t, p[:, 0]),
    "neg_root_mean_squared_error": lambda t, p: -root_mean_squared_error(t, p[:, 0]),
    "r2": lambda t, p: r2_score(t, p[:, 0]),
    "neg_mean_absolute_percentage_error": lambda t, p: -mean_absolute_percentage_error(t, p[:, 0]),
    "spearman": lambda t, p: spearmanr(t, p[:, 0]).statistic,
}


def draw(seed: int, classes: int = CLASSES, images: int | None = None):
    """True classes and probabilities of images, some classes absent from the truth."""
    rng = np.random.default_rng(seed)
    images = images or int(rng.integers(1, 200))
    some = rng.permutation(classes)[: rng.integers(1, classes + 1)]
    truth = rng.choice(some, size=images)
    probabilities = rng.dirichlet(np.ones(classes), images) + 0.3 * np.eye(classes)[truth]
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_metric_equals_scikit_learns(name, seed):
    truth, probabilities = draw(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, where classes are absent
        expected = SLOW[name](truth, probabilities)
    assert METRICS[name].score(truth, probabilities) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", METRICS_OF["tags"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_metric_of_tags_equals_scikit_learns(name, seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((rng.integers(5, 100), 6)) < rng.uniform(0.1, 0.6, size=6)
    truth[0], truth[1] = True, False  # an image with every tag, and one without any
    answer = rng.integers(0, 9, size=truth.shape) / 10 + 0.2 * truth  # with level scores
    assert METRICS_OF["tags"][name].score(truth, answer) == pytest.approx(SLOW_OF_TAGS[name](truth, answer), abs=1e-12)


@pytest.mark.parametrize("name", METRICS_OF["number"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_metric_of_numbers_equals_scikit_learns(name, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 80, size=rng.integers(5, 100)).astype(float)
    answer = np.round(truth + 15 * rng.standard_normal(len(truth)))[:, None]
    assert METRICS_OF["number"][name].score(truth, answer) == pytest.approx(SLOW_OF_NUMBERS[name](truth, answer), rel=1e-9)


def test_names_are_scikit_learns_where_it_has_the_scorer():
    assert set(METRICS) - set(get_scorer_names()) == {
        "cohen_kappa",
        "quadratic_kappa",
        "top_2_accuracy",
        "top_3_accuracy",
        "top_5_accuracy",
    }
    others = {*METRICS_OF["tags"], *METRICS_OF["number"]} - set(get_scorer_names())
    assert others == {"average_precision_micro", "neg_hamming_loss", "spearman"}
    for kind, metrics in METRICS_OF.items():
        assert all(name == one.name and one.target == kind and one.title and one.explained for name, one in metrics.items())


@pytest.mark.parametrize("seed", nightly_after(2, range(5)))
def test_average_precision_equals_scikit_learns_with_level_scores_too(seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(4), rng.integers(4, size=200)])
    probabilities = rng.integers(1, 4, size=(len(truth), 4)) + 2.0 * np.eye(4)[truth]
    assert METRICS["average_precision"].score(truth, probabilities) == pytest.approx(precision(truth, probabilities), abs=1e-12)


@pytest.mark.parametrize("images", [50, 500])
def test_the_roc_auc_of_all_classes_equals_scikit_learns_with_level_scores_too(images):
    rng = np.random.default_rng(images)
    truth = np.concatenate([np.arange(4), rng.integers(4, size=images)])
    probabilities = rng.integers(1, 4, size=(len(truth), 4)) + 2.0 * np.eye(4)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert METRICS["roc_auc_ovr"].score(truth, probabilities) == pytest.approx(expected, abs=1e-12)


def test_the_roc_auc_of_two_classes_is_that_of_the_second():
    truth, probabilities = draw(1, classes=2, images=80)
    assert METRICS["roc_auc_ovr"].score(truth, probabilities) == pytest.approx(roc_auc_score(truth, probabilities[:, 1]))


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_answer_has_the_best_score_and_a_guess_about_that_of_chance(name):
    rng, metric = np.random.default_rng(0), METRICS[name]
    truth = np.repeat(np.arange(5), 400)
    assert metric.score(truth, np.eye(5)[truth]) == pytest.approx(max(metric.bounds), abs=1e-9)
    ignorant = np.full((2000, 5), 0.2) + 1e-3 * rng.random((2000, 5))
    assert metric.score(truth, ignorant / ignorant.sum(axis=1, keepdims=True)) == pytest.approx(metric.chance(5), abs=0.05)


@pytest.mark.parametrize("name", METRICS)
def test_where_images_have_one_class_or_there_are_none_a_score_is_a_number(name):
    metric = METRICS[name]
    for images in (0, 3):
        found = metric.score(np.zeros(images, int), np.tile([0.7, 0.2, 0.1], (images, 1)))
        assert metric.bounds[0] <= found <= metric.bounds[1]


def test_a_class_absent_from_truth_and_answer_counts_as_0_in_macro_f1():
    everything, one_less = np.arange(18), np.arange(17)
    assert METRICS["f1_macro"].of_prediction(everything, everything, 18) == 1
    assert METRICS["f1_macro"].of_prediction(one_less, one_less, 18) == pytest.approx(17 / 18)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_confusion_equals_scikit_learns(seed):
    truth, probabilities = draw(seed)
    predicted = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(confusion(truth, predicted, 18), confusion_matrix(truth, predicted, labels=range(18)))


@pytest.mark.parametrize("seed", SEEDS)
def test_target_scores_are_those_of_each_target_by_itself(seed):
    truth, probabilities = draw(seed)
    labels = {"mask": lambda c: c // 6, "gender": lambda c: c // 3 % 2, "age": lambda c: c % 3}
    found = target_scores(METRICS["f1_macro"], SCHEME, truth, probabilities)
    assert list(found) == ["mask", "gender", "age"]
    for name, size in zip(SCHEME.names, SCHEME.sizes, strict=True):
        true, answer = labels[name](truth), labels[name](probabilities.argmax(axis=1))
        assert found[name] == pytest.approx(f1_score(true, answer, average="macro", labels=range(size), zero_division=0), abs=1e-12)
    found = target_scores(METRICS["neg_log_loss"], SCHEME, truth, probabilities)
    ages = probabilities.reshape(-1, 6, 3).sum(axis=1)
    assert found["age"] == pytest.approx(-log_loss(labels["age"](truth), ages, labels=range(3)))


def test_a_metric_of_probabilities_is_refused_where_there_are_none_with_those_that_take_labels():
    assert probabilities_missing(METRICS["accuracy"], "loss/name", "arcface") is None
    words = probabilities_missing(METRICS["roc_auc_ovr"], "loss/name", "arcface")
    assert "loss/name" in words and "arcface" in words and "roc_auc_ovr" in words and "f1_macro" in words
    assert of_labels(METRICS["roc_auc_ovr"]).name == "f1_macro" and of_labels(METRICS["accuracy"]).name == "accuracy"
