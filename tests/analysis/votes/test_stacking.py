import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from analysis.votes.folds import others, part_groups
from analysis.votes.stacking import (
    STRENGTHS,
    features,
    image_weights,
    logistics,
    stack,
)
from benchmarks.ensembles import simulate
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
CLASSES = 5


def without(target, *absent):
    """The classes with some of them given to class 0."""
    return np.where(np.isin(target, absent), 0, target)


def regression(probabilities, target, strength):
    """scikit-learn's own way to the same regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    return model.fit(features(probabilities), target, logisticregression__sample_weight=image_weights(target, METRIC))


@pytest.mark.parametrize("seed", range(5))
def test_an_image_counts_by_the_square_root_of_what_would_balance_the_classes(seed):
    target = np.random.default_rng(seed).integers(7, size=100) ** 2
    np.testing.assert_allclose(image_weights(target, METRIC), np.sqrt(compute_sample_weight("balanced", target)))


def test_features_are_the_logarithms_of_one_member_after_the_other():
    probabilities = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.1, 0.9]]])
    np.testing.assert_allclose(np.exp(features(probabilities)), [[0.5, 0.5, 0.25, 0.75], [1.0, 1e-6, 0.1, 0.9]])


@pytest.mark.parametrize("absent", [(), (2,), (1, 2, 4)])
def test_a_regression_answers_as_scikit_learns_does(absent):
    probabilities, target, _ = simulate(3, 140, CLASSES, seed=0)
    target, other = without(target, *absent), simulate(3, 60, CLASSES, seed=1)[0]
    (found,) = logistics(probabilities, target, [0.01], METRIC)
    expected = regression(probabilities, target, 0.01)
    assert found.classes == tuple(expected.classes_)
    answer = found(other)
    np.testing.assert_allclose(answer[:, found.classes], expected.predict_proba(features(other)), atol=1e-4)
    assert (answer[:, list(absent)] == 0).all()


@pytest.mark.parametrize("seed", range(2))
def test_the_penalty_is_the_one_with_the_lowest_log_loss_on_groups_that_were_not_fitted_on(seed):
    probabilities, target, groups = simulate(2, 140, CLASSES, seed=seed)
    losses = []
    for strength in STRENGTHS:
        answer = np.zeros((140, CLASSES))
        for unseen in part_groups(groups, target):
            seen = others(unseen, 140)
            with threadpool_limits(1):
                model = regression(probabilities[:, seen], target[seen], strength)
            answer[np.ix_(unseen, model.classes_)] = model.predict_proba(features(probabilities[:, unseen]))
        losses.append(log_loss(target, answer, sample_weight=image_weights(target, METRIC), labels=range(CLASSES)))
    chosen = logistics(probabilities, target, STRENGTHS[: np.argmin(losses) + 1], METRIC)[-1]
    assert stack(probabilities, target, groups, METRIC) == chosen


def test_one_group_alone_can_be_learned_from():
    probabilities, target, _ = simulate(2, 40, CLASSES, seed=0)
    assert np.isfinite(stack(probabilities, target, np.zeros(40), METRIC)(probabilities)).all()


def test_the_only_class_there_is_to_learn_from_is_certain():
    probabilities, _, groups = simulate(2, 40, CLASSES, seed=0)
    answer = stack(probabilities, np.full(40, 3), groups, METRIC)(probabilities)
    np.testing.assert_array_equal(answer, np.tile(np.eye(CLASSES)[3], (40, 1)))


def test_a_class_that_only_one_group_has_is_no_obstacle():
    probabilities, target, groups = simulate(2, 140, CLASSES, seed=0)
    target = np.where(groups == 4, 2, without(target, 2))
    ensemble = stack(probabilities, target, groups, METRIC)
    assert ensemble.classes == (0, 1, 2, 3, 4)
    np.testing.assert_allclose(ensemble(probabilities).sum(axis=1), 1)


def test_what_one_member_mixes_up_without_fail_is_set_right():
    probabilities, target, groups = simulate(1, 700, CLASSES, seed=0)
    swapped = probabilities[:, :, [1, 0, 2, 3, 4]]
    other, truth, _ = simulate(1, 700, CLASSES, seed=1)
    right = (other[0].argmax(axis=1) == truth).mean()
    answers = stack(swapped, target, groups, METRIC)(other[:, :, [1, 0, 2, 3, 4]])
    assert (answers.argmax(axis=1) == truth).mean() > right - 0.05
    assert (other[0][:, [1, 0, 2, 3, 4]].argmax(axis=1) == truth).mean() < right - 0.2


@pytest.mark.parametrize("seed", range(2))
def test_members_that_are_alike_share_their_coefficients(seed):
    probabilities, target, groups = simulate(2, 140, CLASSES, seed=seed)
    coefficients = np.array(stack(probabilities[[0, 0, 1]], target, groups, METRIC).coefficients)
    np.testing.assert_allclose(coefficients[:, :CLASSES], coefficients[:, CLASSES : 2 * CLASSES], atol=1e-9)


def test_the_order_of_the_images_changes_no_answer_of_the_regression_by_much():
    probabilities, target, groups = simulate(2, 140, CLASSES, seed=0)
    order = np.random.default_rng(0).permutation(140)
    shuffled = stack(probabilities[:, order], target[order], groups[order], METRIC)
    np.testing.assert_allclose(shuffled(probabilities), stack(probabilities, target, groups, METRIC)(probabilities), atol=2e-3)


def test_the_number_of_threads_changes_no_bit():
    probabilities, target, groups = simulate(2, 350, CLASSES, seed=0)
    fitted = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            fitted.append(stack(probabilities, target, groups, METRIC))
    assert fitted[0] == fitted[1]
