import numpy as np
import pytest

from analysis.ensemble import ENSEMBLES

MEMBERS, PHOTOS, CLASSES = 5, 40, 6


def probabilities(seed, members=MEMBERS):
    """Rows with few distinct values, so that ties are common."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 4, size=(members, PHOTOS, CLASSES)) + np.eye(CLASSES)[rng.integers(CLASSES, size=(members, PHOTOS))]
    return parts / parts.sum(axis=2, keepdims=True)


def slow_soft(members):
    return max(range(CLASSES), key=lambda c: (round(sum(row[c] for row in members), 9), -c))


def slow_hard(members):
    votes = [max(range(CLASSES), key=lambda c: (row[c], -c)) for row in members]
    return max(range(CLASSES), key=lambda c: (votes.count(c), round(sum(row[c] for row in members), 9), -c))


SLOW = {"soft": slow_soft, "hard": slow_hard}


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("seed", range(20))
def test_every_vote_gives_the_answers_of_a_slow_reference(name, seed):
    probs = probabilities(seed)
    answers = np.round(ENSEMBLES[name](probs), 9).argmax(axis=1)
    assert answers.tolist() == [SLOW[name](probs[:, photo]) for photo in range(PHOTOS)]


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("members", [1, 2, 5])
def test_every_vote_gives_rows_that_sum_to_one(name, members):
    scores = ENSEMBLES[name](probabilities(0, members))
    assert scores.shape == (PHOTOS, CLASSES)
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_vote_of_one_member_is_its_own_answer(name):
    probs = probabilities(1, members=1)
    assert (ENSEMBLES[name](probs).argmax(axis=1) == probs[0].argmax(axis=1)).all()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_no_vote_depends_on_the_order_of_the_members(name):
    probs = probabilities(2)
    np.testing.assert_allclose(ENSEMBLES[name](probs), ENSEMBLES[name](probs[::-1]))


def test_a_hard_majority_stands_against_one_certain_member():
    probs = np.array([[[0.51, 0.49]], [[0.51, 0.49]], [[0.0, 1.0]]])
    assert ENSEMBLES["hard"](probs).argmax() == 0
    assert ENSEMBLES["soft"](probs).argmax() == 1


def test_a_hard_tie_goes_to_the_higher_summed_probability_then_to_the_lower_class():
    summed = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]]])
    assert ENSEMBLES["hard"](summed).argmax() == 1
    level = np.array([[[0.0, 0.75, 0.25]], [[0.0, 0.25, 0.75]]])
    assert ENSEMBLES["hard"](level).argmax() == 1
