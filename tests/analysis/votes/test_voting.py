import numpy as np
import pytest
from pydantic import TypeAdapter

from analysis.votes import ENSEMBLES, Ensemble
from analysis.votes.voting import Mean, Ranks, Votes, check, member_scores, weighted
from benchmarks.ensembles import simulate
from tests.conftest import nightly_after
from tests.messages import mistaken
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
MEMBERS, IMAGES, CLASSES = 4, 90, 5
FILE = TypeAdapter(Ensemble)


def crude(seed, members=MEMBERS):
    """Rows with few distinct values, so that ties are common, with classes and groups."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 4, size=(members, IMAGES, CLASSES)) + np.eye(CLASSES)[rng.integers(CLASSES, size=(members, IMAGES))]
    return parts / parts.sum(axis=2, keepdims=True), rng.integers(CLASSES, size=IMAGES), np.arange(IMAGES) // 3


def slow_soft(members):
    return max(range(CLASSES), key=lambda c: (round(sum(row[c] for row in members), 9), -c))


def slow_hard(members):
    votes = [max(range(CLASSES), key=lambda c: (row[c], -c)) for row in members]
    return max(range(CLASSES), key=lambda c: (votes.count(c), round(sum(row[c] for row in members), 9), -c))


def slow_rank(members):
    def points(row, c):
        return sum(other < row[c] for other in row) + sum(other == row[c] for other in row) / 2

    return max(range(CLASSES), key=lambda c: (sum(points(row, c) for row in members), -c))


SLOW = {"soft": slow_soft, "hard": slow_hard, "rank": slow_rank}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_a_vote_without_weights_gives_the_answers_of_a_slow_reference(name, seed):
    probabilities, target, groups = crude(seed)
    scores = ENSEMBLES[name](probabilities, target, groups, METRIC)(probabilities)
    assert np.round(scores, 9).argmax(axis=1).tolist() == [SLOW[name](probabilities[:, image]) for image in range(IMAGES)]


@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_best_is_the_first_member_with_the_highest_macro_f1(seed):
    probabilities, target, groups = crude(seed)
    scores = [METRIC.score(target, member) for member in probabilities]
    np.testing.assert_array_equal(member_scores(probabilities, target, METRIC), scores)
    weights = ENSEMBLES["best"](probabilities[[0, 1, 2, 3, 0, 1, 2, 3]], target, groups, METRIC).weights
    assert weights == tuple(float(index == np.argmax(scores)) for index in range(8))


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_every_ensemble_gives_rows_that_sum_to_one_for_all_classes_even_those_it_never_met(name, members):
    probabilities, target, groups = simulate(members, IMAGES, CLASSES, seed=0)
    target = np.where(target == 2, 3, target)
    scores = ENSEMBLES[name](probabilities, target, groups, METRIC)(simulate(members, 40, CLASSES, seed=1)[0])
    assert scores.shape == (40, CLASSES)
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1)


@pytest.mark.parametrize("name", [name for name in ENSEMBLES if not name.startswith("stack")])
def test_every_vote_of_one_member_is_its_own_answer(name):
    probabilities, target, groups = crude(1, members=1)
    ensemble = ENSEMBLES[name](probabilities, target, groups, METRIC)
    assert (ensemble(probabilities).argmax(axis=1) == probabilities[0].argmax(axis=1)).all()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_what_an_ensemble_answers_for_an_image_depends_on_no_other_image(name):
    probabilities, target, groups = simulate(3, IMAGES, CLASSES, seed=2)
    ensemble = ENSEMBLES[name](probabilities, target, groups, METRIC)
    alone = np.concatenate([ensemble(probabilities[:, [image]]) for image in range(20)])
    np.testing.assert_allclose(alone, ensemble(probabilities)[:20], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_ensemble_is_the_same_bitwise_when_fitted_again_and_after_it_was_a_file(name):
    probabilities, target, groups = simulate(3, IMAGES, CLASSES, seed=3)
    ensemble = ENSEMBLES[name](probabilities, target, groups, METRIC)
    assert ENSEMBLES[name](probabilities.copy(), target.copy(), groups.copy(), METRIC) == ensemble
    again = FILE.validate_json(FILE.dump_json(ensemble))
    assert again == ensemble
    np.testing.assert_array_equal(again(probabilities), ensemble(probabilities))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_groups_may_have_any_ids_and_only_who_is_alike_counts(name):
    probabilities, target, groups = simulate(3, IMAGES, CLASSES, seed=4)
    named = np.array([f"group {number:03}" for number in groups], dtype=object)
    assert ENSEMBLES[name](probabilities, target, named, METRIC) == ENSEMBLES[name](probabilities, target, groups, METRIC)


@pytest.mark.parametrize("name", ["best", "soft", "weighted", "greedy"])
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_images_changes_no_weight(name, seed):
    probabilities, target, groups = simulate(MEMBERS, IMAGES, CLASSES, seed=seed)
    order = np.random.default_rng(seed).permutation(IMAGES)
    weights = ENSEMBLES[name](probabilities, target, groups, METRIC).weights
    shuffled = ENSEMBLES[name](probabilities[:, order], target[order], groups[order], METRIC).weights
    np.testing.assert_allclose(shuffled, weights, atol=1e-9)


def test_a_hard_majority_stands_against_one_certain_member():
    probabilities = np.array([[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]])
    assert Votes()(probabilities).argmax() == 0
    assert Mean((1 / 3,) * 3)(probabilities).argmax() == 1


def test_a_hard_tie_goes_to_the_higher_summed_probability_then_to_the_lower_class():
    summed = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]])
    assert Votes()(summed).argmax() == 1
    level = np.array([[[0.0, 0.75, 0.25]], [[0.0, 0.25, 0.75]]])
    assert Votes()(level).argmax() == 1


def test_a_rank_counts_the_order_of_the_classes_and_not_how_sure_a_member_is():
    probabilities = np.array([[[0.4, 0.3, 0.3]], [[0.0, 0.1, 0.9]], [[0.4, 0.3, 0.3]]])
    np.testing.assert_allclose(Ranks()(probabilities), [[7 / 18, 5 / 18, 6 / 18]])


def loss(weights, probabilities, target):
    return -np.log(np.einsum("m,mn->n", weights, probabilities[:, np.arange(len(target)), target])).mean()


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_no_weights_on_a_grid_have_a_lower_log_loss_than_the_weighted_mean(members, seed):
    probabilities, target, groups = simulate(members, IMAGES, CLASSES, seed=seed)
    found = loss(weighted(probabilities, target, groups, METRIC).weights, probabilities, target)
    steps = np.linspace(0, 1, 51)
    grid = [weights for weights in np.stack(np.meshgrid(*[steps] * members), axis=-1).reshape(-1, members) if abs(weights.sum() - 1) < 1e-9]
    lowest = min(loss(weights, probabilities, target) for weights in grid)
    assert found < lowest + 2e-4
    assert found > lowest - 2e-2


@pytest.mark.parametrize("seed", nightly_after(4, range(10)))
def test_members_that_are_alike_share_the_weight_that_one_of_them_would_have(seed):
    probabilities, target, groups = simulate(3, IMAGES, CLASSES, seed=seed)
    alone = weighted(probabilities, target, groups, METRIC)
    shared = weighted(probabilities[[0, 0, 1, 2]], target, groups, METRIC)
    assert shared.weights[0] == pytest.approx(shared.weights[1])
    np.testing.assert_allclose(shared(probabilities[[0, 0, 1, 2]]), alone(probabilities), atol=0.02)


def test_a_member_that_only_misleads_has_no_weight_at_all():
    probabilities, target, groups = simulate(3, IMAGES, CLASSES, seed=0)
    misled = np.concatenate([probabilities, (1 - np.eye(CLASSES)[target])[None] / (CLASSES - 1)])
    assert weighted(misled, target, groups, METRIC).weights[3] == 0


def test_true_classes_that_every_member_holds_for_impossible_are_survived():
    probabilities = np.array([[[1.0, 0.0], [0.9, 0.1]], [[1.0, 0.0], [0.2, 0.8]]])
    weights = weighted(probabilities, np.array([1, 1]), np.arange(2), METRIC).weights
    assert weights[1] > 0.9


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_ensemble_names_all_mistakes_in_what_it_is_to_learn_from(name):
    probabilities, target, groups = crude(0)
    probabilities[1, 7, 0] = np.nan
    probabilities[1, 9] = -probabilities[1, 9]
    probabilities[3, 4] *= 1.01
    with pytest.raises(ValueError) as caught:
        ENSEMBLES[name](probabilities, target + 1, groups[1:], METRIC)
    expected = [
        ("the groups ", "(89,)", "90"),
        ("true classes ", "between 0 and 4"),
        ("member 1: ", "2 of 90 images", "image 7"),
        ("member 3: ", "1 of 90 images", "image 4"),
    ]
    assert not mistaken(str(caught.value).splitlines(), expected)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (3, 2)])
def test_nothing_to_learn_from_is_refused(shape):
    with pytest.raises(ValueError, match="members, images, classes"):
        check(np.zeros(shape), np.zeros(shape[1], dtype=int), np.zeros(shape[1]))


def test_sums_that_rounding_to_single_precision_leaves_are_accepted():
    probabilities, target, groups = crude(0)
    rounded = probabilities.astype(np.float32).astype(float)
    assert (rounded.sum(axis=2) != 1).any()
    check(rounded * (1 + 5e-4), target, groups)
