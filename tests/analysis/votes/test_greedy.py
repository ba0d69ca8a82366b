import numpy as np
import pytest

from analysis.votes.greedy import climb, greedy
from analysis.votes.voting import member_scores
from benchmarks.ensembles import simulate
from tests.conftest import nightly_after
from trainables.metrics import METRICS

METRIC = METRICS["f1_macro"]
CLASSES = 4


def score(probabilities, target):
    return METRIC.score(target, probabilities)


def slow_climb(members, target, most):
    """Every step tries every member on every image."""
    firsts = [score(sum(members[:count]), target) for count in range(1, min(len(members), max(1, most // 2)) + 1)]
    count = 1 + max(range(len(firsts)), key=lambda index: (round(firsts[index], 9), -index))
    picked = list(range(count))
    while len(picked) < most:
        total = sum(members[index] for index in picked)
        found = [round(score(total + member, target), 9) for member in members]
        if max(found) <= round(score(total, target), 9):
            break
        picked.append(found.index(max(found)))
    return np.bincount(picked, minlength=len(members))


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
@pytest.mark.parametrize("most", [1, 4, 12])
def test_picks_are_those_of_a_slow_reference_that_tries_every_member_on_every_image(seed, most):
    probabilities, target, _ = simulate(7, 60, CLASSES, seed=seed)
    # Sums of such fractions are exact in single and in double precision.
    probabilities = np.round(probabilities * 64) / 64
    found = climb(probabilities.transpose(1, 0, 2).astype(np.float32), target, METRIC, most)
    assert found.tolist() == slow_climb(probabilities, target, most).tolist()


def test_a_member_that_helps_again_is_picked_again_until_it_harms():
    first = np.array([[0.95, 0.05], [0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.8, 0.2]])
    second = np.array([[0.3, 0.7], [0.3, 0.7], [0.3, 0.7], [0.25, 0.75], [0.25, 0.75]])
    target = np.array([0, 0, 0, 1, 1])
    scores = [score(first + times * second, target) for times in range(4)]
    assert scores[0] < scores[1] < scores[2] == 1 > scores[3]
    assert climb(np.stack([first, second], axis=1).astype(np.float32), target, METRIC).tolist() == [1, 2]


@pytest.mark.parametrize("seed", nightly_after(4, range(30)))
def test_the_answer_never_scores_below_the_best_single_member_where_it_is_fitted(seed):
    probabilities, target, groups = simulate(6, 40, CLASSES, seed=seed)
    mean = greedy(probabilities, target, groups, METRIC)
    assert sum(mean.weights) == pytest.approx(1)
    assert score(mean(probabilities), target) >= member_scores(probabilities, target, METRIC).max()


def test_where_nothing_scores_above_the_best_single_member_it_is_that_member():
    _, target, groups = simulate(1, 40, CLASSES, seed=0)
    right = np.eye(CLASSES)[target]
    assert greedy(np.stack([right[::-1], right, right]), target, groups, METRIC).weights == (0, 1, 0)


def worthless(kind, images, rng):
    return {
        "random": rng.dirichlet(np.ones(CLASSES), size=images),
        "random and sure": np.eye(CLASSES)[rng.integers(CLASSES, size=images)],
        "constant": np.tile(np.eye(CLASSES)[0], (images, 1)),
        "undecided": np.full((images, CLASSES), 1 / CLASSES),
    }[kind]


@pytest.mark.parametrize("kind", ["random", "random and sure", "constant", "undecided"])
@pytest.mark.parametrize("seed", nightly_after(4, range(20)))
def test_one_more_member_that_is_worthless_changes_no_answer(kind, seed):
    rng = np.random.default_rng(seed)
    probabilities, target, groups = simulate(6, 140, CLASSES, seed=seed)
    place = rng.integers(7)
    more = np.insert(probabilities, place, worthless(kind, 140, rng), axis=0)
    with_it, without = greedy(more, target, groups, METRIC), greedy(probabilities, target, groups, METRIC)
    assert with_it.weights[place] == 0
    np.testing.assert_array_equal(with_it(more), without(probabilities))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_members_that_score_differently_changes_no_answer(seed):
    probabilities, target, groups = simulate(6, 210, CLASSES, seed=seed)
    assert len(set(member_scores(probabilities, target, METRIC))) == 6
    np.testing.assert_allclose(
        greedy(probabilities[::-1], target, groups, METRIC).weights, greedy(probabilities, target, groups, METRIC).weights[::-1]
    )


@pytest.mark.parametrize("seed", range(5))
def test_answers_of_other_groups_are_better_than_those_of_the_best_member(seed):
    probabilities, target, groups = simulate(8, 700, CLASSES, seed=seed)
    other, truth, _ = simulate(8, 700, CLASSES, seed=100 + seed)
    mean = greedy(probabilities, target, groups, METRIC)
    assert score(mean(other), truth) > score(other[member_scores(probabilities, target, METRIC).argmax()], truth)
