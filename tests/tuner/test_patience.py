"""A search ends early where nothing more is to be expected of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.faults.commands import searched
from trainables.metrics import METRICS
from trainables.record import read_records
from tuner.board import Board, Row
from tuner.cli import TrialCount
from tuner.patience import FEWEST, Expected, Patience, expected
from tuner.stoppers.soft_stop import SoftStop


def test_too_few_trials_say_nothing():
    assert expected([0.5] * (FEWEST - 1), 1) is None and expected([0.5] * 19, 10) is None
    assert expected([0.5] * 20, 10) == Expected(10, 0.0)


def test_what_is_expected_is_what_the_last_half_gained_where_the_searcher_learns():
    assert expected([0.1] * 10 + [0.1 + 0.01 * step for step in range(1, 11)], 10) == Expected(10, pytest.approx(0.1))
    assert expected([0.1] * 30 + [0.4] + [0.1] * 9, 5).trials == 20, "half of all where that is more"


@pytest.mark.parametrize("seed", range(3))
def test_where_the_last_ones_gained_nothing_it_is_what_they_would_gain_in_another_order(seed):
    scores = sorted(np.random.default_rng(seed).random(10).tolist(), reverse=True)
    rng = np.random.default_rng(0)
    drawn = np.mean([scores[0] - rng.permutation(scores)[:5].max() for _ in range(20_000)])
    assert expected(scores, 5).gain == pytest.approx(drawn, abs=0.005) and drawn > 0.005


@pytest.fixture
def board():
    return Board(60, 4, "shape", METRICS["f1_macro"])


def ended(board, scores, patience=5, noise=0.02, probes=(), before=0):
    """Why a search ends whose trials end one after the other with these scores, and after how many."""
    soft_stop = SoftStop(None)
    callback = Patience(patience, SimpleNamespace(run=None), board, soft_stop, probes)
    callback._noise_of = lambda number: noise
    for number, score in enumerate(scores):
        board.put(Row(number, "", state="finished", best=score))
        if number >= before and number not in probes:
            callback.on_trial_complete(0, [], None)
        if soft_stop.asked:
            return number + 1, soft_stop
    return None, soft_stop


def test_a_search_that_gains_less_than_the_noise_of_its_score_ends_softly_with_its_figures(board):
    after, soft_stop = ended(board, [0.3, 0.41, *[0.3, 0.4] * 14])
    assert after == 10 and soft_stop.code == 0
    assert "run/patience" in soft_stop.reason and "5 more trials" in soft_stop.reason and "0.0200" in soft_stop.reason


def test_one_that_goes_on_gaining_or_has_no_patience_set_or_whose_noise_is_unknown_does_not_end(board):
    assert ended(board, [0.3 + 0.01 * step for step in range(40)])[0] is None
    assert ended(board, [0.3] * 40, patience=0)[0] is None
    assert ended(board, [0.3] * 40, noise=None)[0] is None


def test_a_command_that_asks_for_more_trials_gets_as_many_as_patience_before_it_ends_again(board):
    assert ended(board, [0.3] * 40, before=20)[0] == 25


def test_what_a_probe_reached_has_to_be_surpassed_and_probes_are_no_trials(board):
    scores = [0.6, *np.random.default_rng(0).uniform(0.2, 0.5, 39)]
    assert ended(board, scores, probes=[0])[0] == 11


@pytest.mark.nightly
def test_a_search_that_has_nothing_to_expect_ends_is_resumed_for_more_and_keeps_its_records(
    tiny_space, demo, tmp_path, monkeypatch, ray_cluster
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "idle.yaml"
    file.write_text(tiny_space.read_text().partition("start:")[0])
    changes = ("run/patience=3", "run/epochs=1", "run/grace=1", "optimizer/lr={float: [1.0e-6, 1.0e-5], log: true}")
    code, said = searched(ray_cluster, space=str(file), data=str(demo), name="idle", trials=TrialCount(30), changes=changes)
    assert code == 0 and "Stopped early by run/patience: " in said, said
    first = read_records(tmp_path / "runs" / "idle")
    assert FEWEST <= sum(record.result.state == "finished" for record in first) < 30
    code, said = searched(ray_cluster, resume="idle", trials=TrialCount(5, more=True))
    assert code == 0, said
    again = read_records(tmp_path / "runs" / "idle")
    finished = [sum(record.result.state == "finished" for record in records) for records in (first, again)]
    assert finished[1] >= finished[0] + 3 and {record.number for record in first} <= {record.number for record in again}
