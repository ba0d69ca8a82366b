from time import monotonic

import pytest
from rich.console import Console

from search_spaces.read import read_space
from tuner.board import SHOWN, Board, Row, clock, differs


def text_of(board):
    console = Console(width=160, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(board)
    return captured.get()


def board_of(*rows, trials=8, epochs=10, **settings):
    return Board(trials, epochs, slots=2, attributes="mask, age", rows={row.number: row for row in rows}, **settings)


def test_the_leader_is_the_best_so_far_and_a_tie_goes_to_the_earlier_trial():
    board = board_of(Row(2, "", best=0.5), Row(0, ""), Row(1, "", best=0.5), Row(3, "", best=0.4))
    assert board.leader.number == 1
    assert board_of(Row(0, "")).leader is None


def test_an_update_changes_one_row_and_leaves_the_others():
    board = board_of(Row(0, "a"), Row(1, "b"))
    assert board.update(1, state="finished", epoch=3) == Row(1, "b", "finished", 3)
    assert board.rows[0] == Row(0, "a")


def test_the_table_shows_running_trials_first_then_the_best():
    rows = [Row(0, "low", "finished", 10, 0.1, 0.2), Row(1, "top", "stopped", 3, 0.3, 0.4), Row(2, "now", "running", 5, 0.1, 0.1)]
    text = text_of(board_of(*rows))
    assert text.index("now") < text.index("top") < text.index("low")
    assert "macro F1 over mask, age" in text
    assert "2 of 8 trials ended, 1 running, best so far 0.4000 (trial 1)" in text


def test_a_trial_that_has_not_reported_has_no_score():
    (line,) = [line for line in text_of(board_of(Row(7, "new"))).splitlines() if "new" in line]
    assert line.split() == ["7", "running", "0", "-", "-", "new"]


def test_a_long_table_is_cut_and_says_so():
    text = text_of(board_of(*(Row(number, f"of-{number}-", "finished", best=number / 100) for number in range(SHOWN + 5))))
    assert f"of-{SHOWN + 4}-" in text and "of-4-" not in text
    assert "... and 5 more" in text


def test_the_time_left_is_estimated_from_the_pace_of_ended_trials():
    half = [Row(number, "", "finished", epoch=10) for number in range(4)]
    board = board_of(*half, started=monotonic() - 400)
    assert board.seconds_left() == pytest.approx(400, rel=0.01)
    stopped = [Row(number, "", "stopped", epoch=5) for number in range(4)]
    assert board_of(*stopped, started=monotonic() - 400).seconds_left() == pytest.approx(400, rel=0.01)


def test_there_is_no_estimate_before_the_first_epoch_and_none_beyond_the_deadline():
    assert board_of(Row(0, "")).seconds_left() is None
    board = board_of(Row(0, "", epoch=1), started=monotonic() - 1000, deadline=monotonic() + 30)
    assert board.seconds_left() == pytest.approx(30, abs=1)
    assert board_of(Row(0, "", epoch=1), deadline=monotonic() - 5).seconds_left() == 0


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (59.6, "1:00"), (247, "4:07"), (3909, "1:05:09"), (90000, "25:00:00")])
def test_a_time_is_written_as_a_clock_shows_it(seconds, text):
    assert clock(seconds) == text


def test_what_differs_is_short_and_holds_searched_values_only(tmp_path):
    (tmp_path / "my.yaml").write_text("""
task: {choice: [joint, [[mask], [age]]]}
model: {backbone: {choice: [resnet18, resnet34]}, weights: none}
loss: {name: {choice: [cross_entropy, focal]}, gamma: {float: [0.5, 3.0], when: {loss/name: focal}}}
optimizer: {lr: {float: [1.0e-5, 1.0e-1], log: true}}
""")
    space = read_space(tmp_path / "my.yaml")
    values = {"task": "joint", "model": {"backbone": "resnet18", "weights": "none"}, "optimizer": {"lr": 0.00312345}}
    assert differs(space, values | {"loss": {"name": "focal", "gamma": 1.23456}}) == "joint resnet18 loss=focal gamma=1.23 lr=0.00312"
    # A record holds every default; what was not drawn differs from nothing.
    assert differs(space, values | {"loss": {"name": "cross_entropy", "gamma": 2.0}}) == "joint resnet18 loss=cross_entropy lr=0.00312"
    assert differs(space, {"task": [["mask"], ["age"]]}) == '[["mask"], ["age"]]'
