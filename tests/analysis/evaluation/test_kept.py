"""Which share of a vote's gain a student keeps: known where it was planted, and refused where there is no gain."""

import numpy as np
import pytest

from analysis.evaluation.kept import kept_of
from trainables.metrics import METRICS, METRICS_OF
from trainables.metrics.evidence import evidence

ACCURACY = METRICS["accuracy"]


def right_in(share: float, truth: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Probabilities (n, 2) whose answer is right for this share of the images, the same ones for every larger share."""
    right = luck < share
    return np.eye(2)[np.where(right, truth, 1 - truth)]


def kept(student: float, vote: float, single: float):
    rng = np.random.default_rng(0)
    truth, luck, groups = rng.integers(2, size=2000), rng.random(2000), np.arange(2000) // 8
    found = [evidence(ACCURACY, truth, right_in(share, truth, luck), groups) for share in (student, vote, single)]
    return kept_of(*found, np.random.default_rng(1))


def test_half_of_a_planted_gain_is_found():
    found = kept(0.75, 0.8, 0.7)
    assert found.share == pytest.approx(0.5, abs=0.1)
    assert found.interval[0] < 0.5 < found.interval[1] and found.tells
    assert found.interval[1] - found.interval[0] < 0.5


def test_a_student_as_good_as_the_vote_keeps_all_and_one_as_bad_as_the_single_model_nothing():
    assert kept(0.8, 0.8, 0.7).share == 1
    assert kept(0.7, 0.8, 0.7).share == 0
    assert kept(0.6, 0.8, 0.7).share < 0, "one that is worse"


def test_without_a_significant_gain_there_is_no_share():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(2, size=400), np.arange(400) // 2
    answers = (right_in(share, truth, rng.random(400)) for share in (0.72, 0.71, 0.7))
    found = kept_of(*(evidence(ACCURACY, truth, one, groups) for one in answers), np.random.default_rng(1))
    assert found.share is None and found.interval is None and not found.tells
    assert found.plain()["share"] is None and "not significant" in str(found)


def test_a_share_that_may_be_anything_is_called_noisy():
    rng = np.random.default_rng(0)
    truth, groups = rng.integers(2, size=300), np.arange(300)
    vote, student, single = (right_in(share, truth, rng.random(300)) for share in (0.8, 0.75, 0.68))
    found = kept_of(*(evidence(ACCURACY, truth, one, groups) for one in (student, vote, single)), np.random.default_rng(1))
    assert found.share is not None and not found.tells and "noisy" in str(found)


def test_where_lower_is_better_less_error_is_the_gain():
    metric = METRICS_OF["number"]["neg_mean_absolute_error"]
    rng = np.random.default_rng(0)
    truth, noise, groups = rng.normal(size=2000), rng.normal(size=2000), np.arange(2000)
    found = [evidence(metric, truth, (truth + size * noise)[:, None], groups) for size in (0.75, 0.5, 1.0)]
    assert kept_of(*found, np.random.default_rng(1)).share == pytest.approx(0.5, abs=0.02)
