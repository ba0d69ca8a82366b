from sys import getswitchinterval, setswitchinterval
from threading import Event, Thread
from time import monotonic

import pytest
from rich.console import Console

from search_spaces.read import read_space
from trainables.metrics import DEFAULT, METRICS, Metric
from tuner.board import SHOWN, Board, Row, clock, differs


def text_of(board, width=160):
    console = Console(width=width, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(board)
    return captured.get()


def board_of(*rows, trials=8, epochs=10, metric=METRICS[DEFAULT], **settings):
    return Board(trials, epochs, "mask, age", metric, rows={row.number: row for row in rows}, **settings)


def test_the_leader_is_the_best_so_far_and_a_tie_goes_to_the_earlier_trial():
    board = board_of(Row(2, "", best=0.5), Row(0, ""), Row(1, "", best=0.5), Row(3, "", best=0.4))
    assert [row.number for row in board.leaders()] == [1]
    assert board_of(Row(0, "")).leaders() == []


def test_there_is_a_leader_for_each_that_trials_predict():
    rows = [Row(number, "", best=best, predicts=kind) for number, (best, kind) in enumerate([(0.9, "gender"), (0.4, "age"), (0.5, "age")])]
    board = board_of(*rows)
    assert [row.number for row in board.leaders()] == [0, 2]
    assert board.best_like(1) == rows[2] and board.best_like(7) is None
    assert "best so far gender 0.900 (trial 0), age 0.500 (trial 2)" in board.words()


def test_rows_that_are_read_stay_as_they_are_while_trials_are_added_and_change():
    board = board_of(Row(0, "a"), Row(1, "b"))
    looked_through = []
    for row in board.rows.values():
        board.put(Row(10 + row.number, "new"))
        board.update(1, epoch=5)
        looked_through.append(row)
    assert looked_through == [Row(0, "a"), Row(1, "b")]
    assert sorted(board.rows) == [0, 1, 10, 11]
    with pytest.raises(TypeError):
        board.rows[2] = Row(2, "")


def test_a_table_that_is_drawn_all_the_time_survives_trials_that_are_added():
    board, done, failures = board_of(trials=600), Event(), []

    def draw():
        while not done.is_set():
            try:
                text_of(board)
            except RuntimeError as error:
                failures.append(error)
                return

    before = getswitchinterval()
    setswitchinterval(1e-6)
    drawing = Thread(target=draw)
    drawing.start()
    try:
        for number in range(600):
            board.put(Row(number, "added", epoch=1, best=number / 600))
            board.seconds_left()
    finally:
        done.set()
        drawing.join()
        setswitchinterval(before)
    assert not failures
    assert len(board.rows) == 600


def test_of_a_metric_to_minimize_the_lowest_leads_and_a_negative_score_is_a_score():
    error = Metric("error", "error rate", direction="minimize")
    board = board_of(
        Row(0, "high", "stopped", 1, 0.5, 0.5), Row(1, "low", "stopped", 1, -0.1, -0.1), Row(2, "none", "failed"), metric=error
    )
    assert [row.number for row in board.leaders()] == [1]
    text = text_of(board)
    assert text.index("low") < text.index("high") < text.index("none")
    assert "error rate over mask, age" in text and "best so far -0.100 (trial 1)" in text


def test_an_update_changes_one_row_and_leaves_the_others():
    board = board_of(Row(0, "a"), Row(1, "b"))
    assert board.update(1, state="finished", epoch=3) == Row(1, "b", "finished", 3)
    assert board.rows[0] == Row(0, "a")


def test_the_table_shows_running_trials_first_then_the_best():
    rows = [Row(0, "low", "finished", 10, 0.1, 0.2), Row(1, "top", "stopped", 3, 0.3, 0.4), Row(2, "now", "running", 5, 0.1, 0.1)]
    text = text_of(board_of(*rows))
    assert text.index("now") < text.index("top") < text.index("low")
    assert "macro F1 over mask, age" in text
    assert "2 of 8 trials ended, 1 running, best so far 0.400 (trial 1)" in text


def test_a_trial_that_has_not_reported_has_no_score():
    (line,) = [line for line in text_of(board_of(Row(7, "new"))).splitlines() if "new" in line]
    assert line.split() == ["7", "running", "0", "-", "-", "new"]


def test_a_long_table_is_cut_and_says_so():
    text = text_of(board_of(*(Row(number, f"of-{number}-", "finished", best=number / 100) for number in range(SHOWN + 5))))
    assert f"of-{SHOWN + 4}-" in text and "of-4-" not in text
    assert "... and 5 more" in text


def test_notes_stand_under_the_table_as_they_are_written():
    notes = ["epoch 1: 0.45 (9 trials)", "early scores [b]mislead[/b]"]
    lines = [line.strip() for line in text_of(board_of(Row(0, "only"), notes=notes)).splitlines()]
    assert lines[-3:-1] == notes
    assert lines[-4].endswith("only")
    assert lines[-1].startswith("0 of 8 trials ended")


@pytest.mark.parametrize("notes", [[], ["short"], ["a long note " * 20], ["one", "a long note " * 30]])
@pytest.mark.parametrize("width", [80, 160])
def test_a_long_table_leaves_room_for_notes_and_footer_on_a_terminal_of_24_lines(notes, width):
    rows = [Row(number, f"of-{number}-", "finished", best=number / 100) for number in range(40)]
    lines = text_of(board_of(*rows, trials=40, notes=notes, size=84_000_000), width).splitlines()
    assert len(lines) == 24
    shown = sum("finished" in line for line in lines)
    assert any(line.strip() == f"... and {40 - shown} more" for line in lines)
    assert lines[-1].strip().endswith("run folder 84 MB")


def test_notes_never_take_the_place_of_the_first_row():
    text = text_of(board_of(*(Row(number, f"of-{number}-") for number in range(30)), notes=["note"] * 40))
    assert "of-0-" in text and "of-1-" not in text
    assert "... and 29 more" in text


@pytest.mark.parametrize(
    "size, words", [(84_200_000, "run folder 84 MB"), (0, "run folder 0 MB"), (12_345_678_901, "run folder 12,346 MB")]
)
def test_the_footer_ends_with_the_size_of_the_run_once_it_is_known(size, words):
    assert text_of(board_of(size=size)).rstrip().endswith(f", {words}")
    assert " MB" not in text_of(board_of())


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


def test_the_pace_of_a_resumed_search_is_that_of_its_own_epochs():
    ended_before = [Row(number, "", "finished", epoch=10, best=0.5, earlier=10) for number in range(4)]
    half_way = Row(4, "", "running", epoch=8, earlier=4)
    # 4 epochs took 40 seconds; 2 epochs of this trial and 3 trials of the usual 10 are left.
    board = board_of(*ended_before, half_way, started=monotonic() - 40)
    assert board.seconds_left() == pytest.approx((2 + 3 * 10) * 10, rel=0.01)


def test_a_resumed_search_has_no_pace_before_it_has_trained_an_epoch_itself():
    ended_before = Row(0, "", "stopped", epoch=3, score=0.4, best=0.5, earlier=3)
    board = board_of(ended_before, Row(1, "", epoch=4, earlier=4))
    assert board.seconds_left() is None
    board.update(1, epoch=5)
    assert board.seconds_left() is not None


def test_a_trial_that_lost_its_state_and_begins_again_never_turns_the_pace_negative():
    board = board_of(Row(0, "", epoch=2, earlier=5), started=monotonic() - 100)
    assert board.seconds_left() is None
    board.put(Row(1, "", epoch=1))
    assert board.seconds_left() > 0


def test_trials_that_an_earlier_command_ended_are_in_the_table_and_can_lead():
    board = board_of(Row(0, "before", "finished", 10, 0.5, 0.6, earlier=10), Row(1, "now", "running", 1, 0.1, 0.1, images=70), trials=20)
    text = text_of(board)
    assert "1 of 20 trials ended, 1 running, best so far 0.600 (trial 0)" in text
    assert text.index("now") < text.index("before")
    assert board.images == 70


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
