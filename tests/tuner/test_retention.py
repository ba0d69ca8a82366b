import numpy as np
import pytest

from trainables.metrics import DEFAULT, METRICS, Metric
from trainables.record import MODEL, trial_folder
from tuner.retention import Retention


def write_weights(run, number):
    trial_folder(run, number).mkdir(parents=True)
    (trial_folder(run, number) / MODEL).write_bytes(b"weights")
    (trial_folder(run, number) / "valid.npz").write_bytes(b"predictions")


def with_weights(run):
    return {int(file.parent.name) for file in run.glob(f"trials/*/{MODEL}")}


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_exactly_the_best_ended_trials_keep_their_weights_at_every_moment(tmp_path, seed, keep):
    rng = np.random.default_rng(seed)
    scores = rng.integers(6, size=12) / 5  # with ties
    for number in range(12):
        write_weights(tmp_path, number)
    retention, ended = Retention(tmp_path, keep, METRICS[DEFAULT]), []
    for number in map(int, rng.permutation(12)):
        retention.ended(number, scores[number])
        ended.append(number)
        best = sorted(ended, key=lambda other: (-scores[other], other))[:keep]
        running = set(range(12)) - set(ended)
        assert with_weights(tmp_path) == running | set(best)
    assert len(list(tmp_path.glob("trials/*/valid.npz"))) == 12


def test_a_trial_without_weights_is_no_trouble(tmp_path):
    write_weights(tmp_path, 0)
    retention = Retention(tmp_path, 1, METRICS[DEFAULT])
    retention.ended(1, 0.1)
    retention.ended(0, 0.2)
    assert with_weights(tmp_path) == {0}


def test_of_a_metric_to_minimize_the_lowest_scores_keep_their_weights(tmp_path):
    retention = Retention(tmp_path, 2, Metric("error", "error rate", direction="minimize"))
    for number, score in enumerate([0.3, -0.2, 0.1, 0.4]):
        write_weights(tmp_path, number)
        retention.ended(number, score)
    assert with_weights(tmp_path) == {1, 2}


def test_of_each_that_trials_predict_the_best_keep_their_weights(tmp_path):
    retention = Retention(tmp_path, 1, METRICS[DEFAULT])
    for number, (score, predicts) in enumerate([(0.9, "gender"), (0.4, "age"), (0.8, "gender"), (0.5, "age")]):
        write_weights(tmp_path, number)
        retention.ended(number, score, predicts)
    assert with_weights(tmp_path) == {0, 3}
