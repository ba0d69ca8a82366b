"""A time budget is divided between the search and what follows it."""

import pytest

from trainables.metrics import METRICS
from tuner.board import Board, Row
from tuner.budget import MOST, Division, finalists_within, predictions_of, race_seconds, seconds_of_a_trial, seconds_of_an_image

FOLDS, SLOTS = 4, 2


@pytest.mark.parametrize("budget", [60.0, 600.0, 1800.0, 36_000.0])
@pytest.mark.parametrize("trial", [None, 0.1, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("predictions", [None, 0, 1000])
def test_what_is_kept_is_enough_for_the_finalists_there_is_time_for(budget, trial, predictions):
    division = Division(budget, 4, FOLDS, predictions, after_race=5000)
    need = division.need(trial, SLOTS, 0.01)
    last = division.vote(0.01, raced=need.finalists)
    assert 0 <= need.finalists <= 4 and need.seconds >= last
    assert need.seconds - last <= 0.65 * budget
    if trial is not None:
        assert need.seconds - last == pytest.approx(race_seconds(need.finalists, FOLDS, trial, SLOTS))
        more = race_seconds(need.finalists + 1, FOLDS, trial, SLOTS)
        assert need.finalists == 4 or more > MOST * budget, "one more would have fitted"


def test_nothing_is_kept_for_what_is_not_wanted_or_cannot_be():
    for finalists, folds in ((0, 4), (4, 0)):
        division = Division(600.0, finalists, folds, None)
        assert division.need(10.0, 2).seconds == 0 and division.words(5.0) == ""
    assert "4 finalists" in Division(600.0, 4, 4, None).words(5.0) and "vote" in Division(600.0, 0, 4, 9).words(5.0)


@pytest.mark.parametrize("finalists", [0, 4])
def test_a_budget_of_which_much_went_to_reading_images_says_so_and_what_is_left(finalists):
    words = Division(600.0, finalists, 4, 9).words(400.0)
    assert words.startswith("6:40 of 10:00 went") and "kept" in words and f"gets about {'0:00' if finalists else '2:50'}" in words


def test_a_vote_takes_longer_the_more_it_predicts_and_the_slower():
    few, many = (Division(600.0, 0, 0, predictions_of(valid, 150, models=1)) for valid in (100, 1000))
    seconds = [one.vote(prediction, raced=0) for prediction, one in ((0, few), (0, many), (0.01, few), (0.01, many), (0.02, many))]
    assert seconds[0] == seconds[1] < seconds[2] < seconds[3] < seconds[4]


def test_where_no_race_fits_the_search_has_the_time_that_a_vote_after_one_would_take():
    division = Division(600.0, 4, FOLDS, 10_000, after_race=50_000)
    assert division.need(275.0, SLOTS, 0.002).finalists == 0
    assert division.need(275.0, SLOTS, 0.002).seconds == division.vote(0.002, raced=0) == 30 + 60


def test_where_one_finalist_fits_the_vote_is_over_it_alone():
    division = Division(600.0, 4, FOLDS, 10_000, after_race=20_000)
    need = division.need(110.0, SLOTS, 0.003)
    assert need.finalists == 1
    assert need.seconds == pytest.approx(race_seconds(1, FOLDS, 110.0, SLOTS) + 30 + 60)
    assert division.vote(0.003, raced=9) == division.vote(0.003, raced=3) == 30 + 180


@pytest.mark.parametrize("trial", [20.0, 110.0])
def test_what_is_kept_is_enough_though_every_trial_has_just_begun_an_epoch_when_the_search_ends(trial):
    division, board = Division(600.0, 4, FOLDS, 10_000, after_race=20_000), Board(20, 4, "mask", METRICS["f1_macro"])
    board.put(Row(0, "", state="finished", epoch=4, seconds=trial, best=0.5, images=4000))
    kept = division.reserve(board, lambda: SLOTS)()
    pace = trial / 4000 / 3 / SLOTS
    left = kept - trial / 4 - division.vote(pace, raced=1)
    fits = finalists_within(
        left, FOLDS, [trial] * 4, SLOTS, lambda number: division.vote(pace, raced=max(number, 1)) - division.vote(pace, raced=1)
    )
    assert fits == division.need(trial, SLOTS, pace).finalists > 0
    assert Division(600.0, 0, FOLDS, None).reserve(board, lambda: SLOTS)() == 0


def test_more_time_never_means_fewer_finalists_and_one_alone_uses_every_slot():
    counts = [finalists_within(seconds, FOLDS, [20.0] * 6, SLOTS) for seconds in range(0, 1000, 10)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 6
    assert race_seconds(1, 4, 20.0, 4) < race_seconds(1, 4, 20.0, 1)


def test_a_trial_takes_as_long_as_the_best_ones_do_at_the_pace_measured():
    board = Board(20, 10, "mask", METRICS["f1_macro"])
    assert seconds_of_a_trial(board) is None and seconds_of_an_image(board) == 0
    board.put(Row(0, "", epoch=2, seconds=4.0, best=0.5, images=200))
    assert seconds_of_an_image(board) == pytest.approx(0.02)
    assert seconds_of_a_trial(board) == pytest.approx(20.0)
    for number in range(1, 9):
        board.put(Row(number, "", epoch=1, seconds=100.0, best=0.1))
    for number in range(9, 13):
        board.put(Row(number, "", state="finished", epoch=10, seconds=10.0, best=0.9))
    assert seconds_of_a_trial(board) == pytest.approx(10.0)
