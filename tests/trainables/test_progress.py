"""What commands say while they work, where no terminal shows it."""

from time import sleep

import pytest

from trainables import progress
from trainables.progress import progress_bar, waiting


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.2)


def test_what_is_waited_for_is_reported_at_once(capsys):
    with waiting("importing torch"):
        assert capsys.readouterr().err == "importing torch ...\n"


def test_it_is_shown_again_as_long_as_it_lasts(capsys):
    with waiting("importing torch"):
        sleep(1)
    assert capsys.readouterr().err.count("importing torch") > 1


def test_how_much_is_done_is_shown_as_long_as_it_lasts(capsys):
    with progress_bar("decoding", 2_000) as advance:
        advance(1_200)
        sleep(1)
    assert "decoding: 1,200 of 2,000" in capsys.readouterr().err


def test_the_progress_function_is_called_each_time(capsys):
    trials = iter(range(100))
    with waiting(lambda: f"{next(trials)} trials ended"):
        sleep(1)
    assert "0 trials ended" in (said := capsys.readouterr().err) and "1 trials ended" in said


def test_only_the_innermost_speaks(capsys):
    with waiting(lambda: "outside"), progress_bar("inside", 2):
        sleep(1)
    said = capsys.readouterr().err
    assert "inside: 0 of 2" in said and "outside" not in said


def test_nothing_is_shown_of_nothing_to_do(capsys):
    with progress_bar("decoding", 0) as advance:
        advance(0)
        sleep(0.5)
    assert capsys.readouterr().err == ""


def test_an_end_is_quiet(capsys):
    with waiting("importing torch"):
        pass
    capsys.readouterr()
    sleep(0.5)
    assert capsys.readouterr().err == ""
